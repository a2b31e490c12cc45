"""Figures of what a prediction depends on: attribution, effective context, gradient flow."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter

from recattn_jax.analysis.context import CLOSE, ContextCurve
from recattn_jax.analysis.figures import plain_text, save
from recattn_jax.analysis.inside_figures import inches, name_axes, name_columns
from recattn_jax.shapes import Float
from recattn_jax.untrusted import one_line

# matplotlib's own is mathematics, which is switched off for the sake of tokens.
_PLAIN = FuncFormatter(lambda value, _: f"{value:.2g}")
_BLUE, _RED = matplotlib.color_sequences["tab10"][0], matplotlib.color_sequences["tab10"][3]


@plain_text
def gradient_map(
    values_OT: Float[np.ndarray, "O T"],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    unit: str,
    path: Path,
) -> None:
    """Draws what each output owes to each input token; in two colours where some is negative.

    Args:
      values_OT: norms of gradients, or gradients times input.
      rows: the outputs.
      columns: the input tokens.
      title: above.
      unit: of the values.
      path: the PNG to write.

    >>> gradient_map(np.eye(3), list("abc"), list("xyz"), "eye", "nats", Path("map.png"))
    """
    outputs, tokens = values_OT.shape
    size = (inches(tokens) + 2.2, (inches(outputs) if outputs > 1 else 0.6) + 1.3)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    signed = bool(np.any(values_OT < 0))
    largest = float(np.max(np.abs(values_OT))) or 1.0
    # Even in the root: what a step owes to itself would leave the others without a colour.
    even = FuncNorm((_root, _square), vmin=-largest if signed else 0.0, vmax=largest)
    colours = "RdBu_r" if signed else "Blues"
    image = axes.imshow(values_OT, cmap=colours, norm=even, aspect="auto")
    name_axes(axes, rows, outputs, columns, tokens)
    axes.set_title(one_line(title, 80), fontsize=9)
    bar = figure.colorbar(image, ax=axes, fraction=0.05)
    bar.set_label(unit, fontsize=8)
    shares = (-1.0, -0.4, -0.1, 0.0, 0.1, 0.4, 1.0)
    bar.set_ticks([largest * share for share in (shares if signed else shares[3:])])
    bar.ax.yaxis.set_major_formatter(_PLAIN)
    bar.ax.tick_params(labelsize=7)
    save(figure, path)


def _root(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.sqrt(np.abs(values))


def _square(roots: np.ndarray) -> np.ndarray:
    return np.sign(roots) * np.square(roots)


@plain_text
def integrated(
    values_T: Float[np.ndarray, " T"], tokens: Sequence[str], title: str, path: Path
) -> None:
    """Draws what one output owes to each input token, as bars.

    Args:
      values_T: integrated gradients.
      tokens: the input tokens.
      title: above.
      path: the PNG to write.

    >>> integrated(np.array([0.5, -1.0]), ["a", "b"], "of c", Path("integrated.png"))
    """
    figure = Figure(figsize=(inches(len(values_T)) + 1.4, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = [_RED if value > 0 else _BLUE for value in values_T]
    axes.bar(range(len(values_T)), values_T, color=colours)
    axes.axhline(0.0, color="black", linewidth=0.6)
    axes.set_ylabel("nats", fontsize=8)
    axes.set_title(one_line(title, 80), fontsize=9)
    axes.set_xlim(-0.6, len(values_T) - 0.4)
    axes.tick_params(axis="y", labelsize=7)
    name_columns(axes, tokens, len(values_T))
    save(figure, path)


@plain_text
def context(curve: ContextCurve, path: Path) -> None:
    """Draws the loss against the tokens of context, with errors of its distance from the best.

    Args:
      curve: what was measured.
      path: the PNG to write.

    >>> curve = ContextCurve(np.array([1, 2]), np.array([[3.0, 2.0], [1.0, 0.5]]))
    >>> context(curve, Path("context.png"))
    """
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    best = float(curve.losses.min())
    axes.axhspan(best, best * (1 + CLOSE), color=_BLUE, alpha=0.15, label=f"within {CLOSE:.0%}")
    axes.errorbar(
        curve.lengths, curve.losses, curve.paired_errors, marker="o", markersize=3, capsize=3
    )
    axes.axvline(curve.effective, color="grey", linestyle=":", label=f"{curve.effective} tokens")
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve.lengths, [str(length) for length in curve.lengths])
    axes.set_xlabel("tokens of context", fontsize=8)
    axes.set_ylabel("nats a token", fontsize=8)
    title = f"loss of {curve.targets} tokens from more and more context, with paired errors"
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    save(figure, path)


@plain_text
def flow(flow_T: Float[np.ndarray, " T"], path: Path) -> None:
    """Draws how the gradient of the last output fades over lag, relative to the step itself.

    Args:
      flow_T: what `gradient_flow` returns.
      path: the PNG to write.

    >>> flow(np.array([1.0, 0.5, 0.25]), Path("flow.png"))
    """
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = flow_T / (flow_T[0] or 1.0)
    lags = np.arange(1, len(shares))
    axes.loglog(lags, np.maximum(shares[1:], 1e-12), color=_BLUE)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(LogFormatter())
        axis.set_minor_formatter(LogFormatter())  # names nothing where decades are enough
    axes.set_xlabel("lag in steps", fontsize=8)
    axes.set_ylabel("gradient of the last output, relative to lag 0", fontsize=8)
    axes.set_title("what reaches a later output", fontsize=9)
    axes.tick_params(labelsize=7, which="both")
    axes.grid(alpha=0.3)
    save(figure, path)
