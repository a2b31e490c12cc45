"""Layers inside other people's modules: plain Linen with Optax, and NNX through its bridge."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from recattn_jax.layers import LSTM, Dropout, SelfAttention, Serial

ROOT = Path(__file__).resolve().parents[2]


def scripts() -> list[str]:
    """The README's two scripts."""
    section = (ROOT / "README.md").read_text().split("## In your own project")[1].split("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def noisy(rngs: nnx.Rngs) -> Any:
    layers = Serial((LSTM(4), Dropout(0.5), SelfAttention(heads=2)))
    return nnx.bridge.ToNNX(layers, rngs=rngs).lazy_init(jnp.ones((1, 1, 3)))


def test_the_scripts_are_short_and_train() -> None:
    linen, bridged = scripts()
    names: dict[str, Any] = {}
    exec(linen, names)
    exec(bridged, names)
    assert all(len([s for s in text.splitlines() if s.strip()]) <= 15 for text in (linen, bridged))
    tagger, x = names["Tagger"](), names["x"]

    def error(params: Any) -> jax.Array:
        return ((tagger.apply(params, x) - x.cumsum(1)) ** 2).mean()

    assert error(names["params"]) < 0.7 * error(tagger.init(jax.random.key(1), x))
    norms = jax.tree.map(jnp.linalg.norm, nnx.to_pure_dict(names["gradients"]))
    assert len(jax.tree.leaves(norms)) == 9
    assert all(norm > 0 for norm in jax.tree.leaves(norms))


def test_nnx_gives_the_gradients_of_linen() -> None:
    layer, x = noisy(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (2, 5, 3))
    params = nnx.to_pure_dict(nnx.state(layer, nnx.Param))

    def linen(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(layer.to_nnx__module.apply({"params": params}, x)[0]))

    loss, gradients = nnx.jit(nnx.value_and_grad(lambda layer: jnp.sum(jnp.sin(layer(x)[0]))))(
        layer
    )
    wanted, d_params = jax.value_and_grad(linen)(params)
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
