"""What a task is."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from recattn_jax.layers.base import Context
from recattn_jax.shapes import Array, Float, State

Batch = Mapping[str, Array]
Apply = Callable[[Any, State | None, Context], tuple[Any, State]]
"""A model with its parameters and random streams bound: `(inputs, state, context)`."""


class Mean(NamedTuple):
    """A sum and the weight to divide it by, last of all.

    So a mean is exact over micro-batches, devices and ragged last batches.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]


Metrics = dict[str, Mean]


@runtime_checkable  # so that the checked annotations of the tests can ask
class Task(Protocol):
    """Maps a batch to metrics by way of a model.

    Attributes:
      headline: the metric that runs are compared by; less is better.
    """

    @property
    def headline(self) -> str:
        """The metric that runs are compared by; less is better."""
        ...

    def __call__(self, apply: Apply, batch: Batch, state: State | None) -> tuple[Metrics, State]:
        """Runs the model on a batch.

        Args:
          apply: the model, bound to its parameters.
          batch: arrays with a leading batch axis.
          state: the model's state before the batch; None for a fresh one.

        Returns:
          Metrics, of which `loss` is minimised, and the model's state after the batch.
        """
        ...
