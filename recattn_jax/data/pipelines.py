"""Batches of a token stream: shuffled windows, or lanes that go on where they stopped.

Batch `i` of a training pipeline depends on the pipeline's arguments and on `i`, and on nothing
else: not on the number of hosts, threads, or restarts. So the position of a run is its step.
"""

import abc
import contextlib
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import Int

from recattn_jax.data.records import Record
from recattn_jax.data.stream import TokenStream
from recattn_jax.data.vocabularies import Vocabulary
from recattn_jax.errors import UserError

Batch = dict[str, np.ndarray]
Spec = dict[str, jax.ShapeDtypeStruct]
"""Shapes and dtypes of the arrays of a batch, by name."""

# Building a batch takes far less time than any step, so one thread with little ahead is enough.
_READ = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
_MOST = (1 << 31) - 1  # rows: what an array can have along an axis


class Pipeline(abc.ABC):
    """Abstract: the batches of one split, in one shape or a few.

    Every array has rows first, and the same number of them in every shape. `segments` is 0 on
    padding, and tells what is packed into one row apart. In batches of tokens, `targets` are the
    `inputs` one step later, all int32[batch, length]; the target that ends a document (a separator)
    belongs to that document. For the other kinds see `examples.Kind`.

    >>> from recattn_jax.data import ByteTokenizer
    >>> tokenizer = ByteTokenizer()
    >>> tokens = np.concatenate([[tokenizer.separator], tokenizer.encode("to be or not to be")])
    >>> stream = TokenStream("train", tokens.astype(np.int32), tokenizer.separator, digest="")
    >>> pipeline = windows(stream, batch=2, length=4, seed=0)
    >>> pipeline.steps_per_epoch, pipeline.spec["inputs"].shape
    (2, (2, 4))
    """

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A digest of all that determines the batches; the same for any number of hosts."""

    @property
    @abc.abstractmethod
    def specs(self) -> tuple[Spec, ...]:
        """Shapes and dtypes of the global batches, all hosts' rows together; the widest last."""

    @property
    def spec(self) -> Spec:
        """The widest of `specs`."""
        return self.specs[-1]

    @property
    @abc.abstractmethod
    def records(self) -> Sequence[Record] | None:
        """What `example` in a batch counts, for scoring; None where batches are of a stream."""

    @property
    @abc.abstractmethod
    def steps_per_epoch(self) -> int:
        """In how many batches the split is read about once, rounded up."""

    @abc.abstractmethod
    def batches(self, start: int) -> "Batches":
        """The endless training batches, this host's rows of each.

        A thread prepares a few ahead: close the result, or use it in a `with` statement.

        Args:
            start: the number of the first batch.

        Returns:
            An iterator over them. A thread prepares a few ahead: close it, or use it in a `with`
            statement.
        """

    @abc.abstractmethod
    def epoch(self) -> Iterator[Batch]:
        """One ordered pass in which every target counts once.

        Yields:
            Batches; the last is padded to a whole one.
        """


@dataclasses.dataclass(frozen=True)
class Data:
    """What an experiment trains on.

    Args:
        vocabularies: of all pipelines, by name: "text" of a language model, "text" and "label" of a
            classifier, ...
        train: read without an end.
        evaluation: pipelines by split, "validation" among them; read in single passes.
        summary: for the log: what it is, how much, and the digest of its content.

    >>> from recattn_jax.data import ByteTokenizer
    >>> tokenizer = ByteTokenizer()
    >>> tokens = np.concatenate([[tokenizer.separator], tokenizer.encode("to be or not to be")])
    >>> stream = TokenStream("train", tokens.astype(np.int32), tokenizer.separator, digest="")
    >>> rows = windows(stream, batch=2, length=4, seed=0)
    >>> data = Data({"text": tokenizer}, rows, {"validation": rows}, "to be")
    """

    vocabularies: Mapping[str, Vocabulary]
    train: Pipeline
    evaluation: Mapping[str, Pipeline]
    summary: str


