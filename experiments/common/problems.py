"""From a generated problem to an experiment."""

import functools
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from experiments.common import architectures, settings
from recattn_jax import partition
from recattn_jax.data import Data, Labels, Pipeline, generated, problem_batch
from recattn_jax.data.problems import Problem
from recattn_jax.layers import Embed
from recattn_jax.models import Asked, PerStep, SequenceModel
from recattn_jax.tasks import Answers, losses
from recattn_jax.training import Experiment


def numbers() -> dict[str, Any]:
    """The numbers that `problem` reads, those of an architecture among them."""
    return architectures.numbers() | dict(
        batch=128,
        test_batch=16,  # whose questions may be far longer
        questions=512,  # of an evaluation, or as many more as make all lengths equally frequent
    )


def problem(
    c: ConfigDict,
    asked: Problem,
    lengths: Mapping[str, tuple[int, int]],
    curriculum: int,
    headline: str,
) -> Experiment:
    """An experiment that answers a problem.

    Args:
      c: the config.
      asked: the problem.
      lengths: by split, "train" and "validation" among them, of the shortest and the longest. A
        split has one shape, so one program answers all its lengths.
      curriculum: steps in which the longest one of training grows from the shortest.
      headline: which metric chooses a checkpoint: "loss", where short questions are soon all right
        and long ones are not, or "accuracy".

    Raises:
      UserError: `c.mixer` is none of `architectures.NAMES`, or a length is none.
    """

    def pipeline(split: str) -> Pipeline:
        rows = c.test_batch if split == "test" else c.batch
        hosts = partition.hosts()
        low, high = lengths[split]
        each = -(-c.questions // (high - low + 1))  # every length as often as any other
        count = each * (high - low + 1)
        return generated(asked, split, (low, high), count, rows, c.seed, curriculum, *hosts)

    def data() -> Data:
        others = {split: pipeline(split) for split in lengths if split != "train"}
        told = ", ".join(f"{split} {low} to {high}" for split, (low, high) in lengths.items())
        about = f"{asked!r}: questions of lengths {told}"
        return Data(
            {"answer": Labels(tuple(map(str, range(asked.answers))))},
            pipeline("train"),
            others,
            about,
        )

    return Experiment(
        model=SequenceModel(
            frontend=Embed(asked.symbols, c.width),
            body=architectures.architecture(c),
            readout=Asked(PerStep(asked.answers)),
        ),
        task=Answers(
            functools.partial(losses.cross_entropy, smoothing=0.0, weights=None), headline
        ),
        data=data,
        batch=problem_batch(asked, c.batch, lengths["train"][1]),
        optimization=settings.adamw(c),
        cadence=settings.cadence(c),
        layout=settings.layout(c),
        seed=c.seed,
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {"peak_lr": (3e-4, 1e-3, 3e-3), "mixer": architectures.NAMES, "seed": (0, 1, 2)}


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return settings.tiny(c, batch=8, test_batch=8, questions=8, width=16, heads=2, depth=1, chunk=4)
