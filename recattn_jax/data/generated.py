"""Batches of problems, made when they are needed."""

import abc
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from recattn_jax.data.pipelines import (
    Batch,
    Batches,
    Pipeline,
    Spec,
    check_rows,
    digest_of,
    local_rows,
)
from recattn_jax.data.problems import Draws, Problem
from recattn_jax.errors import UserError


def problem_batch(problem: Problem, batch: int, length: int) -> Spec:
    """The shapes of a batch of questions.

    Args:
        problem: what is asked.
        batch: rows B.
        length: of the longest question.

    Returns:
        int32: "inputs" and "segments" `[B, T]`, "asked" and "answers" `[B, Q]`; -1 stands where
        there is no answer, and its step is 0.

    >>> from recattn_jax.data.problems import Parity
    >>> problem_batch(Parity(), 128, 40)["inputs"].shape
    (128, 41)
    """
    steps, answers = problem.sizes(length)
    sizes = {"inputs": steps, "segments": steps, "asked": answers, "answers": answers}
    return {name: jax.ShapeDtypeStruct((batch, size), np.int32) for name, size in sizes.items()}


def generated(
    problem: Problem,
    split: str,
    lengths: tuple[int, int],
    count: int,
    batch: int,
    seed: int,
    curriculum: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Pipeline:
    """Questions without an end, all padded to the longest, so that there is one shape.

    Question n depends on the arguments and on n alone; in training its length is random, each as
    likely. `epoch()` makes `count` questions, the same ones each time, of every length in turn;
    rows that only fill the last batch are padding.

    Args:
        problem: what is asked.
        split: so that no two splits have the same questions but by chance.
        lengths: of the shortest and the longest question.
        count: questions of a pass.
        batch: rows of the global batch.
        seed: of the random numbers.
        curriculum: steps of training in which the longest length grows, in proportion, from the
            shortest; 0 shows all lengths from the first.
        process_index: which host this is.
        process_count: how many hosts share each batch; host p has the p-th block of its rows.

    Returns:
        Batches of `problem_batch`: int32 `[B, T]` and `[B, Q]`.

    Raises:
        UserError: if lengths do not grow from 1, there is no question, the curriculum is negative,
            or the hosts do not divide the batch.

    >>> from recattn_jax.data.problems import Parity
    >>> train = generated(Parity(), "train", (1, 8), count=4, batch=2, seed=0, curriculum=0)
    >>> with train.batches(start=0) as batches:
    ...     next(batches)["inputs"].shape
    (2, 9)

    The curriculum: Bengio et al., "Curriculum learning", 2009; of lengths: Zaremba and Sutskever,
    "Learning to execute", arXiv 1410.4615, 2014.
    """
    check_rows(batch, process_count)
    if not 1 <= lengths[0] <= lengths[1]:
        raise UserError(f"{split} has lengths of {lengths}, expected 1 or more, the longer behind")
    if count < 1:
        raise UserError(f"{split} has {count} questions, expected 1 or more")
    if curriculum < 0:
        raise UserError(f"curriculum is {curriculum} steps, expected 0 or more")
    hosts = process_index, process_count
    return _Generated(split, count, batch, seed, *hosts, problem, lengths, curriculum)


def adding_batch(batch: int, length: int) -> Spec:
    """The shapes of a batch of `adding`.

    Args:
        batch: rows B.
        length: steps T.

    Returns:
        float32: "inputs" `[B, T, 2]`, "targets" `[B, 1]`, and "weight" `[B]`.

    >>> adding_batch(32, 600)["inputs"].shape
    (32, 600, 2)
    """
    shapes = {"inputs": (length, 2), "targets": (1,), "weight": ()}
    return {name: jax.ShapeDtypeStruct((batch, *s), np.float32) for name, s in shapes.items()}


def adding(
    split: str,
    length: int,
    count: int,
    batch: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Pipeline:
    """The adding problem: numbers from 0 to 1, two of which are marked; the sum of these.

    One mark stands in the first half, one in the second. Whoever always says 1 has a mean squared
    error of 1/6.

    Args:
        split: so that no two splits have the same questions but by chance.
        length: T, 2 or more.
        count: questions of a pass.
        batch: rows of the global batch.
        seed: of the random numbers.
        process_index: which host this is.
        process_count: how many hosts share each batch; host p has the p-th block of its rows.

    Returns:
        Batches of `adding_batch`: float32 `[B, T, 2]`, `[B, 1]` and `[B]`.

    Raises:
        UserError: if there are less than two steps, no question, or the hosts do not divide the
            batch.

    >>> with adding("train", 8, count=4, batch=2, seed=0).batches(start=0) as batches:
    ...     next(batches)["inputs"].shape
    (2, 8, 2)

    Hochreiter and Schmidhuber, "Long short-term memory", 1997.
    """
    check_rows(batch, process_count)
    if length < 2 or count < 1:
        raise UserError(f"length {length}, {count} questions: expected 2 or more, and 1 or more")
    return _Adding(split, count, batch, seed, process_index, process_count, length)


@dataclasses.dataclass(frozen=True)
class _Made(Pipeline):
    """Abstract: rows that are made of their number."""

    split: str
    count: int
    batch: int
    seed: int
    process_index: int
    process_count: int

    @abc.abstractmethod
    def make(self, draws: Draws, number: int, step: int | None) -> dict[str, np.ndarray]:
        """Makes the leaves of a row, each as long as it is.

        Args:
            draws: where its random numbers come from.
            number: of the row.
            step: of training, at which it is shown; None in a pass.
        """

    def empty(self, name: str) -> int:
        """Returns what stands where a row has nothing."""
        del name
        return 0

    @property
    def records(self) -> None:
        return None

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.count // self.batch)

    def batches(self, start: int) -> Batches:
        def make(step: int) -> Batch:
            numbers = [step * self.batch + row for row in self._local]
            return self._filled([self.make(self._draws("training", n), n, step) for n in numbers])

        return Batches(make, start)

    def epoch(self) -> Iterator[Batch]:
        for first in range(0, self.count, self.batch):
            numbers = [first + row for row in self._local if first + row < self.count]
            yield self._filled([self.make(self._draws("pass", n), n, None) for n in numbers])

    @property
    def _local(self) -> range:
        return local_rows(self.batch, self.process_index, self.process_count)

    def _draws(self, purpose: str, number: int) -> Draws:
        name = f"{self.split} {purpose} {self.seed} {number}"
        return Draws(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big"))

    def _filled(self, rows: Sequence[Mapping[str, np.ndarray]]) -> Batch:
        batch: Batch = {
            name: np.full((len(self._local), *spec.shape[1:]), self.empty(name), spec.dtype)
            for name, spec in self.spec.items()
        }
        for number, row in enumerate(rows):
            for name, values in row.items():
                place = (slice(len(values)),) if values.ndim else ()
                batch[name][(number, *place)] = values
        return batch


@dataclasses.dataclass(frozen=True)
class _Generated(_Made):
    problem: Problem
    lengths: tuple[int, int]
    curriculum: int

    @property
    def fingerprint(self) -> str:
        content = f"{self.problem!r} {self.split} {self.curriculum}"
        return digest_of("generated 3", content, self.lengths, self.count, self.batch, self.seed)

    @property
    def specs(self) -> tuple[Spec, ...]:
        return (problem_batch(self.problem, self.batch, self.lengths[1]),)

    def empty(self, name: str) -> int:
        return -1 if name == "answers" else 0

    def make(self, draws: Draws, number: int, step: int | None) -> dict[str, np.ndarray]:
        low, high = self.lengths
        if step is None:
            more = number % (high - low + 1)
        else:
            grown = high - low
            if step < self.curriculum:
                grown = grown * step // self.curriculum
            more = int(draws.below(grown + 1, 1)[0])
        symbols, asked, answers = self.problem.make(draws, low + more)
        real = np.ones(len(symbols))
        return {"inputs": symbols, "segments": real, "asked": asked, "answers": answers}


@dataclasses.dataclass(frozen=True)
class _Adding(_Made):
    length: int

    @property
    def fingerprint(self) -> str:
        return digest_of("adding", self.split, self.length, self.count, self.batch, self.seed)

    @property
    def specs(self) -> tuple[Spec, ...]:
        return (adding_batch(self.batch, self.length),)

    def make(self, draws: Draws, number: int, step: int | None) -> dict[str, np.ndarray]:
        del number, step
        half = self.length // 2
        values, marks = draws.uniform(self.length), np.zeros(self.length)
        marks[draws.below(half, 1)] = marks[half + draws.below(self.length - half, 1)] = 1.0
        return {
            "inputs": np.stack([values, marks], axis=1),
            "targets": np.array([values @ marks]),
            "weight": np.ones(()),
        }
