"""Independent implementations to compare with: absent ones skip, or fail where required."""

import functools
import importlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest


def oracle(name: str) -> ModuleType:
    """Imports an oracle; without it the test skips, or fails under RECATTN_REQUIRE_ORACLES."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if os.environ.get("RECATTN_REQUIRE_ORACLES"):
            pytest.fail(f"{name} is not installed, and RECATTN_REQUIRE_ORACLES is set")
        pytest.skip(f"{name} is not installed: nothing to compare with")


def assert_close(got: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    """Each leaf within `tolerance` of its largest entry."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1e-30))


def assert_gradients_close(got: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    """Every gradient within `tolerance` of the global norm of all of them."""
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)
    ]
    norm = np.sqrt(sum(np.sum(b**2) for _, b in pairs))
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * norm)


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets a plain formula broadcast as numpy does, which this project's own code may not."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return function(*args)

    return run
