"""Figures of what is seen inside hold whatever tokens say."""

import numpy as np
import pytest

from recattn_jax.analysis import inside_figures
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
