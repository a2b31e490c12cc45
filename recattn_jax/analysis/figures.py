"""Figures of training runs and of their results, drawn without a display."""

import dataclasses
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from recattn_jax.files import write_atomically
from recattn_jax.shapes import Float, Int
from recattn_jax.untrusted import one_line

Counts = Int[np.ndarray, "C C"]
POINTS = 200
"""That a curve is drawn with; more would only be a grey cloud."""
_NAMES = 10  # whose curves are drawn: as many as there are colours
LONGEST_LABEL = 48
"""Characters; the rest of a longer label is left out."""
MOST_CLASSES = 400
"""That a confusion matrix is drawn of; nobody could read one of more."""

# Names of runs, labels and parameters are text, also where they hold a $.
plain_text = matplotlib.rc_context({"text.parse_math": False})


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, the same bytes for the same figure.

    Args:
      figure: drawn under `plain_text`.
      path: the file.

    Raises:
      StorageError: it cannot be written.

    >>> save(Figure(), Path("empty.png"))
    """
    content = io.BytesIO()
    with warnings.catch_warnings():
        # A label may be in a script that the font does not have: boxes stand for it.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        figure.savefig(content, format="png", dpi=120, metadata={"Software": None})
    write_atomically(path, content.getvalue())


@dataclasses.dataclass(frozen=True)
class Curve:
    """One measured quantity of N runs that differ in nothing but their seed.

    Args:
      name: whose; curves of one name share a colour.
      split: what it was measured on, "train" or the name of an evaluation set.
      steps_T: optimizer steps, rising.
      seconds_NT: wall time at those steps; nan where a run has no number.
      values_NT: what was measured, likewise.

    >>> seconds_NT, values_NT = np.array([[0.1], [0.2]]), np.array([[4.0], [2.0]])
    >>> curve = Curve("a", "train", np.array([1]), seconds_NT, values_NT)
    >>> curve.mean_T.tolist(), curve.minutes_T.shape
    ([3.0], (1,))
    """

    name: str
    split: str
    steps_T: Int[np.ndarray, "T"]
    seconds_NT: Float[np.ndarray, "N T"]
    values_NT: Float[np.ndarray, "N T"]

    @property
    def runs_T(self) -> Int[np.ndarray, "T"]:
        """How many runs have a number at each step."""
        return np.isfinite(self.values_NT).sum(axis=0)

    @property
    def mean_T(self) -> Float[np.ndarray, "T"]:
        """The mean over the runs that have a number; nan where none has."""
        return _mean(self.values_NT, axis=0)

    @property
    def low_T(self) -> Float[np.ndarray, "T"]:
        """The least of them."""
        return np.fmin.reduce(self.values_NT, axis=0)

    @property
    def high_T(self) -> Float[np.ndarray, "T"]:
        """The largest of them."""
        return np.fmax.reduce(self.values_NT, axis=0)

    @property
    def minutes_T(self) -> Float[np.ndarray, "T"]:
        """Where each step stands on an axis of time: as much later as it was in the mean run.

        So it goes on from where it was when a slow run ends before the others do.
        """
        seconds_NT = self._filled_NT
        first, later_T = _mean(seconds_NT[:, :1], axis=0), _mean(np.diff(seconds_NT), axis=0)
        return np.cumsum(np.concatenate([np.nan_to_num(first), np.nan_to_num(later_T)])) / 60

    @property
    def _filled_NT(self) -> Float[np.ndarray, "N T"]:
        """The seconds, also where a run lacks a step between two others."""
        return np.stack([_between(self.steps_T, seconds_T) for seconds_T in self.seconds_NT])

    def thinned(self, most: int) -> "Curve":
        """The same with fewer points: each is the mean of its neighbours, at the last of them.

        Args:
          most: how many points there may be.
        """
        width = -(-len(self.steps_T) // most)
        if width <= 1:
            return self
        ends = np.append(np.arange(width, len(self.steps_T), width), len(self.steps_T)) - 1
        padding = ((0, 0), (0, -len(self.steps_T) % width))
        padded_NT = np.pad(self.values_NT, padding, constant_values=np.nan)
        return dataclasses.replace(
            self,
            steps_T=self.steps_T[ends],
            seconds_NT=self._filled_NT[:, ends],
            values_NT=_mean(padded_NT.reshape(len(padded_NT), -1, width), axis=-1),
        )


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Of the numbers among them; nan where there is none."""
    there = np.isfinite(values)
    sums = np.where(there, values, 0.0).sum(axis=axis)
    counts = there.sum(axis=axis)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _between(steps_T: np.ndarray, values_T: np.ndarray) -> np.ndarray:
    """The same, with what is missing between two numbers put in; nan before and after them."""
    there_T = np.isfinite(values_T)
    if not there_T.any():
        return values_T
    return np.interp(steps_T, steps_T[there_T], values_T[there_T], left=np.nan, right=np.nan)


