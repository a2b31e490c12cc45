"""The trials as they go: a table in place on a terminal, a line for each change in a log."""

import shutil
from collections.abc import Sequence
from typing import TextIO

from recattn_jax.analysis.results import as_flag
from recattn_jax.analysis.sweeps import Trial


class Board:
    """Shows trials, each time all of them.

    Args:
      out: where to; a terminal is drawn over.
      headline: name of their values.
    """

    def __init__(self, out: TextIO, headline: str):
        self._out, self._headline = out, headline
        self._drawn: list[str] = []

    def show(self, trials: Sequence[Trial]) -> None:
        """Shows how they stand."""
        lines = [describe(trial, self._headline) for trial in trials]
        if self._out.isatty():
            width, height = shutil.get_terminal_size()
            lines = [line[: width - 1] for line in lines[-(height - 2) :]]
            if lines == self._drawn:
                return
            up = f"\x1b[{len(self._drawn)}F" if self._drawn else ""
            self._out.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        else:
            seen = set(self._drawn)
            self._out.write("".join(f"{line}\n" for line in lines if line not in seen))
        self._drawn = lines
        self._out.flush()


def describe(trial: Trial, headline: str) -> str:
    """One line for a trial.

    >>> describe(Trial(3, "running", {"width": 8}, 40, 1.5), "loss")
    'trial 3 running: width=8, step 40, loss 1.5'
    """
    parts = [" ".join(f"{key}={as_flag(value)}" for key, value in trial.parameters.items())]
    if trial.step is not None:
        parts.append(f"step {trial.step}")
    if trial.value is not None:
        parts.append(f"{headline} {trial.value:.6g}")
    if trial.reason:
        parts.append(trial.reason)
    return f"trial {trial.number} {trial.state}: {', '.join(parts)}"
