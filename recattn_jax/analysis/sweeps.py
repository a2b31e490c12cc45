"""The trials of a sweep: a table, and figures of what their parameters did to the headline."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from recattn_jax.analysis.figures import better, plain_text, save
from recattn_jax.analysis.results import as_flag
from recattn_jax.untrusted import one_line

RUNNING, FINISHED, PRUNED, FAILED = "running", "finished", "pruned", "failed"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One configuration, and what became of it.

    Args:
      number: in the order in which trials were started, from 0.
      state: RUNNING, FINISHED, PRUNED or FAILED.
      parameters: what is varied, by key.
      step: the last one evaluated; None before the first.
      value: the best headline so far; None before the first evaluation.
      reason: why it failed.

    >>> trial = Trial(0, FINISHED, {"width": 8}, step=40, value=1.5)
    """

    number: int
    state: str
    parameters: Mapping[str, Any]
    step: int | None
    value: float | None
    reason: str = ""


def best_of(trials: Sequence[Trial], maximise: bool) -> Trial | None:
    """The finished trial with the best headline.

    Args:
      trials: all of a sweep.
      maximise: whether more of the headline is better.

    Returns:
      The first of equal ones; None if none finished.

    >>> trials = [Trial(n, FINISHED, {"width": 8}, 1, value) for n, value in enumerate((2.0, 1.0))]
    >>> best_of(trials, maximise=False).number
    1
    """
    finished = ranked([trial for trial in trials if trial.state == FINISHED], maximise)
    return finished[0] if finished else None


def ranked(trials: Sequence[Trial], maximise: bool) -> list[Trial]:
    """Finished trials from the best to the worst, then the others by number.

    Args:
      trials: all of a sweep.
      maximise: whether more of the headline is better.

    Returns:
      All of them.

    >>> trials = [Trial(n, FINISHED, {}, 1, value) for n, value in enumerate((2.0, 1.0))]
    >>> [trial.number for trial in ranked(trials, maximise=False)]
    [1, 0]
    """

    def rank(trial: Trial) -> tuple[bool, float, int]:
        value = trial.value if trial.state == FINISHED and trial.value is not None else 0.0
        return trial.state != FINISHED, -value if maximise else value, trial.number

    return sorted(trials, key=rank)


def counted(trials: Sequence[Trial]) -> str:
    """How many there are in each state.

    Args:
      trials: all of a sweep.

    Returns:
      Words; states that no trial is in are left out.

    >>> counted([Trial(n, state, {}, 1, 0.5) for n, state in enumerate((RUNNING, FAILED, FAILED))])
    '2 failed, 1 running'
    """
    states = [trial.state for trial in trials]
    return ", ".join(
        f"{states.count(state)} {state}"
        for state in (FINISHED, PRUNED, FAILED, RUNNING)
        if state in states
    )


def columns(keys: Sequence[str], headline: str) -> tuple[str, ...]:
    """What `cells` says of a trial.

    Args:
      keys: what is varied.
      headline: its name.

    Returns:
      The names of the cells.

    >>> columns(["width"], "loss")
    ('trial', 'state', 'width', 'step', 'loss', 'reason')
    """
    return ("trial", "state", *keys, "step", headline, "reason")


def cells(trial: Trial, keys: Sequence[str], digits: str = ".6g") -> tuple[str, ...]:
    """One row of the table.

    Args:
      trial: whose row it is.
      keys: what is varied.
      digits: how the headline is written; "" writes all of it.

    Returns:
      Words, as many as `columns`.

    >>> cells(Trial(3, FINISHED, {"width": 8}, 40, 1.5), ["width"])
    ('3', 'finished', '8', '40', '1.5', '')
    """
    return (
        str(trial.number),
        trial.state,
        *(as_flag(trial.parameters[key]) for key in keys),
        "" if trial.step is None else str(trial.step),
        "" if trial.value is None else format(trial.value, digits),
        trial.reason,
    )


