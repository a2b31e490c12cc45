"""Figures of benchmarks, drawn without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]


class Lines(NamedTuple):
    """A panel of lines over a quantity, both axes logarithmic.

    Args:
      title: what is shown.
      across: the horizontal quantity.
      up: the vertical one.
      lines: points by name.
    """

    title: str
    across: str
    up: str
    lines: Mapping[str, Points]

    def draw(self, axes: Axes, colours: Mapping[str, object]) -> None:
        """Draws the panel."""
        for name, points in self.lines.items():
            axes.loglog(*zip(*points, strict=True), marker="o", label=name, color=colours[name])
        places = sorted({place for points in self.lines.values() for place, _ in points})
        axes.set_xticks(places, [f"{place:g}" for place in places], rotation=30)
        axes.set_xticks([], minor=True)
        axes.set(xlabel=self.across, ylabel=self.up, title=self.title)
        axes.grid(alpha=0.3)

    @property
    def names(self) -> list[str]:
        """What has a colour."""
        return list(self.lines)


class Course(NamedTuple):
    """A panel of lines over steps, both axes linear, with a dashed trend through each.

    Args:
      title: what is shown.
      up: the vertical quantity.
      lines: points by name.
      trends: the two ends of the trend of a line, by its name.
    """

    title: str
    up: str
    lines: Mapping[str, Points]
    trends: Mapping[str, Points]

    def draw(self, axes: Axes, colours: Mapping[str, object]) -> None:
        """Draws the panel."""
        for name, points in self.lines.items():
            axes.plot(*zip(*points, strict=True), label=name, color=colours[name], linewidth=0.8)
        for name, ends in self.trends.items():
            axes.plot(*zip(*ends, strict=True), color=colours[name], linestyle="--")
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])  # from 0, or noise looks like a trend
        axes.set(xlabel="steps", ylabel=self.up, title=self.title)
        axes.grid(alpha=0.3)

    @property
    def names(self) -> list[str]:
        """What has a colour."""
        return list(self.lines)


class Bars(NamedTuple):
    """A panel of bars in groups, its vertical axis logarithmic.

    Args:
      title: what is shown.
      up: the vertical quantity.
      groups: by group, values by name.
    """

    title: str
    up: str
    groups: Mapping[str, Mapping[str, float]]

    def draw(self, axes: Axes, colours: Mapping[str, object]) -> None:
        """Draws the panel."""
        names = self.names
        width = 0.8 / max(len(names), 1)
        for place, name in enumerate(names):
            some = [(i, g[name]) for i, g in enumerate(self.groups.values()) if name in g]
            where = [i + width * (place - (len(names) - 1) / 2) for i, _ in some]
            axes.bar(where, [v for _, v in some], width, label=name, color=colours[name])
        axes.set_yscale("log")
        axes.set_xticks(range(len(self.groups)), list(self.groups), fontsize=8)
        axes.set(ylabel=self.up, title=self.title)
        axes.grid(axis="y", alpha=0.3)

    @property
    def names(self) -> list[str]:
        """What has a colour."""
        return list(dict.fromkeys(name for group in self.groups.values() for name in group))


def panels(some: Sequence[Lines | Course | Bars], path: Path, columns: int = 2) -> None:
    """Draws panels side by side into one PNG; a name has one colour in all of them.

    Args:
      some: at least one.
      path: the PNG to write.
      columns: panels in a row.
    """
    columns = min(columns, len(some))
    rows = -(-len(some) // columns)
    figure = Figure(figsize=(5.5 * columns, 4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    names = list(dict.fromkeys(name for panel in some for name in panel.names))
    palette = matplotlib.color_sequences["tab20" if len(names) > 10 else "tab10"]
    colours = {name: palette[i % len(palette)] for i, name in enumerate(names)}
    for axes, panel in zip(grid, some, strict=False):
        panel.draw(axes, colours)
        axes.legend(fontsize="x-small")
    for axes in grid[len(some) :]:
        axes.remove()
    figure.savefig(path, dpi=120, metadata={"Software": None})
