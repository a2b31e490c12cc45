"""Records, the examples of every source, and the source that serves them by split.

A record maps field names to strings, lists of strings, and arrays whose first axis is time:

    {"text": ..., "name": ...}                      plain text
    {"text": ..., "label": ...}                     labelled text
    {"tokens": [...], "tags": [...]}                tagged text; with an intent, also "label"
    {"source": ..., "targets": [..., ...]}          a text and what it becomes, in one or more ways
    {"series": array, "label": ...}                 a labelled series: measurements, sound, frames
    {"series": array, "text": ...}                  sound and what is said
    {"columns": [...], "times": [...], "series": array}    one long series
"""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from recattn_jax.errors import UserError
from recattn_jax.untrusted import one_line

Item = TypeVar("Item")
Record = Mapping[str, Any]
"""An example as the source has it, by field; see the module's docstring."""
# A sequence of records. Not said to be of records, since whoever checks types would read a file.
Records = Sequence[Any]
Content = Mapping[str, Records]  # by split

# The fields of each kind of record, and what they hold.
PLAIN: Mapping[str, type] = {"name": str, "text": str}
LABELLED: Mapping[str, type] = {"text": str, "label": str}
TAGGED: Mapping[str, type] = {"tokens": list, "tags": list}
TAGGED_WITH_INTENT: Mapping[str, type] = {"tokens": list, "tags": list, "label": str}
PAIRS: Mapping[str, type] = {"source": str, "targets": list}
SERIES: Mapping[str, type] = {"series": np.ndarray, "label": str}
TRANSCRIBED: Mapping[str, type] = {"series": np.ndarray, "text": str}
TABLE: Mapping[str, type] = {"columns": list, "times": list, "series": np.ndarray}

SPLITS = ("train", "validation", "test")
_CLASSES = frozenset(("label", "tags"))


class Lazy(Sequence[Item]):
    """Items that are made when they are asked for.

    Args:
        size: how many there are.
        get: from `0 .. size - 1` to the item.

    Example:
        squares = Lazy(10, lambda i: i * i)
        last = squares[-1]     # 81
    """

    def __init__(self, size: int, get: Callable[[int], Item]):
        self._size = size
        self._get = get

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Item]:
        # The inherited one would take an IndexError of a damaged set for the end.
        return (self._get(index) for index in range(self._size))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._size))]
        if not -self._size <= index < self._size:
            raise IndexError(f"item {index} of {self._size}")
        return self._get(index % self._size)


# How often each class occurs: by field ("label", "tags"), split and class.
Counts = Mapping[str, Mapping[str, Mapping[str, int]]]


@dataclasses.dataclass(frozen=True)
class Source:
    """Records that can be read, by split; `surveyed` makes one from records.

    Args:
        name: of the prepared set.
        digest: of every field of every record, in order; equal digests mean equal records.
        splits: "train" and others.
        counts: how often each label occurs, and of tags each entity: B-person counts for person,
            I- and O for nothing.
        classes: the labels that the format declares, in its order; empty where it declares none.

    >>> source = Source("greetings", "", {"train": [{"text": "Hello."}]})
    >>> source.texts("train")[0]
    'Hello.'
    """

    name: str
    digest: str
    splits: Content
    counts: Counts = dataclasses.field(default_factory=dict)
    classes: Sequence[str] = ()

    def texts(self, split: str) -> Sequence[str]:
        """The field "text" of the records of a split.

        Args:
            split: "train" or another.

        Returns:
            The texts, each read when it is asked for.
        """
        records = self.splits[split]
        return Lazy(len(records), lambda index: records[index]["text"])

    @property
    def missing(self) -> Mapping[str, Sequence[str]]:
        """Classes that no training record has, by field: declared, or found in other splits."""
        found = {}
        for field, splits in sorted(self.counts.items()):
            known = {name for split in splits.values() for name in split}
            known.update(self.classes if field == "label" else ())
            absent = sorted(known - set(splits.get("train", ())))
            if absent:
                found[field] = absent
        return found

    def summary(self) -> str:
        """One line for the log.

        Returns:
            Sizes of splits, class counts, and the digest.
        """
        sizes = ", ".join(f"{split} {len(records)}" for split, records in self.splits.items())
        parts = [f"{self.name}: examples: {sizes}"]
        for field, splits in sorted(self.counts.items()):
            train = sorted(splits.get("train", {}).items())
            counts = ", ".join(f"{one_line(name)} {n}" for name, n in train)
            parts.append(f"{field} in train: {counts}")
        parts += [
            f"{field} missing from train: {', '.join(map(one_line, names))}"
            for field, names in self.missing.items()
        ]
        return "; ".join([*parts, f"content {self.digest[:16]}"])


def surveyed(name: str, splits: Content) -> Source:
    """Returns the source of these records, its digest and counts made in one pass over them."""
    digest = hashlib.sha256()
    counts: dict[str, dict[str, collections.Counter[str]]] = {}
    for split in sorted(splits):
        digest.update(f"{split} {len(splits[split])}\n".encode())
        for record in splits[split]:
            digest.update(_written(record))
            for field in _CLASSES.intersection(record):
                of = counts.setdefault(field, {held: collections.Counter() for held in splits})
                of[split].update(_classes(record[field]))
    return Source(name, digest.hexdigest(), splits, counts)


def with_validation(splits: Content, share: float, where: str) -> Content:
    """Returns the splits in their usual order, "validation" carved from "train" if there is none.

    Records are taken in the order of a digest of their content, so that their order in
    the file does not decide; equal records stay together. Each split keeps its order.

    Args:
        splits: "train" among them.
        share: of the training records, at least one; 0 carves nothing.
        where: what the records come from, for messages.

    Raises:
        UserError: for a share that is none, or too few different records.
    """
    if not 0 <= share < 1:
        raise UserError(f"validation: expected a share from 0 to below 1, found {share}")
    content = dict(splits)
    if "validation" not in content and share > 0:
        train = content["train"]
        taken = _taken(train, share, where)
        kept = [index for index in range(len(train)) if index not in taken]
        content["train"] = _subset(train, kept)
        content["validation"] = _subset(train, sorted(taken))
    order = [split for split in SPLITS if split in content]
    return {split: content[split] for split in [*order, *(set(content) - set(order))]}


def _taken(records: Records, share: float, where: str) -> set[int]:
    alike = collections.defaultdict(list)
    for index, record in enumerate(records):
        alike[hashlib.sha256(_written(record)).digest()].append(index)
    if len(alike) < 2:
        raise UserError(
            f"{where}: {len(alike)} different examples are too few to carve a validation split "
            "from; give more, or a validation split"
        )
    taken: set[int] = set()
    # At least one is taken, and at least one is left.
    for key in sorted(alike)[:-1]:
        if taken and len(taken) >= share * len(records):
            break
        taken.update(alike[key])
    return taken


def _subset(records: Records, indices: Sequence[int]) -> Records:
    return Lazy(len(indices), lambda index: records[indices[index]])


def _written(record: Record) -> bytes:
    return json.dumps(dict(record), sort_keys=True, default=_digested).encode("ascii") + b"\n"


def _digested(array: np.ndarray) -> list[Any]:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return [little.dtype.str, little.shape, hashlib.sha256(little.tobytes()).hexdigest()]


def _classes(value: str | list[str]) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [tag.removeprefix("B-") for tag in value if tag != "O" and not tag.startswith("I-")]
