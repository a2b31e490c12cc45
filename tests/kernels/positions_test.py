"""Positions against plain loops."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.kernels import positions
from tests.oracles import assert_close


def t5_bucket(key_minus_query: int, buckets: int, longest: int, causal: bool) -> int:
    """The paper's rule, for one distance."""
    first = 0
    if not causal:
        buckets //= 2
        first = buckets if key_minus_query > 0 else 0
    away = max(-key_minus_query, 0) if causal else abs(key_minus_query)
    exact = buckets // 2
    if away < exact:
        return first + away
    place = math.log(away / exact) / math.log(longest / exact) * (buckets - exact)
    return first + min(exact + math.floor(place + 1e-9), buckets - 1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("buckets", "longest"), [(32, 128), (8, 16), (10, 50), (4, 4)])
def test_t5_buckets(buckets: int, longest: int, causal: bool) -> None:
    distance = np.arange(-300, 301)
    got = positions.relative_buckets(jnp.asarray(distance), buckets, longest, causal)
    assert got.tolist() == [t5_bucket(-int(d), buckets, longest, causal) for d in distance]


def test_alibi_slopes() -> None:
    assert_close(positions.alibi_slopes(8), [2.0**-h for h in range(1, 9)], 1e-7)
    # Twelve heads: those of eight, then every second one of sixteen.
    every_second = [2.0 ** (-0.5 * h) for h in (1, 3, 5, 7)]
    assert_close(positions.alibi_slopes(12)[:8], positions.alibi_slopes(8), 1e-7)
    assert_close(positions.alibi_slopes(12)[8:], every_second, 1e-7)


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoids(width: int) -> None:
    at = np.array([[0, 1, 5], [1000, 2, 3]])
    wanted = np.zeros((2, 3, width))
    for b, t, channel in np.ndindex(wanted.shape):
        angle = at[b, t] / 10_000.0 ** ((channel - channel % 2) / width)
        wanted[b, t, channel] = math.cos(angle) if channel % 2 else math.sin(angle)
    assert_close(positions.sinusoids(jnp.asarray(at), width), wanted, 1e-4)
