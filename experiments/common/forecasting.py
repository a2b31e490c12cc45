"""From a long series to an experiment that forecasts it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import settings
from recattn_jax.data import (
    Data,
    Pipeline,
    Source,
    Stretch,
    forecast_batch,
    forecast_data,
    forecast_windows,
)
from recattn_jax.errors import UserError, choose
from recattn_jax.layers import (
    LSTM,
    Dropout,
    Parallel,
    Residual,
    RMSNorm,
    SelfAttention,
    SequenceLayer,
    Serial,
    add,
)
from recattn_jax.models import DirectForecaster, RollingForecaster
from recattn_jax.tasks import Regression
from recattn_jax.training import Experiment


def numbers() -> dict[str, Any]:
    """The numbers that `forecasting` reads."""
    return dict(
        features=1,  # how many measurements there are at a time
        length=96,  # steps that are looked at
        horizon=96,  # steps that are forecast
        patch=12,  # steps that are read at once; divides the length
        rolling=False,  # forecast patch after patch, reading each; else all at once
        batch=32,
        mixer="lstm+attention",  # or lstm, attention
        width=32,
        depth=1,
        heads=4,
        dropout=0.7,  # a linear map leaves little over
    )


def forecasting(c: ConfigDict, source: Callable[[Path], Source]) -> Experiment:
    """An experiment that forecasts a series.

    Args:
      c: the config.
      source: from the folder for prepared data to one record a split, see `readers.table`.
    """

    def data() -> Data:
        found = source(settings.data_dir(c))
        made = forecast_data(found, c.length, c.horizon, pipeline)
        settings.check_features(c, made.train.spec["inputs"].shape[2])
        return made

    def pipeline(stretch: Stretch, host: int, hosts: int) -> Pipeline:
        return forecast_windows(stretch, c.batch, c.length, c.horizon, c.seed, host, hosts)

    forecaster = RollingForecaster if c.rolling else DirectForecaster
    return Experiment(
        model=forecaster(body(c), c.width, c.patch, c.horizon),
        task=Regression(),
        data=data,
        batch=forecast_batch(c.batch, c.length, c.horizon, c.features),
        optimization=settings.adamw(c),
        cadence=settings.cadence(c),
        layout=settings.layout(c),
        seed=c.seed,
    )


def body(c: ConfigDict) -> SequenceLayer:
    """An LSTM beside causal attention over patches, or either, in residual blocks behind norms."""
    if c.patch < 1:
        raise UserError(f"patch is {c.patch}, must be 1 or more")
    reach = -(-(c.length + c.horizon) // c.patch)

    def attention() -> SequenceLayer:
        return SelfAttention(c.heads, window=reach)

    mixers: dict[str, Callable[[], SequenceLayer]] = {
        "lstm": lambda: LSTM(c.width),
        "attention": attention,
        "lstm+attention": lambda: Parallel((LSTM(c.width), attention()), combine=add),
    }
    mixer = choose(mixers, c.mixer, "mixer")
    blocks = [Residual(Serial((RMSNorm(), mixer(), Dropout(c.dropout)))) for _ in range(c.depth)]
    return Serial((*blocks, RMSNorm(), Dropout(c.dropout)))


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "peak_lr": (3e-4, 1e-3, 3e-3),
        "mixer": ("lstm", "attention", "lstm+attention"),
        "rolling": (False, True),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return settings.tiny(c, batch=8, length=8, horizon=4, patch=2, width=16, heads=2)
