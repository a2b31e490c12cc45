"""What a task is."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from flax import linen as nn

from recattn_jax.data import Record
from recattn_jax.shapes import Array, Float, Int, State

Batch = Mapping[str, Array]
"""Arrays by name, rows first: `[B, ...]`."""
Apply = Callable[..., tuple[Any, State]]
"""A model with its parameters and random streams bound: `(inputs, state, context)`, or whatever
else the model's own call takes, to predictions and state; with `method="compare"` what that method
takes, to what it returns."""


class Mean(NamedTuple):
    """A sum and the weight to divide it by, last of all.

    So a mean is exact over micro-batches, devices and ragged last batches.

    Attributes:
      total: `[]`, the sum.
      weight: `[]`, what it is divided by.

    >>> Mean.of(total=6.0, weight=4.0)
    1.5
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @staticmethod
    def of(total: float, weight: float) -> float:
        """The number to report: total / weight, nan for a weight of zero."""
        return total / weight if weight else math.nan


class Perplexity(NamedTuple):
    """Nats and what they are counted over: the exponential of their mean, taken last of all.

    A mean of perplexities of batches would not be the perplexity of the split.

    Attributes:
      total: `[]`, nats.
      weight: `[]`, what they are counted over.

    >>> round(Perplexity.of(total=6.0, weight=4.0), 3)
    4.482
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @staticmethod
    def of(total: float, weight: float) -> float:
        """The number to report: exp(total / weight), infinite beyond the largest float."""
        try:
            return math.exp(Mean.of(total, weight))
        except OverflowError:
            return math.inf


Metric = Mean | Perplexity
Metrics = dict[str, Metric]
"""By name; `loss` is what is minimised."""


def reported(parts: Sequence[Any]) -> float:
    """The one number that parts of a metric amount to.

    Args:
      parts: a metric of several batches, all of one kind, as numbers of the host.

    Returns:
      Totals and weights summed exactly, and then what the kind makes of them.

    >>> reported([Mean(1.0, 1.0), Mean(5.0, 3.0)])
    1.5
    """
    total = math.fsum(float(part.total) for part in parts)
    weight = math.fsum(float(part.weight) for part in parts)
    return float(type(parts[0]).of(total, weight))


@runtime_checkable  # so that the checked annotations of the tests can ask
class Task(Protocol):
    """Maps a batch to metrics by way of a model.

    Attributes:
      headline: the metric that runs are compared by.
      maximise: whether more of it is better.

    >>> class MeanOutput:
    ...     headline, maximise = "loss", False
    ...
    ...     def __call__(self, apply, batch, state):
    ...         y, state = apply(batch["inputs"], state)
    ...         return {"loss": Mean(y.sum(), np.float32(y.size))}, state
    >>> isinstance(MeanOutput(), Task)
    True
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
    """A task whose predictions are compared with the records they were made for.

    `predict` runs on the device, batch by batch; `score`, `explain` and `write` on the host, with
    one prediction a record, filler rows left out.

    >>> from recattn_jax.tasks import Classification, Regression, losses
    >>> isinstance(Classification(2, losses.NATS), Scored), isinstance(Regression(), Scored)
    (True, False)
    """

    def predict(self, model: nn.Module, variables: Any, batch: Batch) -> Any:
        """Predicts for every row of a batch; may be traced.

        Args:
          model: the unbound model.
          variables: its variables.
          batch: as for `__call__`; what is to be predicted is not looked at.

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
          Numbers by name; one that is not defined for these records is left out.
        """
        ...

    def explain(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> str:
        """Lines for a person that no single number holds; arguments as for `score`."""
        ...

    def read(self, line: str, vocabularies: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Turns a line of text into one example without its batch axis.

        Args:
          line: what a person gives to be predicted for.
          vocabularies: of the run.

        Returns:
          The leaves that `predict` needs; padding and batching is the caller's.
        """
        ...

    def write(self, prediction: Any, line: str, vocabularies: Mapping[str, Any]) -> str:
        """The prediction for a line as a line of text.

        Args:
          prediction: a row of each leaf of what `predict` gave.
          line: the line it is for.
          vocabularies: of the run.

        Returns:
          A line of text.
        """
        ...


@runtime_checkable
class Labelled(Scored, Protocol):
    """A task that gives each record one of a few labels."""

    def confusion(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> tuple[Int[np.ndarray, "C C"], Sequence[str]]:
        """Counts right and predicted labels; arguments as for `score`.

        Returns:
          A row for each right label, a column for each predicted one; and their names.
        """
        ...


def read_inputs(line: str, vocabularies: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What a person gives in a line, as `inputs` and `segments` without a batch axis.

    Args:
      line: a text, or whatever the steps of the run read in a line.
      vocabularies: of the run: "text", a tokenizer, or "series".

    Returns:
      `inputs`, ids `[T]` or features `[T, D]`, and `segments`, int32 `[T]`.
    """
    series = vocabularies.get("series")
    inputs = encoded(vocabularies["text"], line) if series is None else series.of_line(line)
    return {"inputs": inputs, "segments": np.ones(len(inputs), np.int32)}


def encoded(tokenizer: Any, text: str) -> Int[np.ndarray, " N"]:
    """The ids of a text, as examples have them: an empty one is a lone separator.

    Args:
      tokenizer: of the run.
      text: what a person gave.

    Returns:
      int32 `[N]`.
    """
    ids = np.asarray(tokenizer.encode(text), np.int32)
    return ids if len(ids) else np.array([tokenizer.separator], np.int32)
