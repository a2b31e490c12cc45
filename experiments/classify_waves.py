"""One label for a sound, on your own folder of wav files: an LSTM beside self-attention.

    python -m launch.train --config=experiments/classify_waves.py --config.path=SOUNDS \
        --config.classes=3

where SOUNDS/LABEL/NAME.wav are of 16 bits, one channel and --config.rate samples a second. A tenth
of the files is held out; those whose path has the regular expression --config.test in it are the
test. With --config.mixer=lstm or --config.mixer=attention the model is one half of itself. Time and
the number to expect are matters of the sounds.
"""

import functools
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import series, settings
from recattn_jax.data import Source, labelled_waves
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **series.numbers() | series.sound() | dict(length=200, dropout=0.3),
        path="",  # a folder, or a tar archive of one
        label=r"([^/]+)/[^/]+$",  # its group, found in a file's path, is the label
        test="",
        steps=1000,
        evaluate_every=50,
        patience=10,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        path = settings.path(c, "path", "a folder with a folder of wav files a label")
        splits = {"test": c.test} if c.test else {}
        return labelled_waves(path, data_dir, c.rate, c.label, splits)

    return series.series(c, source, functools.partial(series.spectra, c))


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return series.sweep()


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return series.tiny(c)
