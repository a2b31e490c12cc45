"""Text to token ids and back: bytes and characters, each with one separator between documents."""

import codecs
import dataclasses
import functools
import operator
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import numpy as np
from jaxtyping import Int

from recattn_jax.errors import UserError


@runtime_checkable  # for the annotations that tests check
class Tokenizer(Protocol):
    """Ids `0 .. vocabulary_size - 1`; one of them, `separator`, stands before every document.

    >>> tokenizer: Tokenizer = ByteTokenizer()
    >>> tokenizer.decode(tokenizer.encode("né"))
    'né'
    """

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are, the separator among them."""

    @property
    def separator(self) -> int:
        """The id that stands before every document and never inside one."""

    @property
    def symbol(self) -> str:
        """What one id stands for, as in "bits per byte": "byte", "char", "word" or "subword"."""

    def encode(self, text: str) -> Int[np.ndarray, "N ..."]:
        """Returns the int32 ids of `text`, without a separator; UserError where it cannot.

        One id a symbol; a tokenizer that describes its symbols has a row of ids for each.
        """

    def decode(self, ids: Iterable[Any]) -> str:
        """Returns the text of `ids`; separators become nothing."""

    def decode_stream(self, ids: Iterable[Any]) -> Iterator[str]:
        """Yields text as soon as ids complete it; joined, it is `decode(ids)`."""

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` makes the same tokenizer from."""


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """The 256 bytes of UTF-8; the separator is 256. Bytes that are no UTF-8 decode to U+FFFD.

    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.encode("né").tolist()
    [110, 195, 169]
    """

    vocabulary_size = 257
    separator = 256
    symbol = "byte"

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns one id a byte of the UTF-8 form of `text`."""
        return np.frombuffer(checked_text(text), np.uint8).astype(np.int32)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Returns the text of `ids`; separators become nothing."""
        return "".join(self.decode_stream(ids))

    def decode_stream(self, ids: Iterable[SupportsIndex]) -> Iterator[str]:
        """Yields whole characters only: the first bytes of one wait for its last."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for value in ids:
            # A separator ends the document, so a character that is still open will never be closed.
            ended = operator.index(value) == self.separator
            text = decoder.decode(b"" if ended else bytes((value,)), final=ended)
            if text:
                yield text
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` makes the same tokenizer from."""
        return {"kind": "byte"}


@dataclasses.dataclass(frozen=True)
class CharTokenizer:
    """One id for each of `characters`, in their order; the separator comes after the last.

    Args:
        characters: the alphabet; each character once.

    Raises:
        ValueError: for an empty alphabet, or one with a repeated character.

    >>> tokenizer = CharTokenizer.of(["banana"])
    >>> tokenizer.encode("ban").tolist(), tokenizer.separator
    ([1, 0, 2], 3)
    """

    characters: str

    symbol = "char"

    def __post_init__(self) -> None:
        if not self.characters or len(set(self.characters)) != len(self.characters):
            raise ValueError(f"characters must be distinct, at least one: {self.characters!r}")

    @classmethod
    def of(cls, documents: Iterable[str]) -> "CharTokenizer":
        """Returns the tokenizer of all characters in `documents`, in code point order."""
        found: set[str] = set()
        for document in documents:
            found.update(document)
        if not found:
            raise UserError("characters: the documents are empty; give some text")
        return cls("".join(sorted(found)))

    @property
    def vocabulary_size(self) -> int:
        """The number of characters, and one for the separator."""
        return len(self.characters) + 1

    @property
    def separator(self) -> int:
        """The last id."""
        return len(self.characters)

    @functools.cached_property
    def _lookup(self) -> tuple[np.ndarray, np.ndarray]:
        points = np.array([ord(c) for c in self.characters], np.uint32)
        order = np.argsort(points)
        return points[order], order.astype(np.int32)

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns one id a character; UserError names the first one that is not in the alphabet."""
        data = text.encode("utf-32-le", "surrogatepass")
        points_N = np.frombuffer(data, np.uint32)
        known, ids = self._lookup
        index_N = np.minimum(np.searchsorted(known, points_N), len(known) - 1)
        wrong = np.flatnonzero(known[index_N] != points_N)
        if wrong.size:
            where = int(wrong[0])
            line = text.count("\n", 0, where) + 1
            column = where - (text.rfind("\n", 0, where) + 1) + 1
            raise UserError(
                f"text: unknown character {text[where]!r} at line {line}, column {column}; the "
                f"tokenizer knows {len(known)} characters: leave this one out, or train with bytes"
            )
        return ids[index_N]

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Returns the text of `ids`; separators become nothing."""
        return "".join(self.decode_stream(ids))

    def decode_stream(self, ids: Iterable[SupportsIndex]) -> Iterator[str]:
        """Yields one character an id, and nothing for a separator."""
        for value in map(operator.index, ids):
            if not 0 <= value < self.vocabulary_size:
                raise ValueError(f"id {value} is not in 0 .. {self.vocabulary_size - 1}")
            if value != self.separator:
                yield self.characters[value]

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` makes the same tokenizer from."""
        return {"kind": "char", "characters": self.characters}


def checked_text(text: str) -> bytes:
    """Returns `text` in UTF-8; UserError names the first character that has no such form."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"text: character {error.start} is {text[error.start]!r}, which is no character "
            "of Unicode (half of a surrogate pair); give valid UTF-8 text"
        ) from None


def from_json(data: Any) -> Tokenizer:
    """Returns the tokenizer whose `to_json()` is `data`; ValueError for anything else."""
    match data:
        case {"kind": "byte"}:
            return ByteTokenizer()
        case {"kind": "char", "characters": str(characters)}:
            return CharTokenizer(characters)
    raise ValueError(f"describes no tokenizer: {data!r:.80}")
