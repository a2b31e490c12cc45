"""A memory of past outputs, against a plain loop that keeps them all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers
from recattn_jax.layers import Context
from tests.oracles import assert_close, assert_gradients_close

X = jax.random.normal(jax.random.key(0), (2, 7, 4))


def test_against_a_loop() -> None:
    body = layers.Serial((layers.LSTM(4), layers.Residual(layers.CrossAttention(heads=2))))
    layer = layers.FeedbackMemory(body, window=3)
    variables = jax.jit(layer.init)(jax.random.key(1), X)
    noise = np.random.default_rng(2)
    params = jax.tree.map(lambda a: a + 0.3 * noise.normal(size=a.shape), variables["params"])

    def got(params, x):
        y, _ = layer.apply({"params": params}, x)
        return jnp.sum(jnp.sin(3 * y)), y

    def wanted(params, x):
        state, outputs = None, []
        for t in range(x.shape[1]):
            past = outputs[-3:] or [jnp.zeros((2, 1, 4))]
            numbers = jnp.full((2, len(past)), 1 if outputs else 0)
            context = Context(memory=jnp.concatenate(past, axis=1), memory_segments=numbers)
            y, state = body.apply({"params": params["body"]}, x[:, t : t + 1], state, context)
            outputs.append(y)
        y = jnp.concatenate(outputs, axis=1)
        return jnp.sum(jnp.sin(3 * y)), y

    (_, y), d = jax.jit(jax.value_and_grad(got, (0, 1), has_aux=True))(params, X)
    (_, y_wanted), d_wanted = jax.jit(jax.value_and_grad(wanted, (0, 1), has_aux=True))(params, X)
    assert_close(y, y_wanted)
    assert_gradients_close(d, d_wanted)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (layers.FeedbackMemory(layers.LSTM(4), 0), "window=0 must be at least 1"),
        (layers.FeedbackMemory(layers.LSTM(5), 2), "maps width 4 to 5; they must be equal"),
        (
            layers.FeedbackMemory(layers.SelfAttention(2, causal=False), 2),
            "needs later steps.*layers that stream",
        ),
    ],
)
def test_wrong_use_says_what_to_do(layer, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        jax.jit(layer.init)(jax.random.key(0), X)
