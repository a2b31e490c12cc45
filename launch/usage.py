"""What `--help` prints: what a command does, its flags with their defaults, and the exit codes."""

import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags

WIDEST = 100
_NAMES = 28
_EXAMPLE = re.compile(r"^\s+\S")


def width() -> int:
    """Characters in a line: those of the terminal, if there is one and it is not too wide."""
    return min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)


def page(
    doc: str, flag_values: flags.FlagValues, exit_codes: Mapping[int, str], columns: int
) -> str:
    """The whole text.

    Args:
      doc: of the command: paragraphs, and examples, whose lines are indented.
      flag_values: its flags; those with a dot in their name are keys of a config.
      exit_codes: what each means.
      columns: characters in a line.
    """
    names = [name for name in flag_values if name != "debug"] + ["debug"]
    own = [flag_values[name] for name in names if "." not in name]
    keys = [flag_values[name] for name in names if "." in name]
    parts = [prose(doc, columns), "Flags, with their defaults:"]
    parts.append(table([(_given(flag), _told(flag)) for flag in own], columns))
    if keys:
        parts += ["Keys of the config, with their values in the file:"]
        parts.append(table([(_given(flag), _told(flag)) for flag in keys], columns))
    codes = [(str(code), words) for code, words in exit_codes.items()]
    return "\n\n".join([*parts, "Exit codes:", table(codes, columns)])


def prose(doc: str, columns: int) -> str:
    """A docstring whose paragraphs are wrapped; examples are left as they are."""
    blocks = re.split(r"\n\s*\n", doc.strip("\n"))
    return "\n\n".join(
        block if _EXAMPLE.match(block) else textwrap.fill(" ".join(block.split()), columns)
        for block in blocks
    )


def table(rows: Iterable[tuple[str, str]], columns: int) -> str:
    """Names, and beside them what is said of each, wrapped.

    Example:
      >>> print(table([("--a=1", "how many there are"), ("--long", "")], columns=30))
        --a=1   how many there are
        --long
    """
    rows = list(rows)
    left = 2 + min(_NAMES, max(len(name) for name, _ in rows)) + 2
    lines = []
    for name, words in rows:
        first = f"  {name}".ljust(left)
        wrapped = textwrap.wrap(words, max(20, columns - left), break_on_hyphens=False)
        if wrapped and len(first) > left:  # too long to have anything beside it
            lines.append(first)
            first = " " * left
        lines.append((first + "".join(wrapped[:1])).rstrip())
        lines += [" " * left + line for line in wrapped[1:]]
    return "\n".join(lines)


def _given(flag: flags.Flag[Any]) -> str:
    """A flag as it is typed, with its default."""
    if flag.boolean and flag.default is False:
        return f"--{flag.name}"
    plain = isinstance(flag.default, bool | int | float | str) and flag.default != ""
    return f"--{flag.name}={flag.default}" if plain else f"--{flag.name}=..."


def _told(flag: flags.Flag[Any]) -> str:
    """What a flag is for; of a choice, all that there is."""
    choices = getattr(flag.parser, "enum_values", None)
    # absl puts these before the words, and has its own for none.
    words = (flag.help or "").removeprefix(f"<{'|'.join(choices or ())}>: ")
    words = words.removeprefix("(no help available)")
    return f"{words}: {', '.join(choices)}" if choices else words
