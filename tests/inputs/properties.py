"""What holds for every input: a few by default, many in slow tests, the same ones every time."""

from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

# Text as people and machines write it: any letter, and what is known to break programs.
NASTY = st.sampled_from(
    (
        "", " ", "\n", "\r\n", "\r", "\x00", "\ufeff", "\u2028", "\x85", "\x0b", "\x1b[31m",
        "e\u0301", "\u05d0\u05d1", "\u202e", "\U0001f600", "\U0001f468\u200d\U0001f469", "\u0130",
        "\ufb01", "\u2581", "<unk>", "<s>", "<separator>", "a" * 99, "\t", "\u00a0", "\u3000",
        "\uffff", "3.14", "U.S.A.", "don't", "\u00df", "\ud800", "\udfff",
    )
)  # fmt: skip
ANY_TEXT = st.lists(st.one_of(NASTY, st.text(max_size=9)), max_size=8).map("".join)
TEXT = ANY_TEXT.map(lambda text: text.encode("utf-8", "ignore").decode())
"""The same, but what is no Unicode."""


def holds(**given: st.SearchStrategy) -> Callable[[Callable[..., None]], Any]:
    """A test that a body holds for what strategies give."""

    def decorate(body: Callable[..., None]) -> Any:
        many = hypothesis.given(**given)(body)

        @pytest.mark.parametrize("count", [8, pytest.param(1000, marks=pytest.mark.slow)])
        def test(count: int) -> None:
            hypothesis.settings(
                max_examples=count,
                phases=[p for p in hypothesis.Phase if p not in (hypothesis.Phase.explain,)],
                derandomize=True,
                deadline=None,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            )(many)()

        test.__name__ = body.__name__
        test.__doc__ = body.__doc__
        return test

    return decorate
