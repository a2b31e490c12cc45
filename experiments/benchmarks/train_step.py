"""Training steps.

    python -m experiments.benchmarks.train_step [--rounds=9] [--peak_tflops=N] [--only=REGEX]
        [--record]

A whole step of training a language model (forward, backward, Adam, metrics), float32: ours is the
step of `training.step` with our layers, the peers are the same architecture and sizes in Flax's
own layers with optax, and in torch with `torch.optim.Adam`. S3 is an LSTM beside causal
self-attention of all steps before, which in ours alone has rotary positions and masks documents;
Griffin is two blocks of a gated linear recurrence to one of
local attention. Ours counts accuracy and bits a byte besides the loss, and the norm of the
gradient. GFLOP/s are 6 operations a parameter and token, without the products of attention's
scores; `--peak_tflops`, what the device can do, turns them into a utilisation.

torch has no scan and no band: its RG-LRU is a loop over time, local attention a mask, and its LSTM
has two biases where one is enough, hence a few more parameters.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks import plots
from experiments.benchmarks.harness import (
    Bench,
    Row,
    Suite,
    Table,
    distinct,
    found,
    main,
    number,
    ratio,
)
from experiments.benchmarks.peers import ModelShape, flax_models
from recattn_jax.data import Data, token_batch
from recattn_jax.layers import Embed, SequenceLayer
from recattn_jax.models import PerStep, SequenceModel, hybrids
from recattn_jax.tasks import LanguageModel
from recattn_jax.training import (
    DEFAULT_RULES,
    Cadence,
    Experiment,
    Layout,
    MeshShape,
    Optimization,
    optimizers,
    sharding,
)
from recattn_jax.training.state import abstract_state, create_state, state_shardings
from recattn_jax.training.step import compile_train_step

RATE = 1e-3
OURS, PEERS = "recattn_jax", ("flax", "torch")
BYTES = 256

SHAPES = {
    "S3": (
        ModelShape(32, 128, 256, 4, window=0, hidden=0, depth=1, vocabulary=BYTES),
        ModelShape(16, 256, 512, 8, window=0, hidden=0, depth=1, vocabulary=BYTES),
    ),
    "Griffin": (ModelShape(8, 256, 256, 4, window=64, hidden=768, depth=6, vocabulary=BYTES),),
}
TINY = ModelShape(2, 8, 8, 2, window=4, hidden=12, depth=3, vocabulary=16)


class Step(NamedTuple):
    """A step of training that can be called again and again.

    Args:
      call: does one, from where the last one ended, and gives the loss.
      parameters: how many there are.
    """

    call: Callable[[], Any]
    parameters: int


def bodies(shape: ModelShape) -> dict[str, Callable[[], SequenceLayer]]:
    """Ours between embedding and readout, by the names of the table."""
    width, heads, window = shape.width, shape.heads, shape.window
    return {
        "S3": lambda: hybrids.recurrence_beside_attention(width, heads, window or None),
        "Griffin": lambda: hybrids.griffin(width, heads, window, shape.hidden, shape.depth, 0.0),
    }


def experiment(body: SequenceLayer, shape: ModelShape) -> Experiment:
    """Our experiment of a body; it has no data."""

    def nothing() -> Data:
        raise NotImplementedError("a benchmark has no data")

    rate = optimizers.constant(RATE, warmup=0)
    frontend = Embed(shape.vocabulary, shape.width)
    return Experiment(
        model=SequenceModel(frontend, body, PerStep(shape.vocabulary)),
        task=LanguageModel(separator=0, symbol="byte"),
        data=nothing,
        batch=token_batch(shape.batch, shape.steps),
        optimization=Optimization(
            optimizers.adam(rate, b1=0.9, b2=0.999, eps=1e-8, clip=None),
            rate,
            accumulate=1,
            ema_decay=None,
            carry_state=False,
        ),
        cadence=Cadence(1, 1, 1, 1, keep=1, patience=None, score_every=None),
        layout=Layout(MeshShape(data=1), DEFAULT_RULES, storage=()),
        seed=0,
    )


def our_step(made: Experiment, batch: dict[str, np.ndarray]) -> Step:
    """The train step of an experiment on one batch, compiled as the loop does it."""
    mesh = sharding.make_mesh(made.layout.mesh)
    with jax.set_mesh(mesh):
        abstract = abstract_state(made)
        shardings = state_shardings(made, abstract, mesh)
        now = [create_state(made, shardings)]
        compiled = compile_train_step(made, abstract, shardings, mesh, dict(made.batch))
        placed = sharding.place(
            batch, dict(made.batch), sharding.batch_shardings(dict(made.batch), mesh)
        )

    def call() -> jax.Array:
        now[0], (metrics, _) = compiled(now[0], placed)
        jax.block_until_ready(now[0])
        return metrics["loss"].total / metrics["loss"].weight

    return Step(call, sum(leaf.size for leaf in jax.tree.leaves(now[0].params)))


def random_batch(shape: ModelShape) -> dict[str, np.ndarray]:
    """Random tokens, each row one document."""
    tokens = np.random.default_rng(0).integers(
        1, shape.vocabulary, (shape.batch, shape.steps + 1), np.int32
    )
    return {
        "inputs": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segments": np.ones((shape.batch, shape.steps), np.int32),
    }


def steps(bench: Bench, name: str, shape: ModelShape) -> dict[str, Step]:
    """The steps of a model, by who wrote it."""
    batch = random_batch(shape)
    inputs, targets = batch["inputs"], batch["targets"]
    model = flax_models.MODELS[name](shape)
    tokens = jax.device_put((inputs, targets))
    made = {
        OURS: our_step(experiment(bodies(shape)[name](), shape), batch),
        "flax": Step(*flax_models.train_step(model, tokens[0], tokens[1], RATE)),
    }
    if bench.has("torch"):
        from experiments.benchmarks.peers import torch_models

        theirs = torch_models.MODELS[name](shape)
        made["torch"] = Step(*torch_models.train_step(theirs, inputs, targets, RATE))
    return made


def measured(bench: Bench) -> Iterator[Row]:
    """A row for each model, shape and implementation."""
    for name, shapes in SHAPES.items():
        for shape in (TINY,) if bench.quick else shapes:
            if not bench.wants(name, shape):
                continue
            made = steps(bench, name, shape)
            programs = {who: step.call for who, step in made.items()}
            for row in bench.rows({"model": name, "shape": str(shape)}, programs):
                tokens = shape.batch * shape.steps
                parameters = made[row["program"]].parameters
                speed = 1e3 * tokens / row["ms"]
                work = {"gflops": 6e-9 * parameters * speed}
                if peak := bench.options.get("peak_tflops"):
                    work["utilisation"] = 1e-3 * work["gflops"] / peak
                yield row | {"parameters": parameters, "tokens_per_second": speed} | work


def tables(rows: Sequence[Row]) -> list[Table]:
    """Times, speeds and ratios."""
    cells = []
    for model, shape, who in distinct(rows, "model", "shape", "program"):
        some = [row for row in rows if (row["model"], row["shape"]) == (model, shape)]
        own = found(some, program=OURS)
        numbers = [
            found(some, what, program=who)
            for what in ("ms", "tokens_per_second", "gflops", "utilisation")
        ]
        to = "-" if who == OURS else number(ratio(own, numbers[0]))
        parameters = f"{found(some, 'parameters', program=who):,.0f}"
        cells.append([model, shape, who, *map(number, numbers), to, parameters])
    columns = [
        "model",
        "shape",
        "program",
        "ms a step",
        "tokens/s",
        "GFLOP/s",
        "utilisation",
        "ours to it",
    ]
    columns += ["parameters"]
    return [Table("Training steps", columns, cells)]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Tokens a second."""
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        group = f"{row['model']}\n{row['shape']}"
        groups.setdefault(group, {})[row["program"]] = row["tokens_per_second"]
    plots.panels([plots.Bars("Training, more is better", "tokens/s", groups)], path)


SUITE = Suite(
    "train_step",
    measured,
    tables,
    draw,
    rounds=9,
    options={"peak_tflops": (0.0, "What the device can do, for the utilisation; 0 for unknown.")},
)

if __name__ == "__main__":
    main(SUITE)
