"""Who said two vowels: series of 12 numbers a step, of unequal lengths, by nine speakers.

    python -m launch.train --config=experiments/japanese_vowels.py --config.folder=FOLDER

where FOLDER holds `JapaneseVowels_TRAIN.ts` and `JapaneseVowels_TEST.ts`, perhaps as .gz; a tenth
of the 270 training series is held out. A bidirectional LSTM beside self-attention (system S3), and
the mean over time. With --config.mixer=lstm or --config.mixer=attention it is one half of itself.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: accuracy 99 to 100 % by convolutions beside LSTMs (MLSTM-FCN).
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import series, settings
from recattn_jax.data import Source, find_file, labelled_series
from recattn_jax.training import Experiment

FILES = {"train": "JapaneseVowels_TRAIN.ts", "test": "JapaneseVowels_TEST.ts"}


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **series.numbers() | dict(classes=9, features=12, length=32, dropout=0.3),
        folder="",
        steps=400,
        evaluate_every=50,
        ema_decay=0.98,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        folder = settings.path(c, "folder", " and ".join(FILES.values()))
        paths = {split: find_file(folder, name) for split, name in FILES.items()}
        return labelled_series(paths, data_dir)

    return series.series(c, source, series.scaled)


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return series.sweep()


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return series.tiny(c)
