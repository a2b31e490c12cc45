"""Figures of what was seen inside of a run: maps of attention, gates, hidden states, losses."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from recattn_jax.analysis.figures import plain_text, save
from recattn_jax.analysis.inside import AttentionMap, RecurrenceTrace
from recattn_jax.shapes import Float
from recattn_jax.untrusted import one_line

_CELL = 0.17  # inches of a token
_UNNAMED = 6.0  # inches of all tokens, where there are too many for names
_LONGEST_TOKEN = 12
_MOST_NAMED = 96
"""Tokens that an axis has names for; steps are counted on a longer one."""
_ACROSS = 4  # heads side by side


@plain_text
def attention(
    seen: AttentionMap, rows: Sequence[str] | None, columns: Sequence[str] | None, path: Path
) -> None:
    """Draws the heads of a layer side by side: each row looks along its columns.

    Args:
      seen: the map.
      rows: names of what looks; None for numbers.
      columns: names of what is looked at.
      path: the PNG to write.

    >>> seen = AttentionMap("body", "self", np.eye(3)[None])
    >>> attention(seen, list("abc"), list("abc"), Path("attention.png"))
    """
    heads, height, width = seen.weights.shape
    across = min(heads, _ACROSS)
    down = math.ceil(heads / across)
    size = (across * (inches(width) + 0.9) + 0.9, down * (inches(height) + 1.0) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    most = float(np.max(seen.weights)) or 1.0  # of a long text all weights are small
    for head, axes in enumerate(panels[:heads]):
        image = axes.imshow(seen.weights[head], cmap="Blues", vmin=0.0, vmax=most, aspect="auto")
        axes.set_title(f"head {head}", fontsize=8)
        name_axes(axes, rows, height, columns, width)
    for axes in panels[heads:]:
        axes.remove()
    figure.colorbar(image, ax=panels[:heads], label="weight", fraction=0.05)
    figure.suptitle(one_line(f"{seen.path} ({seen.kind})", 80), fontsize=9)
    save(figure, path)


@plain_text
def recurrence(seen: RecurrenceTrace, steps: Sequence[str], path: Path) -> None:
    """Draws the gates of a recurrent layer, means over its units or heads, above its hidden state.

    Of linear attention the norms of the matrices of its heads stand for the hidden state.

    Args:
      seen: the trace.
      steps: names of the steps.
      path: the PNG to write.

    >>> seen = RecurrenceTrace("body", "GRU", (np.ones((3, 4)),), {"update": np.ones((3, 4))})
    >>> recurrence(seen, list("abc"), Path("recurrence.png"))
    """
    hidden_TH = seen.carries[0]
    length, units = hidden_TH.shape
    gated = bool(seen.gates)
    unit = "head" if seen.norms else "hidden unit"
    size = (inches(length) + 2.4, 1.0 + 2.2 * gated + min(4.0, max(1.5, 0.06 * units)))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1 + gated, 1, squeeze=False, sharex=True)[:, 0]
    if gated:
        for name, gate_TH in seen.gates.items():
            panels[0].plot(gate_TH.mean(axis=1), marker="o", markersize=2, label=name)
        panels[0].set_ylabel(f"mean over {unit}s", fontsize=8)
        panels[0].grid(alpha=0.3)
        panels[0].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    largest = float(np.max(np.abs(hidden_TH))) or 1.0
    lowest, colours = (0.0, "Blues") if seen.norms else (-largest, "RdBu_r")
    image = panels[-1].imshow(hidden_TH.T, cmap=colours, vmin=lowest, vmax=largest, aspect="auto")
    panels[-1].set_ylabel(unit, fontsize=8)
    panels[-1].tick_params(axis="y", labelsize=7)
    name_columns(panels[-1], steps, length)
    what = "norm of the state" if seen.norms else "hidden state"
    figure.colorbar(image, ax=panels[-1], label=what)
    figure.suptitle(one_line(f"{seen.path} ({seen.cell})", 80), fontsize=9)
    save(figure, path)


@plain_text
def losses(nats_T: Float[np.ndarray, " T"], expected: Sequence[str], path: Path) -> None:
    """Draws how much each token surprised the model.

    Args:
      nats_T: the loss of each.
      expected: the tokens.
      path: the PNG to write.

    >>> losses(np.array([2.0, 0.5]), ["a", "b"], Path("losses.png"))
    """
    figure = Figure(figsize=(inches(len(nats_T)) + 1.2, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.bar(range(len(nats_T)), nats_T, color=matplotlib.color_sequences["tab10"][0])
    axes.set_ylabel("nats", fontsize=8)
    axes.set_title(f"loss of each token, mean {np.mean(nats_T):.3f} nats", fontsize=9)
    axes.set_xlim(-0.6, len(nats_T) - 0.4)
    axes.tick_params(axis="y", labelsize=7)
    name_columns(axes, expected, len(nats_T))
    save(figure, path)


def inches(tokens: int) -> float:
    """How long an axis is.

    Args:
      tokens: that stand on it.

    Returns:
      Inches; of many tokens, which have no names, always as many.

    >>> inches(500)
    6.0
    """
    return max(_CELL * tokens, 1.6) if tokens <= _MOST_NAMED else _UNNAMED


def name_axes(
    axes: Axes, rows: Sequence[str] | None, height: int, columns: Sequence[str] | None, width: int
) -> None:
    """Names the steps on both axes of a map, where there is room for names.

    Args:
      axes: to name.
      rows: names of the rows; None for numbers.
      height: how many rows.
      columns: names of the columns; None for numbers.
      width: how many columns.

    >>> name_axes(Figure().subplots(), list("ab"), 2, list("abc"), 3)
    """
    name_columns(axes, columns, width)
    if rows is not None and height <= _MOST_NAMED:
        axes.set_yticks(range(height), [_label(name) for name in rows], fontsize=6)
    else:
        axes.tick_params(axis="y", labelsize=6)
    if height == 1:
        axes.set_yticks([])


def name_columns(axes: Axes, names: Sequence[str] | None, length: int) -> None:
    """Names the steps on the horizontal axis, where there is room for names.

    Args:
      axes: to name.
      names: of the steps; None for numbers.
      length: how many.

    >>> name_columns(Figure().subplots(), list("abc"), 3)
    """
    if names is not None and length <= _MOST_NAMED:
        labels = [_label(name) for name in names]
        tilt = 90 if max(map(len, labels)) > 1 else 0
        axes.set_xticks(range(length), labels, fontsize=6, rotation=tilt)
    else:
        axes.tick_params(axis="x", labelsize=6)


def _label(token: str) -> str:
    """A token on an axis, where a space would not be seen."""
    return one_line(token, _LONGEST_TOKEN).replace(" ", "\u2423")
