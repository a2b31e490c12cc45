"""The abstract of a paper to one line: LSTMs that attend to LSTMs.

    python -m launch.train --config=experiments/scitldr.py --config.folder=FOLDER

where FOLDER holds `train.jsonl`, `dev.jsonl` and `test.jsonl`, perhaps as .gz: 1,992 abstracts to
train on. The log says what the first sentence of each abstract would score, the baseline to be
above. With --config.mixer=lstm the decoder is given the encoder's last states alone; with
--config.mixer=attention it is a transformer of as many blocks.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: ROUGE-1 of 43.8 by CATTS and 43.3 by BART, both pretrained; 28.3 by the first sentence of
each abstract.

Tried: these numbers do not come near the first sentence: from nothing, 1,992 abstracts seem to be
too few to learn what to say of one.
"""

import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import pairs, settings
from recattn_jax.data import Record, Source, find_file, summaries
from recattn_jax.tasks import Rouge
from recattn_jax.training import Experiment

FILES = {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"}


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **pairs.numbers()
        | dict(batch=32, source_length=256, target_length=48, depth=1, width=192, beams=4),
        folder="",
        vocabulary=3_000,  # subwords of each side
        lowercase=True,
        steps=400,
        evaluate_every=100,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        folder = settings.path(c, "folder", ", ".join(FILES.values()))
        paths = {split: find_file(folder, name) for split, name in FILES.items()}
        return summaries(paths, data_dir)

    def about(found: Source) -> str:
        leads = [
            f"{split}: the first sentence alone: {lead(list(records))}"
            for split, records in found.splits.items()
        ]
        return "\n".join([found.summary(), *leads])

    return pairs.of_subwords(c, source, (Rouge(),), about)


def lead(records: list[Record]) -> str:
    """What the first sentence of each text would score, in words."""
    first = [re.split(r"(?<=[.?!])\s", record["source"], maxsplit=1)[0] for record in records]
    scores = Rouge()(first, [record["targets"] for record in records])
    return ", ".join(f"{name} {value:.2f}" for name, value in scores.items())


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "peak_lr": (1e-3, 2e-3, 4e-3),
        "mixer": ("lstm", "attention", "lstm+attention"),
        "dropout": (0.1, 0.3),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(vocabulary=320)
    return pairs.tiny(c)