class Batches(contextlib.AbstractContextManager["Batches"], Iterator[Batch]):
    """An endless iterator over `make(start)`, `make(start + 1)`, ..., prepared by a thread.

    Args:
        make: from the number of a batch to the batch.
        start: the number of the first one.

    >>> with Batches(lambda step: {"inputs": np.full((2, 3), step)}, start=5) as batches:
    ...     int(next(batches)["inputs"][0, 0])
    5
    """

    def __init__(self, make: Callable[[int], Batch], start: int):
        dataset = grain.MapDataset.range(sys.maxsize).map(make).to_iter_dataset(_READ)
        self._iterator = iter(dataset)
        grain.experimental.set_next_index(self._iterator, start)

    def __next__(self) -> Batch:
        return next(self._iterator)

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the thread; calling it again does nothing."""
        self._iterator.close()


def token_batch(batch: int, length: int) -> Spec:
    """The shapes of a batch of token windows.

    Args:
        batch: rows B.
        length: steps T.

    Returns:
        int32 `[B, T]` for "inputs", "targets" and "segments".

    >>> token_batch(2, 3)["inputs"].shape
    (2, 3)
    """
    leaf = jax.ShapeDtypeStruct((batch, length), np.int32)
    return {"inputs": leaf, "targets": leaf, "segments": leaf}


def windows(
    stream: TokenStream,
    batch: int,
    length: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Pipeline:
    """Cuts the stream into rows: for models that start every row from nothing.

    Each epoch rotates the stream by a new offset (its end is followed by its start), cuts it every
    `length` tokens, and shuffles the rows. Segments are numbered from 1 inside each row. Batches
    run on over the end of an epoch, so none is short and no row is left out.
    `epoch()` cuts at offset 0 and keeps the order.

    Args:
        stream: tokens, N of them.
        batch: rows of the global batch.
        length: tokens a row.
        seed: of offsets and order.
        process_index: which host this is.
        process_count: how many hosts share each batch; host p has the p-th block of its rows.

    Returns:
        Batches of `token_batch`, int32 `[B, T]` each.

    Raises:
        UserError: if the stream is shorter than a row, or the hosts do not divide the batch.

    >>> from recattn_jax.data import ByteTokenizer
    >>> tokenizer = ByteTokenizer()
    >>> tokens = np.concatenate([[tokenizer.separator], tokenizer.encode("to be or not to be")])
    >>> stream = TokenStream("train", tokens.astype(np.int32), tokenizer.separator, digest="")
    >>> with windows(stream, batch=2, length=4, seed=0).batches(start=0) as batches:
    ...     next(batches)["inputs"].shape
    (2, 4)
    """
    _check(stream, batch, length, process_count)
    return _Windows(stream, batch, length, seed, process_index, process_count)


def lanes(
    stream: TokenStream,
    batch: int,
    length: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Pipeline:
    """Reads the stream in `batch` lanes: for models whose state is carried from step to step.

    Lane b starts at token `b * N // batch` and reads on without a gap for ever, around the end of
    the stream, so row b of a batch continues row b of the batch before. Segments count the
    documents of a lane, from 1 and always up, so no number comes back.
    In `epoch()` lane b reads the b-th of `batch` equal stretches, once.

    Args:
        stream: tokens, N of them.
        batch: lanes, all hosts' together.
        length: tokens a row.
        process_index: which host this is.
        process_count: how many hosts share each batch; host p has the p-th block of its rows.

    Returns:
        Batches of `token_batch`, int32 `[B, T]` each.

    Raises:
        UserError: if the stream is shorter than a row, or the hosts do not divide the batch.

    >>> from recattn_jax.data import ByteTokenizer
    >>> tokenizer = ByteTokenizer()
    >>> tokens = np.concatenate([[tokenizer.separator], tokenizer.encode("to be or not to be")])
    >>> stream = TokenStream("train", tokens.astype(np.int32), tokenizer.separator, digest="")
    >>> with lanes(stream, batch=2, length=4).batches(start=0) as batches:
    ...     bytes(next(batches)["targets"][0].tolist() + next(batches)["targets"][0].tolist())
    b'to be or'
    """
    _check(stream, batch, length, process_count)
    return _Lanes(stream, batch, length, process_index, process_count)


@dataclasses.dataclass(frozen=True)
class _Windows(Pipeline):
    stream: TokenStream
    batch: int
    length: int
    seed: int
    process_index: int
    process_count: int

    @property
    def fingerprint(self) -> str:
        return digest_of("windows", self.stream.digest, self.batch, self.length, self.seed)

    @property
    def specs(self) -> tuple[Spec, ...]:
        return (token_batch(self.batch, self.length),)

    @property
    def records(self) -> None:
        return None

    @property
    def _rows(self) -> int:
        return len(self.stream.tokens) // self.length

    @property
    def steps_per_epoch(self) -> int:
        return -(-self._rows // self.batch)

    def batches(self, start: int) -> Batches:
        order = grain.MapDataset.range(self._rows).seed(self.seed).shuffle().repeat()
        local = local_rows(self.batch, self.process_index, self.process_count)
        rows, length, total = self._rows, self.length, len(self.stream.tokens)

        def make(step: int) -> Batch:
            numbers = [step * self.batch + b for b in local]
            starts_B = [
                _offset(self.seed, number // rows, total) + order[number] * length
                for number in numbers
            ]
            positions_BU = np.array(starts_B, np.int64)[:, None] + np.arange(length + 1)
            tokens_BU = self.stream.tokens[positions_BU % total]
            return _window(tokens_BU, self.stream.separator)

        return Batches(make, start)

    def epoch(self) -> Iterator[Batch]:
        targets = len(self.stream.tokens) - 1
        local = local_rows(self.batch, self.process_index, self.process_count)
        for first in range(0, -(-targets // self.length), self.batch):
            starts_B = (first + np.array(local, np.int64)) * self.length
            positions_BU = starts_B[:, None] + np.arange(self.length + 1)
            tokens_BU = self.stream.tokens[np.minimum(positions_BU, targets)]
            batch = _window(tokens_BU, self.stream.separator)
            yield _pad(batch, positions_BU[:, :-1] < targets)


@dataclasses.dataclass(frozen=True)
class _Lanes(Pipeline):
    stream: TokenStream
    batch: int
    length: int
    process_index: int
    process_count: int

    @property
    def fingerprint(self) -> str:
        return digest_of("lanes", self.stream.digest, self.batch, self.length)

    @property
    def specs(self) -> tuple[Spec, ...]:
        return (token_batch(self.batch, self.length),)

    @property
    def records(self) -> None:
        return None

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.stream.tokens) // (self.batch * self.length))

    def batches(self, start: int) -> Batches:
        total = len(self.stream.tokens)
        local = local_rows(self.batch, self.process_index, self.process_count)
        starts_B = np.array(local, np.int64) * total // self.batch

        def make(step: int) -> Batch:
            return self._read(starts_B, starts_B + step * self.length)

        return Batches(make, start)

    def epoch(self) -> Iterator[Batch]:
        targets = len(self.stream.tokens) - 1
        stretch = -(-targets // self.batch)
        local = np.array(local_rows(self.batch, self.process_index, self.process_count), np.int64)
        starts_B = np.minimum(local * stretch, targets)
        ends_B = np.minimum(starts_B + stretch, targets)
        for read in range(0, stretch, self.length):
            batch = self._read(starts_B, starts_B + read)
            positions_BT = (starts_B + read)[:, None] + np.arange(self.length)
            yield _pad(batch, positions_BT < ends_B[:, None])

    def _read(self, lanes_B: np.ndarray, starts_B: np.ndarray) -> Batch:
        """Returns rows that begin at `starts_B`, of lanes that began at `lanes_B`."""
        total = len(self.stream.tokens)
        positions_BU = starts_B[:, None] + np.arange(self.length + 1)
        tokens_BU = self.stream.tokens[positions_BU % total]
        numbers_BT = self._document(positions_BU[:, :-1]) - self._document(lanes_B)[:, None]
        return {
            "inputs": np.ascontiguousarray(tokens_BU[:, :-1]),
            "targets": np.ascontiguousarray(tokens_BU[:, 1:]),
            "segments": (numbers_BT + 1).astype(np.int32),
        }

    def _document(self, positions: np.ndarray) -> np.ndarray:
        """Returns the number of the document at each position; it grows with every round."""
        starts = self.stream.starts
        rounds, inside = np.divmod(positions, len(self.stream.tokens))
        return rounds * len(starts) + np.searchsorted(starts, inside, side="right")


def _check(stream: TokenStream, batch: int, length: int, process_count: int) -> None:
    if length < 1:
        raise UserError(f"length: expected 1 or more, found {length}")
    check_rows(batch, process_count)
    if len(stream.tokens) <= length:
        raise UserError(
            f"length: a row of {length} tokens is longer than the {stream.name} split, which has "
            f"{len(stream.tokens)}; give a shorter length or a longer corpus"
        )


def check_rows(batch: int, process_count: int) -> None:
    """Sees to it that hosts can share a batch.

    Raises:
        UserError: if they cannot, or there is no row.
    """
    if batch < 1:
        raise UserError(f"batch: expected 1 or more, found {batch}")
    if batch > _MOST:
        raise UserError(f"batch: expected at most {_MOST}, found {batch}")
    if batch % process_count:
        raise UserError(
            f"batch: {batch} rows cannot be shared by {process_count} hosts; "
            f"give a multiple of {process_count}"
        )


def local_rows(batch: int, process_index: int, process_count: int) -> range:
    """Returns which rows of the global batch are this host's."""
    rows = batch // process_count
    return range(process_index * rows, (process_index + 1) * rows)


