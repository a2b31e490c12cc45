"""Figures of what is seen inside hold whatever tokens say."""

import numpy as np
import pytest

from recattn_jax.analysis import attribution_figures, inside_figures
from recattn_jax.analysis.context import ContextCurve
from recattn_jax.analysis.inside import AttentionMap, RecurrenceTrace

TOKENS = ["$x^$", "\x1b[31m", "a\nb", " ", "\u4e2d", "<separator>", "a" * 500]


def test_any_token_is_a_label(tmp_path) -> None:
    """Neither mathematics nor escape sequences, and as wide as the others."""
    count = len(TOKENS)
    weights = np.full((5, count, count), 1 / count)
    inside_figures.attention(
        AttentionMap("a$b", "self", weights), TOKENS, TOKENS, tmp_path / "a.png"
    )
    carries = (np.zeros((count, 3)),)
    for name, gates in (("gated", {"update": np.ones((count, 3))}), ("plain", {})):
        trace = RecurrenceTrace("a$b", "GRU", carries, gates)
        inside_figures.recurrence(trace, TOKENS, tmp_path / f"{name}.png")
    inside_figures.losses(np.arange(count, dtype=float), TOKENS, tmp_path / "losses.png")
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("tokens", [1, 96, 97, 512])
def test_the_size_fits_the_text(tokens: int) -> None:
    assert 1.6 <= inside_figures.inches(tokens) <= 17


def test_any_token_is_a_label_of_attributions(tmp_path) -> None:
    count = len(TOKENS)
    values = np.random.default_rng(0).normal(size=(count, count))
    figures = attribution_figures
    figures.gradient_map(values, TOKENS, TOKENS, "a$b", "nats", tmp_path / "signed.png")
    figures.gradient_map(
        np.abs(values[:1]), TOKENS[:1], TOKENS, "a$b", "nats", tmp_path / "norm.png"
    )
    figures.gradient_map(0 * values, TOKENS, TOKENS, "nothing", "nats", tmp_path / "nothing.png")
    figures.integrated(values[0], TOKENS, "a$b", tmp_path / "integrated.png")
    curve = ContextCurve(np.array([1, 2]), np.array([[2.0, 3.0], [1.0, 1.5]]))
    figures.context(curve, tmp_path / "context.png")
    figures.flow(np.array([1.0, 0.1, 0.0]), tmp_path / "flow.png")
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("last", [0.02, 1e-9])
def test_ticks_of_gradient_flow_are_plain_numbers(last, tmp_path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(attribution_figures, "save", lambda figure, path: drawn.append(figure))
    attribution_figures.flow(np.array([1.0, 0.2, last]), tmp_path / "flow.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    (axes,) = figure.axes
    labels = [label for which in ("major", "minor") for label in axes.get_yticklabels(which=which)]
    named = [label.get_text() for label in labels if label.get_text()]
    assert named and all(float(text.replace("\N{MINUS SIGN}", "-")) > 0 for text in named)


def test_norms_are_no_hidden_units(tmp_path) -> None:
    trace = RecurrenceTrace("a", "MLSTM", (np.ones((7, 2)),), {"forget": np.ones((7, 2))}, True)
    inside_figures.recurrence(trace, TOKENS, tmp_path / "norms.png")
    assert (tmp_path / "norms.png").exists()
