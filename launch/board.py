"""The trials as they go: a table in place on a terminal, a line for each change in a log."""

import shutil
from collections.abc import Sequence
from typing import TextIO

from recattn_jax.analysis.results import as_flag
from recattn_jax.analysis.sweeps import RUNNING, Trial, best_of, counted


class Board:
    """Shows trials, each time all of them.

    Args:
      out: where to; a terminal is drawn over.
      headline: name of their values.
      maximise: whether more of it is better.
    """

    def __init__(self, out: TextIO, headline: str, maximise: bool):
        self._out, self._headline, self._maximise = out, headline, maximise
        self._drawn: list[str] = []

    def show(self, trials: Sequence[Trial]) -> None:
        """Shows how they stand."""
        if not trials:
            return
        if self._out.isatty():
            width, height = shutil.get_terminal_size()
            lines = table(trials, self._headline, self._maximise, max(1, height - 3))
            lines = [line[: width - 1] for line in lines]
            if lines == self._drawn:
                return
            up = f"\x1b[{len(self._drawn)}F\x1b[J" if self._drawn else ""
            self._out.write(up + "".join(f"{line}\n" for line in lines))
        else:
            lines = [describe(trial, self._headline) for trial in trials]
            seen = set(self._drawn)
            self._out.write("".join(f"{line}\n" for line in lines if line not in seen))
        self._drawn = lines
        self._out.flush()

    def say(self, line: str) -> None:
        """Writes a line that stays; on a terminal the table goes on below it."""
        self._out.write(f"{line}\n")
        self._out.flush()
        if self._out.isatty():
            self._drawn = []


def table(trials: Sequence[Trial], headline: str, maximise: bool, most: int) -> list[str]:
    """How they stand together, then names of columns, then a row each.

    What a narrow terminal cuts off is at the end of a row. Where there are more than `most`, those
    that run are there, and the latest others.

    >>> for line in table([Trial(3, RUNNING, {"width": 8}, 40, 1.5)], "loss", False, 9):
    ...     print(line)
    1 running
    trial  state    loss  step  width
    3      running  1.5   40    8
    """
    best = best_of(trials, maximise)
    found = f"; best {headline} {best.value:.6g} in trial {best.number}" if best else ""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.parameters))
    rows = [["trial", "state", headline, "step", *keys, ""]]
    chosen = sorted(trials, key=lambda trial: (trial.state == RUNNING, trial.number))[-most:]
    for trial in sorted(chosen, key=lambda trial: trial.number):
        value = "" if trial.value is None else f"{trial.value:.6g}"
        step = "" if trial.step is None else str(trial.step)
        numbers = [_short(trial.parameters[key]) for key in keys]
        rows.append([str(trial.number), trial.state, value, step, *numbers, trial.reason])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return [counted(trials) + found, *("  ".join(row).rstrip() for row in padded)]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else as_flag(value)


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
