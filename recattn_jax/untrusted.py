"""What comes from strangers: files of limited size, JSON of limited depth, text that shows itself.

The limits stand here and nowhere else. Whoever reads a file that another process wrote does so
through this module, so that nothing hangs, fills the memory or speaks to a terminal.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

JSON_BYTES = 64 << 20
"""The largest JSON file of a run or a job that is read; vocabularies are the largest of them."""
JSON_DEPTH = 50
"""Lists and objects inside each other."""
LINE_BYTES = 16 << 20
"""The longest line of a stream."""
UNPACKED_BYTES = 1 << 30
"""What a packed file may unpack to, whatever its size..."""
UNPACKED_RATIO = 20
"""... and how many times its size it may, where that is more."""

# C0 and C1 controls (a terminal obeys them) but tab and line feed, the separators of lines and of
# paragraphs, what turns the order of letters round, halves of surrogate pairs (no UTF-8 says them).
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACES = re.compile("[\t\n]")
_MARKUP = re.compile(r"([\\`*\[\]<>|])")


class Unreadable(ValueError):
    """Says why a file or a text cannot be used, in a line that does not name it.

    Args:
      reason: why.
      line: of the text, from 1.
    """

    def __init__(self, reason: str, line: int = 1):
        super().__init__(reason)
        self.line = line


def place(path: str | os.PathLike[str]) -> Path:
    """The path, with the home folder for a ~ where there is one.

    >>> place("~nobody-of-this-name/a")
    PosixPath('~nobody-of-this-name/a')
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user: then the file has a ~ in its name, or is not there
        return Path(path)


def is_there(path: Path) -> bool:
    """Whether there is anything of this name; no name at all (too long, a NUL) is not there."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether there is a file of this name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The content of a file; never waits for one that is none, such as a pipe.

    Args:
      path: the file.
      most: the bytes that it may have; None for any number.

    Raises:
      Unreadable: there is no such file, it is a folder, a pipe or a device, or too large.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
                raise Unreadable(f"{kind}, not a file")
            if most is not None and found.st_size > most:
                raise Unreadable(f"{found.st_size} bytes, at most {most} are read")
            return file.read()
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None
    except ValueError as error:  # a NUL in the name
        raise error if isinstance(error, Unreadable) else Unreadable(str(error)) from None


def parse_json(text: str | bytes) -> Any:
    """What a text says in JSON.

    Raises:
      Unreadable: it is no JSON, or no UTF-8, holds half of a surrogate pair, or is too deep.
    """
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise Unreadable(f"more than {JSON_DEPTH} lists or objects inside each other") from None
    except UnicodeDecodeError as error:
        raise Unreadable(f"byte {error.start} is not {error.encoding.upper()}") from None
    except UnicodeEncodeError:
        raise Unreadable("broken JSON: half of a pair of surrogates") from None
    except json.JSONDecodeError as error:
        reason = f"broken JSON: {error.msg} at column {error.colno}"
        raise Unreadable(reason, error.lineno) from None
    except ValueError as error:  # a number with thousands of digits
        raise Unreadable(f"broken JSON: {str(error).partition(';')[0]}") from None
    level, depth = [found], 0
    while level := [
        inner
        for outer in level
        if isinstance(outer, dict | list)
        for inner in (outer.values() if isinstance(outer, dict) else outer)
    ]:
        depth += 1
        if depth > JSON_DEPTH:
            raise Unreadable(f"more than {JSON_DEPTH} lists or objects inside each other")
    return found


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      Unreadable: there is no such file, it is too large, or holds something else.
    """
    found = parse_json(read_bytes(path, JSON_BYTES))
    if not isinstance(found, dict):
        raise Unreadable("no JSON object")
    return found


def unpacked_most(packed: int) -> int:
    """How many bytes a packed file may unpack to.

    Args:
      packed: how many it has.

    >>> unpacked_most(1000) == UNPACKED_BYTES, unpacked_most(1 << 30) == 20 << 30
    (True, True)
    """
    return max(UNPACKED_BYTES, UNPACKED_RATIO * packed)


def shown(text: str) -> str:
    r"""A text as a terminal may have it: what would steer it is escaped, and all else unchanged.

    >>> shown("red \x1b[31m\n")
    'red \\x1b[31m\n'
    """
    return _HARMFUL.sub(_escaped, text)


def one_line(text: str, most: int = 0) -> str:
    r"""The same in one line, for a cell of a table or a label.

    Args:
      text: of a stranger.
      most: characters that are left of it; 0 for all.

    >>> one_line("a\tb\n"), one_line("abcdef", most=4)
    ('a\\tb\\n', 'abc…')
    """
    line = _SPACES.sub(_escaped, shown(text))
    return line if not most or len(line) <= most else line[: most - 1] + "…"


def brief(text: str) -> str:
    """A message that repeats what it was given, however long that is: its middle is left out.

    >>> len(brief("x" * 100_000))
    2003
    """
    return text if len(text) <= 2000 else f"{text[:1500]} … {text[-500:]}"


def markdown(text: str) -> str:
    r"""A text for a cell of a table in Markdown: in one line, and nothing in it is markup.

    >>> markdown("a|b <c>")
    'a\\|b \\<c\\>'
    """
    return _MARKUP.sub(r"\\\1", one_line(text))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")