def _offset(seed: int, epoch: int, total: int) -> int:
    # Hashed, because the streams of NumPy's generators may change from release to release.
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "big") % total


def _window(tokens_BU: Int[np.ndarray, "B U"], separator: int) -> Batch:
    """Splits T + 1 tokens into T inputs and targets, and numbers the documents in each row."""
    inputs_BT = tokens_BU[:, :-1]
    new_BT = inputs_BT == separator
    new_BT[:, 0] = True
    return {
        "inputs": np.ascontiguousarray(inputs_BT),
        "targets": np.ascontiguousarray(tokens_BU[:, 1:]),
        "segments": np.cumsum(new_BT, axis=1, dtype=np.int32),
    }


def _pad(batch: Batch, real_BT: np.ndarray) -> Batch:
    return {name: np.where(real_BT, value, 0).astype(np.int32) for name, value in batch.items()}


def digest_of(kind: str, content: str, *arguments: Any) -> str:
    """Returns the fingerprint of a pipeline.

    Args:
        kind: its name.
        content: digest of what it reads.
        arguments: all else that determines its batches.
    """
    # The number is that of the recipe: raise it when the same arguments give other batches.
    parts = json.dumps([1, kind, content, *arguments])
    return hashlib.sha256(parts.encode()).hexdigest()
