"""Causal convolution against numpy's, and its state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers
from recattn_jax.layers import Context
from tests.oracles import assert_close, oracle

X = jax.random.normal(jax.random.key(0), (2, 9, 3))


def test_against_torch() -> None:
    torch = oracle("torch")
    layer = layers.CausalConvolution(4)
    variables = jax.jit(layer.init)(jax.random.key(1), X)
    noise = np.random.default_rng(2)
    params = jax.tree.map(lambda a: a + noise.normal(size=a.shape), variables["params"])
    toward = noise.normal(size=X.shape)

    def loss(params, x):
        y, _ = layer.apply({"params": params}, x)
        return jnp.sum(y * toward), y

    (_, y), (d_params, d_x) = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, X)

    def tensor(a):
        return torch.tensor(np.asarray(a, np.float64), requires_grad=True)

    x, kernel, bias = tensor(X), tensor(params["convolution_kernel"]), tensor(params["bias"])
    taps = torch.flip(kernel.T[:, None], dims=(2,))  # torch has the latest step last
    padded = torch.nn.functional.pad(x.transpose(1, 2), (3, 0))
    wanted = torch.nn.functional.conv1d(padded, taps, bias, groups=3).transpose(1, 2)
    (wanted * torch.tensor(toward)).sum().backward()
    assert_close(y, wanted.detach().numpy())
    assert_close(d_x, x.grad.numpy())
    assert_close(d_params["convolution_kernel"], kernel.grad.numpy())
    assert_close(d_params["bias"], bias.grad.numpy())


def test_the_state_is_the_last_inputs_of_the_document() -> None:
    layer = layers.CausalConvolution(4)
    variables = jax.jit(layer.init)(jax.random.key(1), X)
    context = Context(jnp.array([[1, 1, 1, 1, 1, 1, 2, 2, 0], [0, 0, 3, 3, 3, 3, 3, 3, 3]]))
    _, state = layer.apply(variables, X, None, context)
    assert state.segment.tolist() == [2, 3]
    assert_close(state.past[0], jnp.concatenate([jnp.zeros((1, 3)), X[0, 6:8]]), 0.0)
    assert_close(state.past[1], X[1, 6:], 0.0)


def test_a_width_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="width=1 must be at least 2"):
        jax.jit(layers.CausalConvolution(1).init)(jax.random.key(0), X)
