"""One label for a series of measurements, on your own `.ts` file: an LSTM beside self-attention.

    python -m launch.train --config=experiments/classify_series.py --config.train=a.ts \
        --config.classes=4 --config.features=6

A line after `@data` is a series: values with commas, features with colons, and the label at the
end. Without --config.validation a tenth of the training series is held out. With
--config.mixer=lstm or --config.mixer=attention the model is one half of itself. Time and the number
to expect are matters of the series.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import series, settings
from recattn_jax.data import Source, labelled_series
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **series.numbers() | dict(length=128, dropout=0.3),
        train="",  # paths; gzipped where they end in .gz
        validation="",
        test="",
        steps=1000,
        evaluate_every=50,
        patience=10,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        paths = settings.splits(c, train="train", validation="validation", test="test")
        return labelled_series(paths, data_dir)

    return series.series(c, source, series.scaled)


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return series.sweep()


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return series.tiny(c)
