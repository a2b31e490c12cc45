"""Forecasting: the steps that come after those that were measured."""

import dataclasses

import jax.numpy as jnp

from recattn_jax.shapes import State
from recattn_jax.tasks.base import Apply, Batch, Mean, Metrics


@dataclasses.dataclass(frozen=True)
class Forecast:
    """The next steps of a series, from a model that gives them all.

    Metrics, each a mean over windows, steps and features of the scaled series: `loss`, the squared
    error, and `mae`, the absolute error.

    A batch holds `inputs`, float32 `[B, L, D]`, `targets`, float32 `[B, H, D]`, and `weight`,
    float32 `[B]`, 0 for a row that only fills the batch. The model gives `[B, H, D]`.

    >>> Forecast().headline
    'loss'
    """

    headline: str = "loss"

    @property
    def maximise(self) -> bool:
        """Less is better."""
        return False

    def __call__(self, apply: Apply, batch: Batch, state: State | None) -> tuple[Metrics, State]:
        """Sums the errors of a batch; see `Task`."""
        forecast_BHD, state = apply(batch["inputs"], state)
        targets_BHD = batch["targets"]
        if forecast_BHD.shape != targets_BHD.shape:
            raise ValueError(
                f"Forecast: the model gives {list(forecast_BHD.shape)}, expected"
                f" {list(targets_BHD.shape)}"
            )
        error_BHD = forecast_BHD - targets_BHD
        weight_B = batch["weight"]
        count = jnp.sum(weight_B)
        return {
            "loss": Mean(jnp.sum(jnp.mean(jnp.square(error_BHD), axis=(1, 2)) * weight_B), count),
            "mae": Mean(jnp.sum(jnp.mean(jnp.abs(error_BHD), axis=(1, 2)) * weight_B), count),
        }, state
