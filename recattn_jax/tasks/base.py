"""What a task is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from flax import linen as nn

from recattn_jax.data import Record
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
      headline: the metric that runs are compared by.
      maximise: whether more of it is better.
    """

    @property
    def headline(self) -> str:
        """The metric that runs are compared by."""
        ...

    @property
    def maximise(self) -> bool:
        """Whether more of the headline is better."""
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


@runtime_checkable
class Scored(Task, Protocol):
    """A task whose predictions are compared with the records they were made for."""

    def predict(self, model: nn.Module, variables: Any, batch: Batch) -> Any:
        """Predicts for every row of a batch; may be traced.

        Args:
          model: the unbound model.
          variables: its variables.
          batch: as for `__call__`.

        Returns:
          A pytree of arrays with a leading batch axis.
        """
        ...

    def score(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> dict[str, float]:
        """Compares predictions with what the records say.

        Args:
          predictions: one a record: a row of each leaf of what `predict` gave.
          records: in the same order.
          vocabularies: of the run.

        Returns:
          Numbers by name; one of a metric's name takes its place.
        """
        ...

    def read(self, line: str, vocabularies: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Turns a line of text into one example without its batch axis."""
        ...

    def write(self, prediction: Any, line: str, vocabularies: Mapping[str, Any]) -> str:
        """The prediction for a line as a line of text."""
        ...