@dataclasses.dataclass(frozen=True)
class Panel:
    """What is compared in one experiment.

    Args:
      title: the experiment.
      quantity: what is compared.
      maximise: whether more of it is better.
      bars: by what is compared, its value for each seed, at least one.

    >>> panel = Panel("adding", "loss (test)", maximise=False, bars={"lstm": [0.1, 0.2]})
    """

    title: str
    quantity: str
    maximise: bool
    bars: Mapping[str, Sequence[float]]


@plain_text
def loss_curves(curves: Sequence[Curve], quantity: str, path: Path) -> None:
    """Draws curves over steps (left) and over wall time (right) into one PNG.

    A line is the mean over runs, the band behind it reaches from the least to the largest. It is
    dotted where not all of its runs have a number. Training is a thin line, evaluation one with
    markers. Of more than `POINTS` points neighbours are drawn as their mean. Where there are more
    names than colours only the first are drawn, and the legend says so.

    Args:
      curves: what to draw, name by name; may be empty.
      quantity: the label of the vertical axis.
      path: the PNG to write.

    >>> seconds_NT, values_NT = np.array([[0.1, 0.2]]), np.array([[5.0, 4.0]])
    >>> curve = Curve("a", "train", np.array([1, 2]), seconds_NT, values_NT)
    >>> loss_curves([curve], "bits per byte", Path("curves.png"))
    """
    names = list(dict.fromkeys(curve.name for curve in curves))
    colours = dict(zip(names, matplotlib.color_sequences["tab10"][:_NAMES], strict=False))
    figure = Figure(figsize=(11, 4.4 + 0.2 * math.ceil(len(colours) / 2)), layout="constrained")
    FigureCanvasAgg(figure)
    over_steps, over_time = figure.subplots(1, 2, sharey=True)
    handles = {}
    for curve in (curve.thinned(POINTS) for curve in curves if curve.name in colours):
        handles[curve.name] = _draw(over_steps, curve, curve.steps_T, colours[curve.name])
        _draw(over_time, curve, curve.minutes_T, colours[curve.name])
    over_steps.set(xlabel="step", ylabel=quantity)
    over_time.set(xlabel="wall time, minutes")
    for axes in (over_steps, over_time):
        axes.grid(alpha=0.3)
    if handles:
        few = f"the first {len(handles)} of {len(names)}; " if len(names) > len(handles) else ""
        figure.legend(
            list(handles.values()),
            [str(line.get_label()) for line in handles.values()],
            title=f"{few}thin: training, with markers: evaluation",
            loc="outside lower center",
            ncols=2,
            fontsize="small",
            title_fontsize="small",
        )
    save(figure, path)


def _draw(axes: Axes, curve: Curve, positions_T: np.ndarray, colour: object) -> Line2D:
    count = f", {len(curve.values_NT)} runs" if len(curve.values_NT) > 1 else ""
    # matplotlib keeps labels that begin with _ to itself.
    label = re.sub("^_", " _", one_line(curve.name, LONGEST_LABEL)) + count
    how: dict[str, Any] = dict(color=colour, marker="o", markersize=3)
    if curve.split == "train":
        how = dict(color=colour, linewidth=0.8, alpha=0.6)
    all_T = curve.runs_T == len(curve.values_NT)
    (line,) = axes.plot(positions_T, np.where(all_T, curve.mean_T, np.nan), label=label, **how)
    if not all_T.all():
        beside_T = np.convolve(~all_T, [1, 1, 1], "same") > 0
        axes.plot(positions_T, np.where(beside_T, curve.mean_T, np.nan), linestyle=":", **how)
    if count:
        low_T, high_T = curve.low_T, curve.high_T
        axes.fill_between(positions_T, low_T, high_T, color=colour, alpha=0.15, linewidth=0)
    return line


