"""The same seed gives the same bits, in a new process too, also one that goes on half-way.

What changes them is measured by `python -m experiments.benchmarks.determinism`.
"""

import dataclasses
import os

import numpy as np
import pytest

from experiments.benchmarks.determinism import FIRST, VARIANTS, difference, losses, train, xla


@pytest.fixture(autouse=True)
def cores_can_be_chosen():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("only Linux lets a process be pinned to cores")


@pytest.mark.slow
def test_two_processes_find_the_same_bits(tmp_path):
    """A real experiment in tiny form; the second finds the programs that the first compiled."""
    hurried = xla(os.environ["XLA_FLAGS"])
    first, again = (
        train(tmp_path, name, dataclasses.replace(VARIANTS[name], env=hurried), steps=4)
        for name in (FIRST, "again")
    )
    assert difference(again, first) == {"same": True, "parameters": 0.0, "losses": 0.0}
    assert len(losses(first)) == 4 and np.all(np.isfinite(losses(first)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["again", "killed", "cold", "core", "8 again", "fsdp again"])
def test_what_promises_the_same_bits_gives_them(tmp_path, name):
    variant = VARIANTS[name]
    ours = train(tmp_path, "ours", variant, steps=30)
    theirs = train(tmp_path, "theirs", VARIANTS[variant.than], steps=30)
    assert difference(ours, theirs)["same"]


@pytest.mark.slow
def test_another_seed_gives_other_bits(tmp_path):
    first, other = (train(tmp_path, name, VARIANTS[name], steps=8) for name in (FIRST, "seed"))
    found = difference(other, first)
    assert not found["same"] and found["parameters"] > 0.1
