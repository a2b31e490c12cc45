"""Calls of other people's commands: lists of words, never a shell, and never for ever."""

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from recattn_jax.errors import UserError

_KILLED = 124


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said; 124 where it was killed because it hung."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """The end of what it complained, or of what it said."""
        lines = [line for line in (self.out + "\n" + self.err).splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit code {self.code}"


def call(argv: Sequence[str], timeout: float) -> Answer:
    """Runs a command to its end.

    Args:
      argv: the command.
      timeout: seconds after which it is killed, with all that it started.

    Raises:
      UserError: there is no such command on this machine, or it cannot be run.
    """
    # Files and not pipes: a grandchild that survives holds a pipe open, and would be waited for.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        except FileNotFoundError as error:
            raise UserError(f"there is no {argv[0]} on this machine; install it first") from error
        except OSError as error:
            raise UserError(f"{argv[0]} cannot be run: {error.strerror}") from error
        try:
            code = process.wait(timeout)
            last = ""
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code, last = _KILLED, f"\n{argv[0]} did not answer within {timeout:g} s and was killed"
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
        return Answer(code, said[0], said[1] + last)


def must(argv: Sequence[str], timeout: float) -> Answer:
    """Runs a command that has to succeed.

    Raises:
      UserError: there is no such command, or it failed; the last line of its output says why.
    """
    answer = call(argv, timeout)
    if answer.code:
        raise UserError(f"{shlex.join(argv[:4])} ...: {answer.last_line}")
    return answer
