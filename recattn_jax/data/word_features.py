"""Words as sets of features, so that a word training never showed still says something."""

import collections
import dataclasses
import functools
import itertools
import operator
import re
from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Int

from recattn_jax.data.words import join_words, split_words
from recattn_jax.errors import UserError

_PARTS = (2, 3, 4)  # lengths of the parts of a word, its ends included
_RARE = 2  # a feature that training has less often says nothing that could be learned


@dataclasses.dataclass(frozen=True)
class WordFeatureTokenizer:
    """Several ids a word: its shape, its shape in short, itself, and its parts.

    `Rome` has the shapes `S:Xxxx` and `s:Xx` and is `w:rome`, with the parts `<r`, `ro`, `<ro`, ...
    of two to four characters, `<` and `>` being its ends. The two shapes come first, then the word;
    of the parts those at the ends come before the others, and those that find no place are left
    out. -1 stands where there is no feature, or none that training showed.

    Args:
        names: the features, each once; the separator comes after the last.
        most: K, how many ids a word has.

    Raises:
        ValueError: for no features, a repeated one, or less than three ids a word.

    >>> tokenizer = WordFeatureTokenizer.of_words(["in", "Rome", "in", "Rome"], 20, most=6)
    >>> tokenizer.encode_words(["in", "Rome"]).shape
    (2, 6)

    Paper: Bojanowski et al., "Enriching word vectors with subword information", arXiv 1607.04606,
    2016; shapes: Collins, "Ranking algorithms for named-entity extraction", 2002.
    """

    names: tuple[str, ...]
    most: int

    symbol = "word"
    shapes = 2
    """How many ids of a word, its first, say what it looks like."""

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError("names of features must be distinct, at least one")
        if self.most < 3:
            raise ValueError(f"most={self.most} ids a word, must be 3 or more")

    @classmethod
    def of_words(cls, words: Iterable[str], size: int, most: int) -> "WordFeatureTokenizer":
        """Returns the tokenizer of the `size` features that most of `words` have.

        Parts are counted by the different words that have them. Of equally frequent features the
        first in code point order come first.
        """
        counts: collections.Counter[str] = collections.Counter()
        for word, count in collections.Counter(words).items():
            for name in _features(word):
                # A part that one word alone has says no more than the word.
                counts[name] += 1 if name.startswith("p:") else count
        frequent = [name for name, count in counts.items() if count >= _RARE]
        if not frequent or size < 1:
            raise UserError(
                f"features of words: {size} of {len(frequent)}; give more text, or more"
            )
        return cls(tuple(sorted(frequent, key=lambda n: (-counts[n], n))[:size]), most)

    @property
    def vocabulary_size(self) -> int:
        """The number of features, and one for the separator."""
        return len(self.names) + 1

    @property
    def separator(self) -> int:
        """The last id."""
        return len(self.names)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def encode(self, text: str) -> Int[np.ndarray, "N K"]:
        """Returns the ids of each word of `text`."""
        return self.encode_words(split_words(text))

    def encode_words(self, words: Iterable[str]) -> Int[np.ndarray, "N K"]:
        """Returns the ids of each of `words`, which are not cut any further."""
        rows = [self._row(word) for word in words]
        return np.array(rows, np.int32).reshape(len(rows), self.most)

    def _row(self, word: str) -> list[int]:
        # The first three keep their places; of the rest, only the known ones take any.
        features = _features(word)
        ids = [self._ids.get(name, -1) for name in itertools.islice(features, 3)]
        ids += [self._ids[name] for name in features if name in self._ids]
        return [*ids, *[-1] * self.most][: self.most]

    def decode(self, ids: Iterable[Iterable[SupportsIndex]]) -> str:
        """Returns the words that are features themselves, lower-cased, and `<unk>` for others."""
        return "".join(self.decode_stream(ids))

    def decode_stream(self, ids: Iterable[Iterable[SupportsIndex]]) -> Iterator[str]:
        """Yields one word a row of ids, with the space before it."""
        return (piece for piece in join_words(map(self._word, ids)) if piece)

    def _word(self, row: Iterable[SupportsIndex]) -> str:
        names = [self.names[i] for i in map(operator.index, row) if 0 <= i < len(self.names)]
        return next((name[2:] for name in names if name.startswith("w:")), "<unk>")

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` makes the same tokenizer from."""
        return {"kind": "word features", "names": list(self.names), "most": self.most}


def _features(word: str) -> Iterator[str]:
    """The features of a word, the most telling first."""
    shape = "".join(map(_kind, word))
    yield f"S:{shape[:6]}"
    yield "s:" + re.sub(r"(.)\1+", r"\1", shape)[:8]
    yield f"w:{word.lower()}"
    whole = f"<{word.lower()}>"
    places = [(at, at + size) for size in _PARTS for at in range(len(whole) - size + 1)]
    # Those at an end come first, for False sorts before True, and the order of equals stays.
    places.sort(key=lambda place: place[0] > 0 and place[1] < len(whole))
    yield from dict.fromkeys(f"p:{whole[start:end]}" for start, end in places)


def _kind(character: str) -> str:
    if character.isupper():
        return "X"
    return "x" if character.isalpha() else "d" if character.isdigit() else character
