"""A job: one command on one or many hosts, and how a driver is asked to run it.

What a driver starts is always a list of arguments, never a line for a shell to read; names are
checked here, so that they fit every driver's idea of a name.

A process that ends with 0 is done. 42 means start it again: it was interrupted, and saved. 2 and 3
mean do not: the usage is wrong, or the loss is not finite, and it would happen again. Anything else
(a lost host, a full disk, a signal) is worth `retries` further attempts, and so is 42.
"""

import enum
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from recattn_jax.errors import Interrupted, NonFiniteError, UserError

DONE = 0
START_AGAIN = Interrupted.exit_code
FINAL = (UserError.exit_code, NonFiniteError.exit_code)

# The strictest of all: Kubernetes wants a label, gcloud an id, and a set of jobs adds its own ends.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Job:
    """What to run, where, and how often to try.

    Args:
      name: unique among the jobs of a driver; starting a name twice is harmless.
      argv: the command of every process, word by word.
      folder: for logs and what the driver keeps; all hosts see it under this path.
      accelerator: the kind and number for each host, as the driver reads it: "cpu", "gpu:8",
        "v5litepod-16".
      hosts: how many machines, or with the local driver processes.
      environment: variables besides those that are there.
      retries: how many further attempts there are after the first.

    Raises:
      UserError: the name is none, or a word cannot be an argument.

    Example:
      >>> Job("sweep-0", ("python", "-m", "launch.train"), Path("runs/sweep"), "cpu").hosts
      1
    """

    name: str
    argv: tuple[str, ...]
    folder: Path
    accelerator: str
    hosts: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    retries: int = 0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"job name {self.name!r}: expected up to 40 lowercase letters, digits and dashes,"
                " a letter first and no dash last"
            )
        if not self.argv:
            raise UserError(f"job {self.name}: there is no command to run")
        for word in (*self.argv, *self.environment.values(), str(self.folder)):
            # The second: what is left of bytes that are no UTF-8.
            if any(ord(letter) < 32 or "\ud800" <= letter <= "\udfff" for letter in word):
                raise UserError(
                    f"job {self.name}: {word!r} holds a control character, or what is no UTF-8"
                )
        for variable in self.environment:
            if not _VARIABLE.fullmatch(variable):
                raise UserError(f"job {self.name}: {variable!r} is no name of a variable")
        if self.hosts < 1 or self.retries < 0:
            raise UserError(
                f"job {self.name}: hosts={self.hosts} must be at least 1, retries={self.retries}"
                " at least 0"
            )


class State(enum.Enum):
    """Where a job stands."""

    UNKNOWN = "unknown"  # the driver has no such job
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # and no attempt is left


@dataclass(frozen=True)
class Status:
    """Where a job stands, and of one that failed its exit code, if it is known, and why."""

    state: State
    exit_code: int | None = None
    reason: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in (State.DONE, State.FAILED)


@dataclass(frozen=True)
class Action:
    """One thing that a driver does to start a job: it runs a command, or writes a file.

    Args:
      argv: the command; empty where a file is written.
      file: the file; None where a command is run.
      text: what is written to the file.
    """

    argv: tuple[str, ...] = ()
    file: Path | None = None
    text: str = ""


@runtime_checkable
class Driver(Protocol):
    """Runs jobs somewhere. What `start` does is what `plan` says, in that order."""

    def plan(self, job: Job) -> Sequence[Action]:
        """Everything that starting the job would do; nothing is done."""

    def start(self, job: Job) -> None:
        """Starts the job, or does nothing where a job of this name runs or is done."""

    def status(self, job: Job) -> Status:
        """Where the job stands; it may start a further attempt, where one is due."""

    def stop(self, job: Job) -> None:
        """Asks the job to save and stop; nothing where none runs."""


def cause(codes: Sequence[int]) -> int:
    """The code that says how a job ended, of those of its processes.

    A final one; else, since the others are asked to stop when one has failed, the first that no
    such request explains; else the first that is not 0.

    Args:
      codes: of all processes; negative for a signal.

    Example:
      >>> cause([0, 143, 1]), cause([1, 42, 2]), cause([0, 42])
      (1, 2, 42)
    """
    asked = (START_AGAIN, -signal.SIGTERM, 128 + signal.SIGTERM)
    return min(codes, key=lambda code: (code == DONE, code not in FINAL, code in asked))


def worth_another(exit_code: int, attempt: int, retries: int) -> bool:
    """Whether a process that ended so should be started again.

    Args:
      exit_code: of the process; negative for a signal.
      attempt: how many there were, this one included.
      retries: of the job.

    Example:
      >>> worth_another(42, 1, 3), worth_another(2, 1, 3), worth_another(1, 4, 3)
      (True, False, False)
    """
    return exit_code != DONE and exit_code not in FINAL and attempt <= retries
