import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.decoding import Sampler, greedy, keep_top_k, keep_top_p
from recattn_jax.errors import UserError

B, V = 4, 23


def some_logits(seed: int = 0) -> jax.Array:
    return 3 * jax.random.normal(jax.random.key(seed), (B, V))


def test_greedy_takes_the_first_of_equals():
    assert greedy(jnp.array([[0.0, 2.0, 2.0], [1.0, 0.0, 0.0]])).tolist() == [1, 0]


@pytest.mark.parametrize("k", [1, 2, V - 1, V, V + 5])
def test_top_k_keeps_exactly_the_k_largest(k):
    logits = some_logits()
    kept = np.isfinite(keep_top_k(logits, k))
    assert kept.sum(axis=-1).tolist() == [min(k, V)] * B
    for row, mask in zip(np.asarray(logits), kept, strict=True):
        assert set(np.flatnonzero(mask)) == set(np.argsort(-row)[:k])


def test_top_k_keeps_exactly_k_of_equals():
    kept = np.isfinite(keep_top_k(jnp.zeros((1, 5)), 2))
    assert kept.tolist() == [[True, True, False, False, False]]


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.8, 0.99])
def test_top_p_keeps_the_smallest_set_that_reaches_p(p):
    logits = some_logits(1)
    kept = np.isfinite(keep_top_p(logits, p))
    probabilities = np.asarray(jax.nn.softmax(logits, axis=-1), np.float64)
    for row, mask in zip(probabilities, kept, strict=True):
        inside = np.sort(row[mask])
        assert mask.any()
        assert row[mask].min() >= row[~mask].max(initial=0)
        assert inside.sum() >= p - 1e-6
        assert inside[1:].sum() < p  # without the least likely of them it would not reach p


def test_kept_logits_are_unchanged():
    logits = some_logits(2)
    for kept in (keep_top_k(logits, 3), keep_top_p(logits, 0.7)):
        assert jnp.all((kept == logits) | jnp.isneginf(kept))


def test_top_p_of_one_changes_nothing_that_can_be_drawn():
    logits = some_logits(3)
    np.testing.assert_allclose(
        jax.nn.softmax(keep_top_p(logits, 1.0)), jax.nn.softmax(logits), atol=1e-6
    )


def test_draws_follow_the_tempered_distribution_of_what_is_kept():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.15, 0.1]]))
    sampler = Sampler(temperature=0.5, top_k=3, top_p=None)
    keys = jax.random.split(jax.random.key(0), 20_000)
    draws = np.asarray(jax.vmap(sampler, (0, None))(keys, logits))
    frequencies = np.bincount(draws.ravel(), minlength=4) / draws.size
    squares = np.array([0.5, 0.25, 0.15, 0.0]) ** 2  # temperature 1/2 squares probabilities
    np.testing.assert_allclose(frequencies, squares / squares.sum(), atol=0.012)


def test_filters_apply_after_the_temperature():
    # At temperature 2 the most likely symbol alone no longer reaches 0.6.
    logits = jnp.log(jnp.array([[0.7, 0.1, 0.1, 0.1]]))
    sampler = Sampler(temperature=2.0, top_k=None, top_p=0.6)
    keys = jax.random.split(jax.random.key(0), 200)
    assert len(np.unique(jax.vmap(sampler, (0, None))(keys, logits))) > 1


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        Sampler(**({"temperature": 1.0, "top_k": None, "top_p": None} | settings))
