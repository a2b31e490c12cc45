"""Batches of examples: packed several to a row, or one to a row of a width near its length.

As in `pipelines`, batch `i` depends on the pipeline's arguments and on `i`, and on nothing else.
What fits where is a plan made from lengths alone, before any batch is made.
"""

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from recattn_jax.data.kinds import Examples, Leaf
from recattn_jax.data.pipelines import (
    Batch,
    Batches,
    Pipeline,
    Spec,
    check_rows,
    digest_of,
    local_rows,
)
from recattn_jax.data.records import Record
from recattn_jax.errors import UserError

Numbers = Int[np.ndarray, "_"]


def packed(
    examples: Examples,
    batch: int,
    lengths: Sequence[int],
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Pipeline:
    """Puts several examples in a row, told apart by segments that count from 1 in each row.

    The rows are planned from the lengths of all examples (see `pack`); an example that has several
    parts, source and target, stands in the same row and has the same number in each of them. Every
    epoch, examples of equal lengths change places at random, and so do the rows; so the number of
    rows is the same in every epoch, and each example is in one of them. Batches run on over the end
    of an epoch, so none is short and no row is left out.

    `epoch()` is not packed: an example a row, in order. Evaluation is cheaper with `bucketed`.

    Args:
        examples: of a kind without labels, which belong to rows of one example.
        batch: rows of the global batch.
        lengths: steps of each part; one number for all of them, or one each.
        seed: of the order.
        process_index: which host this is.
        process_count: how many hosts share each batch; host p has the p-th block of its rows.

    Returns:
        Batches of the kind of the examples, `[B, T]` for each part.

    Raises:
        UserError: if an example is longer than a row or has a label, or the hosts do not divide the
            batch.

    >>> from recattn_jax.data import ByteTokenizer, pair_examples
    >>> vocabularies = {"source": ByteTokenizer(), "target": ByteTokenizer()}
    >>> records = [{"source": "hi", "targets": ["ciao"]}, {"source": "yes", "targets": ["si"]}]
    >>> examples = pair_examples("train", records, vocabularies, (8, 8))
    >>> with packed(examples, 1, (8, 8), seed=0).batches(start=0) as batches:
    ...     int(next(batches)["segments"].max())
    2
    """
    check_rows(batch, process_count)
    if examples.kind.labelled:
        raise UserError(
            "packed: a label belongs to a row of one example, and packed rows hold several; use"
            " bucketed"
        )
    each = examples.kind.each(lengths)
    _check_fit(examples, each)
    return _Packed(examples, batch, each, seed, process_index, process_count)


def bucketed(
    examples: Examples,
    batch: int,
    widths: Sequence[int | tuple[int, ...]],
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    weights: Sequence[float] | Float[np.ndarray, "_"] | None = None,
) -> Pipeline:
    """Puts one example in a row; the rows of a batch have one of the given widths.

    Every epoch shuffles the examples and deals them to the narrowest width that holds them. Those
    that do not fill a batch there go up to the next width, so each example is in one batch of the
    epoch, and only the last batch of the widest may be short: the first examples of the epoch fill
    it, a second time. Then the batches are shuffled. With `weights` an epoch has as many examples,
    but draws them: each as often as its weight says, rounded up or down by chance.

    `epoch()` deals the examples in their order, and fills the last batch with empty rows.

    Args:
        examples: of any kind.
        batch: rows of the global batch, whatever its width.
        widths: from the narrowest to the widest; steps of each part, or one number for all parts.
        seed: of the order.
        process_index: which host this is.
        process_count: how many hosts share each batch; host p has the p-th block of its rows.
        weights: of each example, `[N]`, 0 or more, as from `balanced`; None takes each once an
            epoch.

    Returns:
        Batches of the kind of the examples, `[B, T]` with T one of the widths.

    Raises:
        UserError: if an example is longer than the widest row, widths do not grow, weights are no
            weights, or the hosts do not divide the batch.

    >>> from recattn_jax.data import ByteTokenizer, Labels, text_examples
    >>> vocabularies = {"text": ByteTokenizer(), "label": Labels(("bad", "good"))}
    >>> records = [{"text": "fine", "label": "good"}, {"text": "dull", "label": "bad"}]
    >>> examples = text_examples("train", records, vocabularies, length=8)
    >>> pipeline = bucketed(examples, 2, (4, 8), seed=0, weights=balanced(examples.labels))
    >>> with pipeline.batches(start=0) as batches:
    ...     next(batches)["inputs"].shape
    (2, 4)
    """
    check_rows(batch, process_count)
    each = [examples.kind.each((w,) if isinstance(w, int) else w) for w in widths]
    if not each or any(
        one == two or any(a > b for a, b in zip(one, two, strict=True))
        for one, two in itertools.pairwise(each)
    ):
        raise UserError(f"widths: expected one or more, from narrow to wide, found {widths}")
    _check_fit(examples, each[-1])
    chances = None if weights is None else np.asarray(weights, np.float64)
    if chances is not None:
        _check_weights(examples, chances)
    return _Bucketed(examples, batch, tuple(each), seed, process_index, process_count, chances)


def balanced(labels: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Weights under which every class is drawn as often: one over the size of its class.

    Args:
        labels: `[N]`, the class of each example.

    Returns:
        `[N]`, float64.

    >>> balanced(np.array([0, 0, 1])).tolist()
    [0.5, 0.5, 1.0]
    """
    return 1.0 / np.bincount(labels)[labels]


@dataclasses.dataclass(frozen=True, eq=False)
class _Packed(Pipeline):
    examples: Examples
    batch: int
    lengths: tuple[int, ...]
    seed: int
    process_index: int
    process_count: int

    @property
    def fingerprint(self) -> str:
        return digest_of("packed", self.examples.digest, self.batch, self.lengths, self.seed)

    @property
    def specs(self) -> tuple[Spec, ...]:
        return (self.examples.kind.batch(self.batch, *self.lengths),)

    @property
    def records(self) -> Sequence[Record]:
        return self.examples.records

    @functools.cached_property
    def _plan(self) -> tuple[Numbers, Numbers, int]:
        return pack(self.examples.lengths, self.lengths)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self._plan[2] // self.batch)

    def _rows(self, epoch: int) -> list[Numbers]:
        """The examples in each row of an epoch."""
        shapes, places, count = self._plan
        keys = _keys(len(shapes), "examples", self.seed, epoch)
        # Those of one shape, in an order of their own, take the places that the plan has for it.
        members = np.lexsort((keys, shapes))
        inside = np.lexsort((keys[members], places))
        rows = np.split(members[inside], np.cumsum(np.bincount(places, minlength=count))[:-1])
        return [rows[row] for row in np.argsort(_keys(count, "rows", self.seed, epoch))]

    def batches(self, start: int) -> Batches:
        rows_of = functools.lru_cache(maxsize=2)(self._rows)
        local = local_rows(self.batch, self.process_index, self.process_count)
        count = self._plan[2]

        def make(step: int) -> Batch:
            places = [divmod(step * self.batch + row, count) for row in local]
            rows = [rows_of(epoch)[row] for epoch, row in places]
            return _fill(self.examples, rows, self.lengths) | {"example": _none(len(rows))}

        return Batches(make, start)

    def epoch(self) -> Iterator[Batch]:
        local = np.array(local_rows(self.batch, self.process_index, self.process_count))
        for first in range(0, len(self.examples), self.batch):
            numbers = first + local
            yield _alone(
                self.examples, np.where(numbers < len(self.examples), numbers, -1), self.lengths
            )


def pack(
    lengths: Int[np.ndarray, "n parts"], row: Sequence[int]
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"], int]:
    """Plans which lengths share a row: the longest first, each where the room is most like it.

    Rows are compared by the product of their room with the length, part by part, so that a row with
    much room for sources and little for targets gets long sources with short targets.

    Args:
        lengths: of each example, in each of its parts; 1 or more.
        row: the steps that a row has for each part, no fewer than any example.

    Returns:
        The shape of each example, as a number: equal for equal lengths; the row of each place, the
        places standing in the order of shapes; and how many rows there are.

    Example:
        pack(np.array([[3], [1], [2]]), (4,))      # shapes [2, 0, 1], rows [1, 1, 0] of 2

    Panigrahy et al., Heuristics for vector bin packing, 2011.
    """
    size = np.array(row)[None]
    kinds, shapes, counts = np.unique(lengths, axis=0, return_inverse=True, return_counts=True)
    free = np.repeat(size, math.ceil((lengths.sum(axis=0) / size).max()), axis=0)
    taken: list[list[np.ndarray]] = [[] for _ in kinds]
    # All examples of a shape at once, one a row and round; few shapes make up most of a split.
    for kind in np.argsort(-(kinds / size).max(axis=1), kind="stable"):
        shape, left = kinds[kind][None], counts[kind]
        while left:
            fits = np.flatnonzero((free >= shape).all(axis=1))
            if not len(fits):
                fresh = math.ceil(left / (size // shape).min())
                free = np.concatenate([free, np.repeat(size, fresh, axis=0)])
                continue
            likeness = (free[fits] / size * (shape / size)).sum(axis=1)
            rows = fits[np.argsort(-likeness, kind="stable")[:left]]
            free[rows] -= shape
            taken[kind].append(rows)
            left -= len(rows)
    places = np.concatenate([np.concatenate(rows) for rows in taken])
    return shapes.reshape(-1), places, len(free)


@dataclasses.dataclass(frozen=True, eq=False)
class _Bucketed(Pipeline):
    examples: Examples
    batch: int
    widths: tuple[tuple[int, ...], ...]
    seed: int
    process_index: int
    process_count: int
    weights: Any

    @property
    def fingerprint(self) -> str:
        weights = None
        if self.weights is not None:
            weights = hashlib.sha256(self.weights.astype("<f8").tobytes()).hexdigest()
        arguments = self.batch, self.widths, self.seed, weights
        return digest_of("bucketed", self.examples.digest, *arguments)

    @property
    def specs(self) -> tuple[Spec, ...]:
        return tuple(self.examples.kind.batch(self.batch, *width) for width in self.widths)

    @property
    def records(self) -> Sequence[Record]:
        return self.examples.records

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.examples) // self.batch)

    @functools.cached_property
    def _narrowest(self) -> Numbers:
        """For each example, the first width that holds it."""
        fits = [
            (self.examples.lengths <= np.array(width)[None]).all(axis=1) for width in self.widths
        ]
        return np.argmax(np.stack(fits), axis=0)

    def _deal(self, order: Numbers) -> list[tuple[int, Numbers]]:
        """Cuts examples into batches of one width each; -1 stands where the last one has none."""
        batches: list[tuple[int, Numbers]] = []
        waiting = order[:0]
        for width in range(len(self.widths)):
            waiting = np.concatenate([waiting, order[self._narrowest[order] == width]])
            whole = len(waiting) - len(waiting) % self.batch
            batches += [(width, rows) for rows in waiting[:whole].reshape(-1, self.batch)]
            waiting = waiting[whole:]
        if len(waiting):
            empty = _none(self.batch - len(waiting))
            batches.append((len(self.widths) - 1, np.concatenate([waiting, empty])))
        return batches

    def _drawn(self, epoch: int) -> Numbers:
        """The examples of an epoch, in random order."""
        order = np.argsort(_keys(len(self.examples), "examples", self.seed, epoch))
        if self.weights is None:
            return order
        # Evenly spaced points on the line of all weights: no example is off by a whole draw.
        ends = np.cumsum(self.weights[order])
        start = _keys(1, "draw", self.seed, epoch)[0] / 2.0**64
        points = (np.arange(len(order)) + start) / len(order) * ends[-1]
        drawn = order[np.searchsorted(ends, np.minimum(points, np.nextafter(ends[-1], 0)), "right")]
        return drawn[np.argsort(_keys(len(drawn), "drawn", self.seed, epoch))]

    def _epoch(self, epoch: int) -> list[tuple[int, Numbers]]:
        order = self._drawn(epoch)
        batches = self._deal(order)
        width, last = batches[-1]
        batches[-1] = width, np.where(last < 0, np.resize(order, len(last)), last)
        return [batches[i] for i in np.argsort(_keys(len(batches), "batches", self.seed, epoch))]

    def batches(self, start: int) -> Batches:
        epoch_of = functools.lru_cache(maxsize=2)(self._epoch)

        def make(step: int) -> Batch:
            epoch, place = divmod(step, self.steps_per_epoch)
            return self._make(*epoch_of(epoch)[place])

        return Batches(make, start)

    def epoch(self) -> Iterator[Batch]:
        for width, numbers in self._deal(np.arange(len(self.examples))):
            yield self._make(width, numbers)

    def _make(self, width: int, numbers: Numbers) -> Batch:
        local = local_rows(self.batch, self.process_index, self.process_count)
        return _alone(self.examples, numbers[local.start : local.stop], self.widths[width])


def _alone(examples: Examples, numbers: Numbers, lengths: Sequence[int]) -> Batch:
    """Makes rows of one example each; -1 makes an empty one."""
    rows = [
        numbers[row : row + 1] if number >= 0 else numbers[:0] for row, number in enumerate(numbers)
    ]
    batch = _fill(examples, rows, lengths) | {"example": numbers.astype(np.int32)}
    if examples.labels is not None:
        real = numbers >= 0
        batch["label"] = np.where(real, examples.labels[numbers], 0).astype(np.int32)
        batch["weight"] = real.astype(np.float32)
    return batch


def _fill(examples: Examples, rows: Sequence[Numbers], lengths: Sequence[int]) -> Batch:
    """Writes the examples of each row behind each other."""
    batch: Batch = {}
    for part, offsets, length in zip(examples.kind.parts, examples.offsets, lengths, strict=True):
        names = [
            (name, batch.setdefault(name, _padding(leaf, len(rows), length)))
            for name, leaf in part.leaves.items()
        ]
        segments = batch[part.segments] = np.zeros((len(rows), length), np.int32)
        for row, numbers in enumerate(rows):
            end = 0
            for segment, number in enumerate(numbers, start=1):
                first, last = offsets[number], offsets[number + 1]
                start, end = end, end + last - first
                segments[row, start:end] = segment
                for name, array in names:
                    array[row, start:end] = examples.arrays[name][first:last]
    return batch


def _padding(leaf: Leaf, rows: int, length: int) -> np.ndarray:
    return np.full((rows, length, *leaf.shape), leaf.padding, leaf.dtype)


def _none(rows: int) -> np.ndarray:
    return np.full(rows, -1, np.int32)


def _keys(count: int, purpose: str, seed: int, epoch: int) -> np.ndarray:
    """Random uint64s to sort by."""
    name = hashlib.sha256(f"{purpose} {seed} {epoch}".encode()).digest()[:16]
    # The raw stream of a bit generator, unlike what NumPy makes of it, never changes.
    return np.random.Philox(key=int.from_bytes(name, "big")).random_raw(count)


def _check_fit(examples: Examples, lengths: Sequence[int]) -> None:
    for part, longest, length in zip(
        examples.kind.parts, examples.lengths.max(axis=0), lengths, strict=True
    ):
        if longest > length:
            raise UserError(
                f"{examples.split} split: the longest example has {longest} steps of"
                f" {'/'.join(part.leaves)}, a row has {length}; make the rows longer, or cut the"
                " examples"
            )


def _check_weights(examples: Examples, weights: np.ndarray) -> None:
    if weights.shape != (len(examples),):
        raise UserError(f"weights: expected {len(examples)}, one an example, found {weights.size}")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise UserError("weights: expected finite numbers, 0 or more, and one above 0")
