"""Damage to a checkpoint is harmless or found."""

import pytest

from tests.faults import flips


@pytest.fixture(scope="module")
def reader():
    return flips.Reader()


@pytest.fixture(scope="module")
def good(reader, whole):
    return flips.undamaged(reader, whole)


def tell(reader, whole, good, numbers):
    told = [flips.story(reader, whole, 0, number, good) for number in numbers]
    wrong = [one for one in told if one["result"] not in ("harmless", "found")]
    assert not wrong, wrong
    return told


def test_damage_anywhere_is_harmless_or_found(reader, whole, good):
    told = tell(reader, whole, good, range(16))
    assert {one["result"] for one in told} == {"harmless", "found"}


@pytest.mark.slow
def test_damage_anywhere_a_hundred_times(reader, whole, good):
    tell(reader, whole, good, range(1000, 1100))
