"""Tokens as a person reads them, and tokens that say nothing."""

import numpy as np

from recattn_jax.data import Tokenizer
from recattn_jax.data.word_features import WordFeatureTokenizer
from recattn_jax.shapes import Int


def pieces(tokenizer: Tokenizer, ids: Int[np.ndarray, " T"]) -> list[str]:
    """Each token as text: what it says by itself.

    Args:
      tokenizer: of the run.
      ids: `[T]`, the tokens.

    Returns:
      As many texts; numbers and names in angle brackets are of those that say nothing.

    >>> from recattn_jax.data import ByteTokenizer
    >>> pieces(ByteTokenizer(), np.array([97, 32, 195, 256]))
    ['a', ' ', '<195>', '<separator>']
    """

    def say(token: int) -> str:
        if token == tokenizer.separator:
            return "<separator>"
        text = tokenizer.decode([token])
        return f"<{token}>" if not text or "\ufffd" in text else text

    return [say(int(token)) for token in ids]


def blank(
    tokenizer: Tokenizer | WordFeatureTokenizer, ids: Int[np.ndarray, "*shape"]
) -> Int[np.ndarray, "*shape"]:
    """As many separators, which say nothing.

    Args:
      tokenizer: of the run.
      ids: `[T]`, the tokens; or `[T, K]`, the symbols of each word.

    Returns:
      Ids, `[T]` or `[T, K]` as those are; of the symbols of a word, the first alone is there.

    >>> from recattn_jax.data import ByteTokenizer
    >>> blank(ByteTokenizer(), np.array([97, 32])).tolist()
    [256, 256]
    """
    separators = np.full_like(ids, tokenizer.separator)
    if ids.ndim == 2:
        separators[:, 1:] = -1
    return separators
