"""Regression: numbers, such as the steps of a series that come next."""

import dataclasses

import jax.numpy as jnp

from recattn_jax.shapes import State
from recattn_jax.tasks.base import Apply, Batch, Mean, Metrics


@dataclasses.dataclass(frozen=True)
class Regression:
    """As many numbers a row as the targets have: forecasts, sums.

    Metrics, each a mean over rows and the numbers of a row: `loss`, the squared error, and `mae`,
    the absolute error.

    A batch holds `inputs`, float32 `[B, T, D]`, all steps real, `targets`, float32 `[B, ...]`, and
    `weight`, float32 `[B]`, 0 for a row that only fills the batch. The model predicts the shape of
    the targets.

    Attributes:
      headline: `loss` or `mae`.

    >>> Regression().headline
    'loss'
    """

    headline: str = "loss"

    @property
    def maximise(self) -> bool:
        """Less is better."""
        return False

    def __call__(self, apply: Apply, batch: Batch, state: State | None) -> tuple[Metrics, State]:
        """Sums the errors of a batch; see `Task`."""
        predicted, state = apply(batch["inputs"], state)
        targets = batch["targets"]
        if predicted.shape != targets.shape:
            raise ValueError(
                f"Regression: the model predicts {list(predicted.shape)}, expected"
                f" {list(targets.shape)}"
            )
        error = predicted - targets
        numbers = tuple(range(1, error.ndim))
        weight_B = batch["weight"]
        count = jnp.sum(weight_B)
        return {
            "loss": Mean(jnp.sum(jnp.mean(jnp.square(error), axis=numbers) * weight_B), count),
            "mae": Mean(jnp.sum(jnp.mean(jnp.abs(error), axis=numbers) * weight_B), count),
        }, state
