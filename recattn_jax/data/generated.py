"""Batches of problems, made when they are needed."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

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
from recattn_jax.data.problems import Draws, Problem, Question
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

    Example:
        problem_batch(Parity(), 128, 40)["inputs"].shape     # (128, 41)
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
        process_index: which host this is.
        process_count: how many hosts share each batch; host p has the p-th block of its rows.

    Raises:
        UserError: if lengths do not grow from 1, there is no question, or the hosts do not divide
            the batch.

    Example:
        train = generated(Parity(), "train", (1, 40), count=1024, batch=128, seed=0)
        with train.batches(start=0) as batches:
            first = next(batches)["inputs"]      # int32[128, 41]
    """
    check_rows(batch, process_count)
    if not 1 <= lengths[0] <= lengths[1] or count < 1:
        raise UserError(f"lengths {lengths}, {count} questions: expected 1 or more, growing")
    return _Generated(problem, split, lengths, count, batch, seed, process_index, process_count)


@dataclasses.dataclass(frozen=True)
class _Generated(Pipeline):
    problem: Problem
    split: str
    lengths: tuple[int, int]
    count: int
    batch: int
    seed: int
    process_index: int
    process_count: int

    @property
    def fingerprint(self) -> str:
        content = f"{self.problem!r} {self.split}"
        return digest_of("generated", content, self.lengths, self.count, self.batch, self.seed)

    @property
    def specs(self) -> tuple[Spec, ...]:
        return (problem_batch(self.problem, self.batch, self.lengths[1]),)

    @property
    def records(self) -> None:
        return None

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.count // self.batch)

    def batches(self, start: int) -> Batches:
        local = local_rows(self.batch, self.process_index, self.process_count)
        low, high = self.lengths

        def make(step: int) -> Batch:
            questions = []
            for row in local:
                draws = self._draws("training", step * self.batch + row)
                length = low + int(draws.below(high - low + 1, 1)[0])
                questions.append(self.problem.make(draws, length))
            return self._filled(questions)

        return Batches(make, start)

    def epoch(self) -> Iterator[Batch]:
        local = local_rows(self.batch, self.process_index, self.process_count)
        low, high = self.lengths
        for first in range(0, self.count, self.batch):
            numbers = [first + row for row in local if first + row < self.count]
            yield self._filled(
                [
                    self.problem.make(self._draws("pass", n), low + n % (high - low + 1))
                    for n in numbers
                ]
            )

    def _draws(self, purpose: str, number: int) -> Draws:
        name = f"{self.split} {purpose} {self.seed} {number}"
        return Draws(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big"))

    def _filled(self, questions: Sequence[Question]) -> Batch:
        local = len(local_rows(self.batch, self.process_index, self.process_count))
        batch: dict[str, Any] = {
            name: np.full((local, spec.shape[1]), -1 if name == "answers" else 0, np.int32)
            for name, spec in self.spec.items()
        }
        for row, (symbols, asked, answers) in enumerate(questions):
            batch["inputs"][row, : len(symbols)] = symbols
            batch["segments"][row, : len(symbols)] = 1
            batch["asked"][row, : len(asked)] = asked
            batch["answers"][row, : len(answers)] = answers
        return batch
