"""What a transformer's oil and loads will do: seven measurements an hour, the next 96 of them.

    python -m launch.train --config=experiments/etth1.py --config.path=ETTh1.csv

Days, each measurement by itself, are read by an LSTM beside causal attention (system S3), which
adds to a linear map what that leaves over, for all hours at once, or with --config.rolling one day
after the other. The log says what repeating the last hour scores, and a linear map of least
squares. With --config.mixer=lstm or --config.mixer=attention it is one half of itself. The splits
are Informer's; errors are of values scaled by training.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: MSE and MAE, 96 hours ahead: 0.386 and 0.400 by a linear map (DLinear), 0.368 and 0.395
by one GRU over segments of a longer past (SegRNN).

Tried: the network without a linear map beside it overfits (validation 0.767, commit 0bb300c). With
one there is little left to add: by least squares the map alone has 0.383 and 0.392 on the test, and
0.698 on validation, where the network has 0.693. A past of 336 hours instead of 96
(--config.length=336) has 0.375 and 0.396.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import forecasting, settings
from recattn_jax.data import Source, table
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **forecasting.numbers() | dict(features=7, patch=24),
        path="",
        steps=2000,
        evaluate_every=200,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    day = 24
    splits = {"train": 360 * day, "validation": 120 * day, "test": 120 * day}

    def source(data_dir: Path) -> Source:
        return table(settings.path(c, "path", "ETTh1.csv"), data_dir, "date", splits)

    return forecasting.forecasting(c, source)


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return forecasting.sweep() | {"length": (96, 336), "horizon": (96, 192, 336, 720)}


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return forecasting.tiny(c)
