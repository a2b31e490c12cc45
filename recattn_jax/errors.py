"""The errors that end a run on purpose: one line for the person, one exit code for the machine."""

from collections.abc import Mapping
from typing import TypeVar

Choice = TypeVar("Choice")


class RunError(Exception):
    """Abstract: an end of a run that is nobody's bug; the message is one line for a person.

    The line says what is wrong, where, and what to do about it.
    """

    exit_code: int


class UserError(RunError):
    """Wrong usage: the message names what was given, what was expected and what to do."""

    exit_code = 2


class NonFiniteError(RunError):
    """The loss or the gradient norm is no number; names step, batch and last good checkpoint."""

    exit_code = 3


class StorageError(RunError):
    """Storage failed: full, read-only, or every checkpoint is damaged."""

    exit_code = 4


class SourceError(RunError):
    """Data that could be read at the start cannot be read any more; names the batch."""

    exit_code = 1


class Interrupted(RunError):
    """Someone asked the run to stop, and it did, after saving; the same command goes on."""

    exit_code = 42


def summary(error: BaseException) -> str:
    """What an error says, in one line that is not long, with its name.

    >>> summary(KeyError("width")), summary(RuntimeError())
    ("KeyError: 'width'", 'RuntimeError')
    """
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}"[:200] if said else type(error).__name__


def choose(options: Mapping[str, Choice], name: str, key: str) -> Choice:
    """Picks one of several named things, as a config names them.

    Args:
      options: what there is.
      name: what is wanted.
      key: the config key, for the message.

    Returns:
      The thing.

    Raises:
      UserError: there is none of that name.

    >>> choose({"a": 1, "b": 2}, "b", "letter")
    2
    """
    if name not in options:
        raise UserError(f"{key}={name!r} is not one of {', '.join(map(repr, options))}")
    return options[name]
