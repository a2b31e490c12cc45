"""Figures of training runs, drawn without a display."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Beyond this the smoothed line is what one reads; the raw points would only be a grey cloud.
_SMOOTHED_POINTS = 200


@dataclasses.dataclass(frozen=True)
class Curve:
    """One measured quantity of one run.

    Args:
      run: the run's name; curves of one run share a colour.
      split: what it was measured on, "train" or the name of an evaluation set.
      steps: optimizer steps, rising.
      seconds: wall time at those steps.
      values: what was measured.
    """

    run: str
    split: str
    steps: Sequence[int]
    seconds: Sequence[float]
    values: Sequence[float]


def loss_curves(curves: Sequence[Curve], quantity: str, path: Path) -> None:
    """Draws curves over steps (left) and over wall time (right) into one PNG.

    Training is a thin line (a running mean where there are many points), evaluation a line with
    markers.

    Args:
      curves: what to draw; may be empty.
      quantity: the label of the vertical axis.
      path: the PNG to write.

    Example:
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
    if curves:
        over_steps.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _draw(
    axes: Axes, curve: Curve, positions: Sequence[int] | Sequence[float], colour: object
) -> None:
    label = f"{curve.run} {curve.split}"
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

    Example:
      >>> running_mean([1.0, 3.0, 5.0], 2)
      [1.0, 2.0, 4.0]
    """
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - width) : end]
        means.append(sum(window) / len(window))
    return means
