"""Words as ids that say where each word ends, so that every word can have a tag."""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from recattn_jax.data.tokenizers import Tokenizer


@runtime_checkable
class WordEncoder(Protocol):
    """A tokenizer that has an id for a word as it is."""

    def encode_words(self, words: Iterable[str]) -> Int[np.ndarray, "words ..."]:
        """One id, or one row of ids, for each word.

        Args:
            words: as they are.

        Returns:
            int32 `[W]` or `[W, K]`.
        """
        ...


def spell(
    words: Sequence[str], tokenizer: Tokenizer
) -> tuple[Int[np.ndarray, "N ..."], Int[np.ndarray, "words"]]:
    """Encodes words one by one, so that each has a piece to carry its tag.

    A tokenizer of words has one id a word, or a row of them, and cuts none. Others encode each word
    by itself, bytes and characters with a space before every word but the first; a word that the
    tokenizer makes nothing of becomes a separator.

    Args:
        words: at least one.
        tokenizer: of any symbol.

    Returns:
        Ids, int32 `[N]` or `[N, K]`, and where the last one of each word stands, int64 `[W]`, W
        words: a recurrence has read all of the word there.

    >>> from recattn_jax.data import ByteTokenizer
    >>> spell(["in", "Rome"], ByteTokenizer())[1].tolist()
    [1, 6]
    """
    if isinstance(tokenizer, WordEncoder):
        return tokenizer.encode_words(words), np.arange(len(words))
    # Subwords say themselves where a word begins.
    space = " " if tokenizer.symbol in ("byte", "char") else ""
    nothing = np.array([tokenizer.separator], np.int32)
    pieces = [tokenizer.encode(space * (i > 0) + word) for i, word in enumerate(words)]
    pieces = [piece if len(piece) else nothing for piece in pieces]
    return np.concatenate(pieces), np.cumsum([len(piece) for piece in pieces]) - 1
