"""Layers of one step: what dropout and embeddings do to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers


def test_a_bag_sums_the_vectors_of_its_ids_and_an_id_below_zero_is_nothing():
    ids = jnp.array([[[0, 3, -1], [2, -1, -1]], [[-1, -1, -1], [1, 1, 4]]])
    layer = layers.EmbedBag(5, 4, stddev=1.0)
    (y, _), variables = layer.init_with_output(jax.random.key(0), ids)
    table = np.asarray(variables["params"]["kernel"])
    expected = [[table[0] + table[3], table[2]], [0 * table[0], 2 * table[1] + table[4]]]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_a_bag_that_forgets_words_keeps_what_it_is_told_to():
    ids = jnp.broadcast_to(jnp.arange(4), (8, 64, 4))
    layer = layers.EmbedBag(4, 3, stddev=1.0, unknown=0.25, kept=1)
    variables = layer.init(jax.random.key(0), ids)
    table = np.asarray(variables["params"]["kernel"])
    y, _ = layer.apply(variables, ids, rngs={"dropout": jax.random.key(1)})
    whole = np.isclose(y, table.sum(axis=0), atol=1e-5).all(axis=-1)
    bare = np.isclose(y, table[0], atol=1e-5).all(axis=-1)
    assert (whole ^ bare).all() and 0.2 < bare.mean() < 0.3
    sure, _ = layer.apply(variables, ids)
    np.testing.assert_allclose(sure, np.broadcast_to(table.sum(axis=0), sure.shape), rtol=1e-5)
    with pytest.raises(ValueError, match="unknown=1.0 must be"):
        layers.EmbedBag(4, 3, stddev=1.0, unknown=1.0).init(jax.random.key(0), ids)
