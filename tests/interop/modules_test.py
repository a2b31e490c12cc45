"""Layers inside NNX modules, through its bridge; in plain Linen ones: see `readme_test`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from recattn_jax.layers import LSTM, Dropout, SelfAttention, Serial


def noisy(rngs: nnx.Rngs) -> Any:
    layers = Serial((LSTM(4), Dropout(0.5), SelfAttention(heads=2)))
    return nnx.bridge.ToNNX(layers, rngs=rngs).lazy_init(jnp.ones((1, 1, 3)))


def test_nnx_gives_the_gradients_of_linen() -> None:
    layer, x = noisy(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (2, 5, 3))
    params = nnx.to_pure_dict(nnx.state(layer, nnx.Param))

    def linen(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(layer.to_nnx__module.apply({"params": params}, x)[0]))

    loss, gradients = nnx.jit(nnx.value_and_grad(lambda layer: jnp.sum(jnp.sin(layer(x)[0]))))(
        layer
    )
    wanted, d_params = jax.jit(jax.value_and_grad(linen))(params)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    for got, want in zip(
        jax.tree.leaves(nnx.to_pure_dict(gradients)), jax.tree.leaves(d_params), strict=True
    ):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_noise_in_nnx_is_the_presence_of_its_stream() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 3))
    layer = noisy(nnx.Rngs(0, dropout=1))

    @nnx.jit
    def train(layer: Any, x: jax.Array) -> jax.Array:
        return layer(x)[0]

    def quiet(layer: Any) -> jax.Array:
        return layer(x, rngs=nnx.Rngs())[0]

    first, second = train(layer, x), train(layer, x)
    assert (first != second).any()  # every call draws anew, under jit too
    layer.eval()
    assert (train(layer, x) != second).any()  # eval() does not reach through the bridge
    np.testing.assert_array_equal(quiet(layer), quiet(layer))
    plain = noisy(nnx.Rngs(0))  # the same parameters, and no stream of noise
    np.testing.assert_array_equal(quiet(plain), plain(x)[0])
    np.testing.assert_array_equal(quiet(layer), plain(x)[0])


def test_state_streams_through_nnx() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 3))
    layer = nnx.bridge.ToNNX(LSTM(4), rngs=nnx.Rngs(0)).lazy_init(x[:, :1])
    whole, _ = layer(x)
    head, state = layer(x[:, :3])
    tail, _ = layer(x[:, 3:], state)
    np.testing.assert_allclose(jnp.concatenate([head, tail], axis=1), whole, atol=1e-6)
