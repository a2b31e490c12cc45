"""Figures of training runs and of their results, drawn without a display."""

import dataclasses
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from recattn_jax.shapes import Int
from recattn_jax.untrusted import one_line

Counts = Int[np.ndarray, "C C"]
# Beyond this the smoothed line is what one reads; the raw points would only be a grey cloud.
_SMOOTHED_POINTS = 200
_LEGEND = 16  # curves; with more there is no room for them
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

    >>> save(Figure(), Path("empty.png"))
    """
    with warnings.catch_warnings():
        # A label may be in a script that the font does not have: boxes stand for it.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        figure.savefig(path, dpi=120, metadata={"Software": None})


@dataclasses.dataclass(frozen=True)
class Curve:
    """One measured quantity of one run.

    Args:
      run: the run's name; curves of one run share a colour.
      split: what it was measured on, "train" or the name of an evaluation set.
      steps: optimizer steps, rising.
      seconds: wall time at those steps.
      values: what was measured.

    >>> curve = Curve("a", "train", steps=[1, 2], seconds=[0.1, 0.2], values=[5.0, 4.0])
    """

    run: str
    split: str
    steps: Sequence[int]
    seconds: Sequence[float]
    values: Sequence[float]


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

    Training is a thin line (a running mean where there are many points), evaluation a line with
    markers.

    Args:
      curves: what to draw; may be empty.
      quantity: the label of the vertical axis.
      path: the PNG to write.

    >>> curve = Curve("a", "train", steps=[1, 2], seconds=[0.1, 0.2], values=[5.0, 4.0])
    >>> loss_curves([curve], "bits per byte", Path("curves.png"))
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    over_steps, over_time = figure.subplots(1, 2, sharey=True)
    runs = list(dict.fromkeys(curve.run for curve in curves))
    palette = matplotlib.color_sequences["tab10"]
    colours = {run: palette[index % len(palette)] for index, run in enumerate(runs)}
    for curve in curves:
        _draw(over_steps, curve, curve.steps, colours[curve.run])
        _draw(over_time, curve, [second / 60 for second in curve.seconds], colours[curve.run])
    over_steps.set(xlabel="step", ylabel=quantity)
    over_time.set(xlabel="wall time, minutes")
    for axes in (over_steps, over_time):
        axes.grid(alpha=0.3)
    handles, labels = over_steps.get_legend_handles_labels()
    if handles:
        more = f"of {len(handles)}, the first" if len(handles) > _LEGEND else None
        over_steps.legend(handles[:_LEGEND], labels[:_LEGEND], fontsize="small", title=more)
    save(figure, path)


def _draw(
    axes: Axes, curve: Curve, positions: Sequence[int] | Sequence[float], colour: object
) -> None:
    # matplotlib keeps labels that begin with _ to itself.
    label = re.sub("^_", " _", one_line(f"{curve.run} {curve.split}", LONGEST_LABEL))
    if curve.split == "train":
        values = running_mean(curve.values, max(1, len(curve.values) // _SMOOTHED_POINTS))
        axes.plot(positions, values, color=colour, linewidth=0.8, alpha=0.6, label=label)
    else:
        axes.plot(positions, curve.values, color=colour, marker="o", markersize=3, label=label)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and up to `width - 1` values before it.

    Args:
      values: in order.
      width: how many to average, at least 1.

    Returns:
      As many means as there are values.

    >>> running_mean([1.0, 3.0, 5.0], 2)
    [1.0, 2.0, 4.0]
    """
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - width) : end]
        means.append(sum(window) / len(window))
    return means


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
    figure = Figure(figsize=(3.1 * columns, 2.7 * rows), layout="constrained")
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
    ticks = [name.replace("+", "+\n") for name in panel.bars]
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
    axes.set_xlim(-0.6, len(panel.bars) - 0.4)
    axes.set_ylim(floor, top)
    better = "more is better" if panel.maximise else "less is better"
    cut = f"\naxis from {floor:.4g}" if floor else ""
    axes.set_ylabel(f"{panel.quantity}\n{better}{cut}", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


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