@plain_text
def comparison(panels: Sequence[Panel], path: Path) -> None:
    """Draws a small panel for each experiment: a bar for each mean, a point for each seed.

    Where the bars are close, the vertical axis begins above zero, and says so.

    Args:
      panels: what to draw, at least one.
      path: the PNG to write.

    >>> panel = Panel("sst2", "accuracy", True, {"lstm": [0.80, 0.81], "attention": [0.78]})
    >>> comparison([panel], Path("results.png"))
    """
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    width = max(3.1, math.fsum(map(_width, panels)) / len(panels))
    figure = Figure(figsize=(width * columns, 2.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    names = list(dict.fromkeys(name for panel in panels for name in panel.bars))
    palette = matplotlib.color_sequences["tab10"]
    colours = {name: palette[index % len(palette)] for index, name in enumerate(names)}
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, panel, colours)
    for axes in grid[len(panels) :]:
        axes.remove()
    save(figure, path)


def _width(panel: Panel) -> float:
    """The inches that its names need beside each other."""
    lines = [line for name in panel.bars for line in _tick(name).splitlines()]
    return 0.6 + len(panel.bars) * (0.1 + 0.062 * max(map(len, lines), default=0))


def _tick(name: str) -> str:
    """A name with a line for each of its parts."""
    return re.sub(r"(?<=\+)| ", "\n", one_line(name, LONGEST_LABEL))


def _draw_panel(axes: Axes, panel: Panel, colours: Mapping[str, object]) -> None:
    values = [value for seeds in panel.bars.values() for value in seeds]
    floor = axis_floor(values)
    top = floor + 1.18 * ((max(values) - floor) or 1.0)
    for position, (name, seeds) in enumerate(panel.bars.items()):
        mean = math.fsum(seeds) / len(seeds)
        axes.bar(position, mean - floor, 0.7, bottom=floor, color=colours[name], alpha=0.55)
        spread = [position + 0.12 * (i - (len(seeds) - 1) / 2) for i in range(len(seeds))]
        axes.plot(spread, seeds, "o", color="black", markersize=3)
        axes.annotate(
            f"{mean:#.4g}",
            (position, max(seeds)),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.set_title(panel.title, fontsize=10)
    ticks = [_tick(name) for name in panel.bars]
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
    axes.set_xlim(-0.6, len(panel.bars) - 0.4)
    axes.set_ylim(floor, top)
    cut = f"\naxis from {floor:.4g}" if floor else ""
    axes.set_ylabel(f"{panel.quantity}\n{better(panel.maximise)}{cut}", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def better(maximise: bool) -> str:
    """Which direction is better, in words.

    Args:
      maximise: whether more of it is.

    Returns:
      A few words.

    >>> better(True)
    'more is better'
    """
    return "more is better" if maximise else "less is better"


def axis_floor(values: Sequence[float]) -> float:
    """Where an axis begins, so that bars for these values can be told apart.

    Args:
      values: at least one.

    Returns:
      0 if they differ by much, the least if it is below that; otherwise a round number as far below
      the least as they are apart, so that the least keeps half the height of the largest.

    >>> axis_floor([0.81, 0.83]), axis_floor([0.2, 0.8]), axis_floor([28.4, 33.1])
    (0.79, 0.0, 23.0)
    """
    least, apart = min(values), max(values) - min(values)
    if least <= 0 or apart > least / 3:
        return min(0.0, least)
    apart = max(apart, 0.01 * least)
    if not apart:  # of a number so small that a hundredth of it is none
        return 0.0
    step = 10.0 ** math.floor(math.log10(apart))
    return round(math.floor((least - apart) / step + 1e-9) * step, 12)


@plain_text
def confusion(counts_CC: Counts, names: Sequence[str], path: Path) -> None:
    """Draws a confusion matrix: counts as numbers, each row's shares as colours.

    Args:
      counts_CC: a row for each right class, a column for each predicted one.
      names: C of them.
      path: the PNG to write.

    >>> confusion(np.array([[8, 2], [1, 9]]), ["no", "yes"], Path("confusion.png"))
    """
    classes = len(names)
    cell = max(2.2 / classes, 0.36)  # inches
    side = 1.8 + cell * classes
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares_CC, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, label="share of the right class", shrink=0.8)
    for (row, column), count in np.ndenumerate(counts_CC):
        if count:
            colour = "white" if shares_CC[row, column] > 0.5 else "black"
            size = min(9.0, 108.0 * cell / len(str(count)))
            axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=size)
    names = [one_line(name, LONGEST_LABEL) for name in names]
    tilt = 90 if classes > 6 or max(map(len, names)) > 8 else 0
    axes.set_xticks(range(classes), names, fontsize=8, rotation=tilt)
    axes.set_yticks(range(classes), names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="right")
    save(figure, path)
