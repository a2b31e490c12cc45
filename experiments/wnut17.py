"""Names of people, places and things that are new, in noisy text, without pretrained vectors.

    python -m launch.train --config=experiments/wnut17.py --config.folder=FOLDER

where FOLDER holds `wnut17train.conll`, `emerging.dev.conll` and `emerging.test.annotated`, perhaps
as .gz. A bidirectional LSTM beside self-attention reads the shapes and the parts of words, since
the names are new; of some words in training the shape alone. O, which most words have, weighs less
in the loss. With --config.mixer=lstm or --config.mixer=attention it is one half of itself.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: strict entity F1 of 41.9, the best of the shared task, with pretrained vectors (from
memory).

Tried: on validation bytes gave an F1 of 15.9 (commit fc18944, --config.symbols=bytes
--config.length=288), the shapes and parts of words give 29. The test, from other sites, names other
kinds of things and falls short of 20; what a new name is the name of seems to be known from other
text alone.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import encoders, settings, tagging
from recattn_jax.data import Source, conll, find_file
from recattn_jax.models import PerStep
from recattn_jax.training import Experiment

FILES = {
    "train": "wnut17train.conll",
    "validation": "emerging.dev.conll",
    "test": "emerging.test.annotated",
}


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **encoders.of_symbols() | dict(dropout=0.4),
        **tagging.numbers()
        | dict(
            tags=13,
            symbols="features",
            vocabulary=9_000,
            features=28,
            unknown=0.3,
            length=64,
            outside=0.2,
        ),
        folder="",
        steps=600,
        weight_decay=0.3,
        ema_decay=0.98,
        evaluate_every=100,
        score_every=100,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        folder = settings.path(c, "folder", ", ".join(FILES.values()))
        return conll({split: find_file(folder, name) for split, name in FILES.items()}, data_dir)

    return tagging.tagging(
        c,
        source,
        frontend=tagging.embedding(c),
        body=encoders.encoder(c),
        readout=PerStep(c.tags),
        optimization=settings.adamw(c),
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "peak_lr": (1e-3, 3e-3, 1e-2),
        "mixer": ("lstm", "attention", "lstm+attention"),
        "dropout": (0.2, 0.3, 0.5),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(width=16, heads=2)
    return tagging.tiny(c)
