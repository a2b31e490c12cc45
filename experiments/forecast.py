"""What comes next in your own table of measurements: an LSTM beside causal attention (system S3).

    python -m launch.train --config=experiments/forecast.py --config.path=a.csv \
        --config.features=3 --config.train=2000 --config.validation=500

The first line names the columns; --config.time holds times, later from line to line, and all others
are numbers, or those that --config.columns=a,b names. The splits are so many lines each, in the
order of time, or end before a day or time, as with --config.train=2020-01-01; --config.test= is no
test. The log says what repeating the last values scores, and a linear map. With --config.rolling
patch after patch is forecast, each from what was forecast before it. With --config.mixer=lstm or
--config.mixer=attention the model is one half of itself. Time and the number to expect are matters
of the table.
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
        **forecasting.numbers() | dict(length=48, horizon=24),
        path="",  # gzipped where it ends in .gz
        time="date",
        columns="",  # names with commas; all but that of time where there are none
        train="1000",  # lines, or the time before which it ends
        validation="200",
        test="200",
        steps=1500,
        evaluate_every=100,
        patience=5,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    ends = {split: c[split].strip() for split in ("train", "validation", "test")}
    splits = {s: int(e) if e.isdecimal() else e for s, e in ends.items() if e not in ("", "0")}
    columns = [name.strip() for name in c.columns.split(",") if name.strip()]

    def source(data_dir: Path) -> Source:
        path = settings.path(c, "path", "a table with commas")
        return table(path, data_dir, c.time, splits, columns)

    return forecasting.forecasting(c, source)


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return forecasting.sweep()


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return forecasting.tiny(c)
