import pytest

from recattn_jax.errors import UserError
from recattn_jax.training import Span


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((2, 1), "low must be below high"),
        ((1, 1), "low must be below high"),
        ((0, 1, True), "must begin above 0"),
        ((float("nan"), 1), "finite"),
        ((1, float("inf")), "finite"),
        ((True, 2), "finite numbers"),
    ],
)
def test_a_span_without_a_number_in_it_is_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        Span(*arguments)


def test_a_span_may_be_of_whole_numbers():
    assert type(Span(1, 4).low) is int and type(Span(0.0, 4.0).low) is float
