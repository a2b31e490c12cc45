"""The errors that end a run on purpose: one line for the person, one exit code for the machine."""


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


class Interrupted(RunError):
    """Someone asked the run to stop, and it did, after saving; the same command goes on."""

    exit_code = 42
