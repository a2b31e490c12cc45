"""What a row holds, one kind a task, and the examples of a split: arrays and their records."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Int, Shaped

from recattn_jax.data.pipelines import Spec
from recattn_jax.data.records import Record
from recattn_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Leaf:
    """What an array holds at each step.

    Args:
        padding: the number that stands on padding.
        shape: of one step: () for a number, such as an id; (D,) for D features.
        dtype: of the numbers.
    """

    padding: int = 0
    shape: tuple[int, ...] = ()
    dtype: type[np.generic] = np.int32


IDS = Leaf()
"""A symbol a step."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Arrays of a row that share their steps.

    Args:
        segments: the name of the array that numbers them, 0 on padding.
        leaves: the arrays by name.
    """

    segments: str
    leaves: Mapping[str, Leaf]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the batches of one kind of task hold.

    Besides its parts, each `[B, steps, ...]`, a batch has `example`, int32[B]: the place of its
    record in the split, -1 on a row that is only there to fill the batch, or that holds several.

    Args:
        parts: what has steps.
        labelled: whether a row has a `label`, int32[B], and its `weight`, float32[B], 0 on a row
            that is only there to fill the batch.

    >>> sorted(TEXT.batch(32, 64))
    ['example', 'inputs', 'label', 'segments', 'weight']
    """

    parts: tuple[Part, ...]
    labelled: bool

    def batch(self, rows: int, *lengths: int) -> Spec:
        """The shapes of a batch.

        Args:
            rows: B, all hosts' together.
            lengths: steps of each part; one number for all of them, or one each.

        Returns:
            By name, shapes and dtypes.

        >>> TEXT.batch(32, 64)["inputs"].shape
        (32, 64)
        >>> PAIRS.batch(32, 40, 30)["targets"].shape
        (32, 30)
        """
        leaves = {
            name: jax.ShapeDtypeStruct((rows, length, *leaf.shape), leaf.dtype)
            for part, length in zip(self.parts, self.each(lengths), strict=True)
            for name, leaf in {**part.leaves, part.segments: IDS}.items()
        }
        row = jax.ShapeDtypeStruct((rows,), np.int32)
        if self.labelled:
            leaves |= {"label": row, "weight": jax.ShapeDtypeStruct((rows,), np.float32)}
        return leaves | {"example": row}

    def holding(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> "Kind":
        """The same kind, but that the array `name` holds something else at each step.

        Args:
            name: of an array of one of the parts.
            shape: of one step.
            dtype: of the numbers.

        Returns:
            The other kind.

        Raises:
            ValueError: if no part has such an array.

        >>> TEXT.holding("inputs", (12,), np.float32).batch(32, 64)["inputs"].shape
        (32, 64, 12)
        """
        if not any(name in part.leaves for part in self.parts):
            raise ValueError(f"holding: no array is called {name!r}")
        parts = []
        for part in self.parts:
            leaves = dict(part.leaves)
            if name in leaves:
                leaves[name] = dataclasses.replace(leaves[name], shape=shape, dtype=dtype)
            parts.append(dataclasses.replace(part, leaves=leaves))
        return dataclasses.replace(self, parts=tuple(parts))

    def each(self, lengths: Sequence[int]) -> tuple[int, ...]:
        """Returns one length a part, from one for all or one each.

        Raises:
            UserError: for another number of lengths, or one below 1.
        """
        if len(lengths) not in (1, len(self.parts)) or any(length < 1 for length in lengths):
            names = ", ".join(part.segments for part in self.parts)
            raise UserError(
                f"lengths: expected one of 1 or more for all of {names}, or one each; found"
                f" {tuple(lengths)}"
            )
        return tuple(lengths) * (len(self.parts) if len(lengths) == 1 else 1)


TEXT = Kind((Part("segments", {"inputs": IDS}),), labelled=True)
"""Classification: one text, or one series, a row."""

TAGGED = Kind((Part("segments", {"inputs": IDS, "tags": Leaf(padding=-1)}),), labelled=False)
"""Tagging; -1 stands where nothing is scored."""

TAGGED_AND_LABELLED = Kind(TAGGED.parts, labelled=True)
"""Tagging with a label for the whole row, such as slots and an intent."""

PAIRS = Kind(
    (
        Part("source_segments", {"source": IDS}),
        Part("segments", {"inputs": IDS, "targets": IDS}),
    ),
    labelled=False,
)
"""Sequence to sequence."""

TRANSCRIBED = Kind(
    (
        Part("segments", {"inputs": IDS}),
        Part("target_segments", {"symbols": Leaf(padding=-1)}),
    ),
    labelled=False,
)
"""Transcription: symbols that follow from the inputs in their order, but not step by step; one
series and its text a row."""

PADDING = {
    name: leaf.padding
    for kind in (TEXT, TAGGED, PAIRS, TRANSCRIBED)
    for part in kind.parts
    for name, leaf in {**part.leaves, part.segments: IDS}.items()
}
"""The number that stands on padding, for every array of these kinds that has steps."""


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """The examples of one split.

    Args:
        kind: what a row of them holds.
        split: its name.
        arrays: by name, `[N, ...]`, those of all examples behind each other.
        offsets: for each part, int64 `[N + 1]`: where each example starts in its arrays, and the
            end.
        labels: int32 `[N]` where the kind is labelled, None elsewhere.
        records: what they were made from, in the same order.
        notes: what was changed on the way, in words, for the summary.

    >>> from recattn_jax.data import ByteTokenizer, Labels, text_examples
    >>> vocabularies = {"text": ByteTokenizer(), "label": Labels(("bad", "good"))}
    >>> records = [{"text": "fine", "label": "good"}]
    >>> examples = text_examples("train", records, vocabularies, length=64)
    >>> len(examples), examples.lengths.tolist(), examples.labels.tolist()
    (1, [[4]], [1])
    """

    kind: Kind
    split: str
    arrays: Mapping[str, Shaped[np.ndarray, "_ ..."]] = dataclasses.field(repr=False)
    offsets: Sequence[Int[np.ndarray, "_"]] = dataclasses.field(repr=False)
    labels: Int[np.ndarray, "n"] | None = dataclasses.field(repr=False)
    records: Sequence[Record] = dataclasses.field(repr=False)
    notes: Sequence[str]

    def __len__(self) -> int:
        return len(self.records)

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, "n parts"]:
        """int64[n, parts]: the steps of each example."""
        return np.stack([np.diff(offsets) for offsets in self.offsets], axis=1)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all arrays; equal digests mean equal examples in the same order."""
        arrays = {**self.arrays, **{f"offsets {i}": o for i, o in enumerate(self.offsets)}}
        if self.labels is not None:
            arrays["labels"] = self.labels
        digest = hashlib.sha256()
        for name in sorted(arrays):
            given = arrays[name]
            array = np.ascontiguousarray(given, "<i8" if given.dtype.kind == "i" else "<f4")
            shape = array.size if array.ndim == 1 else array.shape
            digest.update(json.dumps([name, shape]).encode())
            digest.update(array.data)
        return digest.hexdigest()

    def summary(self) -> str:
        """Returns one line for the log: how many, how long, what was cut, and the digest."""
        steps = "; ".join(
            f"{'/'.join(part.leaves)} {lengths.mean():.1f} steps on average, at most"
            f" {lengths.max()}"
            for part, lengths in zip(self.kind.parts, self.lengths.T, strict=True)
        )
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{self.split}: {len(self)} examples; {steps}{notes}; content {self.digest[:16]}"
