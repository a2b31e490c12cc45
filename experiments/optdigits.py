"""Digits of 8 x 8 pixels, read row by row.

    python -m launch.train --config=experiments/optdigits.py --config.folder=FOLDER

where FOLDER holds `optdigits.tra` and `optdigits.tes`, perhaps as .gz; those of the test were
written by other people. A bidirectional LSTM beside self-attention (system S3), and the mean over
the rows. With --config.mixer=lstm or --config.mixer=attention it is one half of itself.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: accuracy 98.0 % by the nearest neighbour.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import series, settings
from recattn_jax.data import Measurements, Source, Steps, find_file, image_rows
from recattn_jax.training import Experiment

FILES = {"train": "optdigits.tra", "test": "optdigits.tes"}


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **series.numbers() | dict(classes=10, features=8, length=8, width=64, depth=2, dropout=0.3),
        folder="",
        steps=2000,
        weight_decay=0.5,
        evaluate_every=250,
        ema_decay=0.99,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        folder = settings.path(c, "folder", " and ".join(FILES.values()))
        paths = {split: find_file(folder, name) for split, name in FILES.items()}
        return image_rows(paths, data_dir, rows=8)

    def pixels(found: Source) -> Steps:
        return Measurements.of((r["series"] for r in found.splits["train"]), alike=True)

    return series.series(c, source, pixels)


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return series.sweep()


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return series.tiny(c)
