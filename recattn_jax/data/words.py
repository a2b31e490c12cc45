"""Text to words and back: what a word is, and where spaces stand between words."""

import functools
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator

# No space stands after the first, before the second, and on either side of the third.
_OPENING = frozenset("([{«“„¿¡$£€#@")
_CLOSING = frozenset(".,;:!?)]}»”…%")
_JOINING = frozenset("'’-‐/")
# What ends such a quotation would otherwise open one.
_ENDS = {"„": "“"}


def split_words(text: str) -> list[str]:
    r"""Cuts plain text into words, marks and line ends.

    A word is a run of letters, digits, underscores and accents of any script; 3.14 and U.S.A. are
    one word each. Every other character is a word of its own, but spaces are none. So "don't" is
    three words. A line end is the word "\n".

    Args:
        text: of any language that separates its words by spaces.

    Returns:
        The words, in their order.

    >>> split_words("Don't, she said.")
    ['Don', "'", 't', ',', 'she', 'said', '.']
    """
    return _pattern().findall(text)


def split_spaces(text: str) -> list[str]:
    r"""Cuts text whose words are separated by white space; a line end is the word "\n"."""
    return re.findall(r"\n|[^\s]+", text)


def join_words(words: Iterable[str | None]) -> Iterator[str]:
    """Yields the words of `split_words`, each with a space before it where one usually stands.

    No exact inverse: spaces follow the habits of punctuation (none before a comma, none around a
    hyphen or an apostrophe between words, quotation marks close what they opened).

    Args:
        words: the words; None where a document ends.

    Yields:
        Text, a word at a time; joined, it is the whole.

    >>> "".join(join_words(["it", "'", "s", "here", "."]))
    "it's here."
    """
    glued = True
    opened: set[str] = set()
    for word in words:
        if word is None or word == "\n":
            glued = True
            opened.clear()
            yield word or ""
            continue
        before, after = _gaps(word, opened)
        yield word if glued or not before else f" {word}"
        glued = not after


def join_spaces(words: Iterable[str | None]) -> Iterator[str]:
    """Yields words with a space between them, but none beside a line end or a document's end."""
    glued = True
    for word in words:
        ends = word is None or word == "\n"
        yield word or "" if glued or ends else f" {word}"
        glued = ends


def _gaps(word: str, opened: set[str]) -> tuple[bool, bool]:
    """Returns whether a space may stand before and after a word; notes quotations in `opened`."""
    if word in opened:
        opened.remove(word)
        return False, True
    if word == '"' or word in _ENDS:
        opened.add(_ENDS.get(word, word))
        return True, False
    if word in _JOINING:
        return False, False
    return word not in _CLOSING, word not in _OPENING


@functools.cache
def _pattern() -> re.Pattern[str]:
    # `\w` leaves out the accents and vowel signs that stand as characters of their own.
    marks = "".join(
        chr(point)
        for point in range(0x300, min(sys.maxunicode, 0x1FFFF))
        if unicodedata.category(chr(point)).startswith("M")
    )
    joiners = "\u200c\u200d"
    return re.compile(
        r"\n"
        r"|\d+(?:[.,]\d+)+"
        r"|(?:[^\W\d_]\.){2,}"
        rf"|\w[\w{re.escape(marks + joiners)}]*"
        r"|[^\s]"
    )
