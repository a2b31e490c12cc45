"""Gradient flow, against Jacobians and against what theory says of simple recurrences."""

import jax
import jax.numpy as jnp
import numpy as np

from recattn_jax.analysis.flow import gradient_flow
from recattn_jax.layers import LSTM, RNN, SelfAttention

X = jax.random.normal(jax.random.key(0), (3, 9, 4))


def test_equals_the_norm_of_the_jacobian():
    layer = LSTM(5)
    variables = layer.init(jax.random.key(1), X)
    jacobian = jax.jacobian(lambda x: layer.apply(variables, x)[0][:, -1])(X)
    own = np.stack([jacobian[b, :, b] for b in range(3)])  # [B, E, T, D]
    expected = np.sqrt(np.square(own).sum(axis=(1, 3)).mean(axis=0))[::-1]
    found = gradient_flow(layer, variables, X, jax.random.key(2), probes=4000)
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_a_linear_recurrence_decays_as_its_matrix():
    layer = RNN(4, activation=lambda h: h)
    params = jax.tree.map(jnp.zeros_like, layer.init(jax.random.key(1), X)["params"])
    params["input_kernel"] = jnp.eye(4).reshape(params["input_kernel"].shape)
    params["recurrent_kernel"] = (0.5 * jnp.eye(4)).reshape(params["recurrent_kernel"].shape)
    found = gradient_flow(layer, {"params": params}, X, jax.random.key(2), probes=4000)
    np.testing.assert_allclose(found, 2 * 0.5 ** np.arange(9), rtol=0.05)


def test_attention_reaches_every_step_of_its_window_and_no_other():
    layer = SelfAttention(2, window=5)
    found = gradient_flow(layer, layer.init(jax.random.key(1), X), X, jax.random.key(2))
    assert (found[:5] > 1e-3).all() and (found[5:] == 0).all()