def as_csv(trials: Sequence[Trial], keys: Sequence[str], headline: str) -> str:
    """The table for other programs.

    Args:
      trials: all of a sweep, by number.
      keys: what is varied.
      headline: its name.

    Returns:
      Lines; none of their words is a formula to a spreadsheet.

    >>> trials = [Trial(n, FINISHED, {"width": 8}, 1, value) for n, value in enumerate((2.0, 1.0))]
    >>> as_csv(trials, ["width"], "loss").splitlines()[1]
    '0,finished,8,1,2.0,'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_word, columns(keys, headline)))
    writer.writerows(map(_word, cells(trial, keys, digits="")) for trial in trials)
    return text.getvalue()


def _word(cell: str) -> str:
    """A cell that a spreadsheet shows, and does not calculate; numbers stay as they are.

    >>> [_word(cell) for cell in ("-1e-3", "=1+1", "+lstm")]
    ['-1e-3', "'=1+1", "'+lstm"]
    """
    cell = one_line(cell)
    if cell[:1] not in ("=", "+", "-", "@"):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


@plain_text
def parallel_coordinates(
    trials: Sequence[Trial],
    keys: Sequence[str],
    logarithmic: Sequence[str],
    headline: str,
    maximise: bool,
    path: Path,
) -> None:
    """Draws each finished trial as a line through its parameters to its headline.

    Good ones are dark; the best one is thick. The title says so.

    Args:
      trials: at least one of them finished.
      keys: what is varied; an axis each.
      logarithmic: those of `keys` whose axis is logarithmic.
      headline: name of the last axis.
      maximise: whether more of it is better.
      path: the PNG to write.

    >>> trial = Trial(0, FINISHED, {"width": 8}, 40, 1.5)
    >>> parallel_coordinates([trial], ["width"], [], "loss", False, Path("parallel.png"))
    """
    finished = [trial for trial in reversed(ranked(trials, maximise)) if trial.state == FINISHED]
    values = [trial.value for trial in finished if trial.value is not None]
    figure = Figure(figsize=(2.0 + 1.7 * len(keys), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    scales = [
        _Scale([trial.parameters[key] for trial in finished], key in logarithmic) for key in keys
    ]
    scales.append(_Scale(values, False, most=1))
    palette = matplotlib.colormaps["viridis_r" if maximise else "viridis"]
    norm = Normalize(*_limits(values))
    for trial, value in zip(finished, values, strict=True):
        row = [*(trial.parameters[key] for key in keys), value]
        heights = [scale.height(entry) for scale, entry in zip(scales, row, strict=True)]
        width = 3.0 if trial is finished[-1] else 1.2
        axes.plot(range(len(row)), heights, color=palette(norm(value)), linewidth=width)
    for position, scale in enumerate(scales):
        _draw_scale(axes, position, scale)
    axes.set_title(
        f"finished trials: {len(finished)}; thick: the best, trial {finished[-1].number}",
        fontsize=9,
        loc="left",
    )
    axes.set_xticks(range(len(scales)), [*keys, headline])
    axes.set_xlim(-0.2, len(keys) + 0.5)
    axes.set_ylim(-0.06, 1.06)
    axes.yaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    figure.colorbar(ScalarMappable(norm, palette), ax=axes, label=f"{headline}, {better(maximise)}")
    save(figure, path)


class _Scale:
    """Where values stand on an axis from 0 to 1: numbers by size, words by the alphabet.

    Args:
      values: all that are to stand there.
      logarithmic: whether numbers stand where their logarithms are.
      most: different numbers that are each written beside the axis; instead of more, five are.
    """

    def __init__(self, values: Sequence[Any], logarithmic: bool, most: int = 6):
        numbers = all(type(value) in (int, float) for value in values)
        self._order = None if numbers else sorted(set(map(as_flag, values)))
        self._log = logarithmic
        low, high = _limits([self._position(value) for value in values])
        self._low, self._high = low, high
        marks = dict(sorted((self._position(value), value) for value in values))
        if numbers and len(marks) > most:
            positions = np.linspace(low, high, 5).tolist()
            marks = {p: math.exp(p) if logarithmic else p for p in positions}
        found = list(marks.values())
        texts = told_apart(found) if numbers else [one_line(as_flag(v)) for v in found]
        self.ticks = [((p - low) / (high - low), t) for p, t in zip(marks, texts, strict=True)]

    def _position(self, value: Any) -> float:
        if self._order is not None:
            return float(self._order.index(as_flag(value)))
        return math.log(value) if self._log else float(value)

    def height(self, value: Any) -> float:
        return (self._position(value) - self._low) / (self._high - self._low)


def told_apart(numbers: Sequence[int | float]) -> list[str]:
    """Numbers with as few digits as tell them apart, at least four; whole numbers with all.

    Args:
      numbers: to be read side by side.

    Returns:
      A word each.

    >>> told_apart([0.999912, 0.999934, 1.0]), told_apart([512, 131072])
    (['0.99991', '0.99993', '1'], ['512', '131072'])
    """
    if all(isinstance(number, int) for number in numbers):
        return [str(number) for number in numbers]
    words = [f"{number:.4g}" for number in numbers]
    digits = 5
    while len(set(words)) < len(words) and digits < 17:
        words = [f"{number:.{digits}g}" for number in numbers]
        digits += 1
    return words


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Of an axis that shows all of them; some room where they are all the same."""
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _draw_scale(axes: Axes, position: int, scale: _Scale) -> None:
    axes.axvline(position, color="grey", linewidth=0.8, zorder=0)
    for height, text in scale.ticks:
        axes.annotate(
            text if len(text) <= 18 else text[:17] + "…",
            (position, height),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
        )


@plain_text
def importance_bars(
    importances: Mapping[str, float], headline: str, trials: int, path: Path
) -> None:
    """Draws how much each parameter matters for being among the better trials.

    Args:
      importances: by key, at least one; together 1.
      headline: what it is that differs.
      trials: how many finished, since few of them say little.
      path: the PNG to write.

    >>> importance_bars({"peak_lr": 0.8, "width": 0.2}, "loss", 12, Path("importance.png"))
    """
    ordered = sorted(importances.items(), key=lambda item: item[1])
    figure = Figure(figsize=(6.0, 1.2 + 0.4 * len(ordered)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = [share for _, share in ordered]
    axes.barh(range(len(ordered)), shares, color=matplotlib.color_sequences["tab10"][0])
    for position, share in enumerate(shares):
        axes.annotate(
            f"{share:.2f}",
            (share, position),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(ordered)), [key for key, _ in ordered])
    axes.set_xlim(0, 1.1)
    axes.set_xlabel(f"importance for {headline} (finished trials: {trials})")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)
