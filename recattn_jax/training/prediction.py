"""Predictions for lines of text, in batches of a few shapes."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from recattn_jax.data import Vocabulary
from recattn_jax.data.kinds import PADDING
from recattn_jax.tasks.base import Scored
from recattn_jax.training.experiment import Experiment

# Each shape is compiled once, when it is first needed, which takes longer than most predictions.
ROWS = (1, 8, 64)
NARROWEST = 16


@dataclass(frozen=True, eq=False)
class Question:
    """A line that was read.

    Args:
      line: its text.
      leaves: one example without its batch axis; None for a line of white space, to which the
        answer is an empty line.
      left_out: how many steps were cut off at its end.
    """

    line: str
    leaves: Mapping[str, np.ndarray] | None
    left_out: int


class LinePredictor:
    """Answers lines of text, as the task of an experiment reads and writes them.

    A line that is longer than the rows of training is cut where these end, as longer examples were;
    so it costs no more memory than training did, and a model never sees what it never learned. Rows
    and widths are filled up to a few sizes, so few programs serve all lines; neither is a change to
    any answer (see the laws of `SequenceLayer`).

    Args:
      experiment: model, task and the shapes of training.
      params: parameters, on one device.
      vocabularies: of the run.

    >>> predictor = LinePredictor(run.experiment, run.params, run.vocabularies)  # doctest: +SKIP
    >>> question = predictor.read("What is a fugue ?")  # doctest: +SKIP
    >>> list(predictor.answers([question]))  # doctest: +SKIP
    ['DESC']
    """

    def __init__(self, experiment: Experiment, params: Any, vocabularies: Mapping[str, Vocabulary]):
        assert isinstance(experiment.task, Scored)
        self._task = task = experiment.task
        self._params = params
        self._vocabularies = vocabularies
        self._limits = {n: spec.shape[1] for n, spec in experiment.batch.items() if spec.ndim > 1}
        self._predict = jax.jit(
            lambda params, batch: task.predict(experiment.model, {"params": params}, batch)
        )

    def read(self, line: str) -> Question:
        """Reads a line, without predicting yet.

        Args:
          line: its text.

        Raises:
          UserError: the vocabularies do not cover it.
        """
        if not line.strip():
            return Question(line, None, 0)
        leaves = self._task.read(line, self._vocabularies)
        left_out = max(len(leaf) - self._limits[name] for name, leaf in leaves.items())
        cut = {name: leaf[: self._limits[name]] for name, leaf in leaves.items()}
        return Question(line, cut, max(left_out, 0))

    def answers(self, questions: Sequence[Question]) -> Iterator[str]:
        """Answers questions, in batches of at most the last of `ROWS`.

        Args:
          questions: any number of them.

        Yields:
          A line of text for each, in their order, as soon as its batch is done.
        """
        for first in range(0, len(questions), ROWS[-1]):
            some = questions[first : first + ROWS[-1]]
            predictions = iter(self._predictions([q.leaves for q in some if q.leaves is not None]))
            for question in some:
                if question.leaves is None:
                    yield ""
                else:
                    prediction = next(predictions)
                    yield self._task.write(prediction, question.line, self._vocabularies)

    def _predictions(self, examples: Sequence[Mapping[str, np.ndarray]]) -> list[Any]:
        if not examples:
            return []
        count = next(rows for rows in ROWS if rows >= len(examples))
        # The rows left over repeat the first one: decoding goes on until the last row has ended,
        # and an empty row might never end.
        filled = [*examples, *[examples[0]] * (count - len(examples))]
        batch = {
            name: _stacked([example[name] for example in filled], PADDING[name], limit)
            for name, limit in self._limits.items()
            if name in examples[0]
        }
        predicted = jax.device_get(self._predict(self._params, batch))
        return [jax.tree.map(operator.itemgetter(row), predicted) for row in range(len(examples))]


def _stacked(rows: Sequence[np.ndarray], padding: int, limit: int) -> np.ndarray:
    """Rows of one width: a power of two that holds the longest, but never more than the limit."""
    longest = max(map(len, rows))
    width = NARROWEST
    while width < longest:
        width *= 2
    shape = (len(rows), min(width, limit), *rows[0].shape[1:])
    stacked = np.full(shape, padding, rows[0].dtype)
    for row, values in zip(stacked, rows, strict=True):
        row[: len(values)] = values
    return stacked
