"""What combines outputs, against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers
from tests.oracles import assert_close

A, C = jax.random.normal(jax.random.key(0), (2, 2, 3, 4))


def test_gate() -> None:
    y, variables = layers.Gate().init_with_output(jax.random.key(2), [A, C])
    kernel, bias = variables["params"]["gate"].values()
    scores = np.concatenate([A, C], axis=-1) @ np.asarray(kernel) + np.ones(4)
    gate = 1 / (1 + np.exp(-scores))
    variables["params"]["gate"]["bias"] = jnp.ones_like(bias)
    assert_close(
        layers.Gate().apply(variables, [A, C]), gate * np.asarray(A) + (1 - gate) * np.asarray(C)
    )
    assert y.shape == A.shape


def test_normalized_mean() -> None:
    module = layers.NormalizedMean()
    variables = jax.jit(module.init)(jax.random.key(2), [A, C])
    scales = np.linspace(0.5, 2.0, 8).reshape(2, 4)
    for i in range(2):
        variables["params"][f"norm_{i}"]["scale"] = jnp.asarray(scales[i])
    normalized = [
        np.asarray(a) / np.sqrt(np.mean(np.square(a), axis=-1, keepdims=True) + 1e-6) * scale
        for a, scale in zip((A, C), scales, strict=True)
    ]
    assert_close(module.apply(variables, [A, C]), (normalized[0] + normalized[1]) / 2)


def test_gates_of_block_recurrence() -> None:
    def dense(params, x):
        return np.asarray(x) @ np.asarray(params["kernel"]) + np.asarray(params["bias"])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    fixed = jax.jit(layers.FixedGate().init)(jax.random.key(2), [A, C])
    fixed["params"]["strength"] = jnp.arange(4.0)
    keep = sigmoid(np.arange(4.0))
    assert_close(
        layers.FixedGate().apply(fixed, [A, C]),
        keep * np.asarray(A) + (1 - keep) * dense(fixed["params"]["candidate"], C),
    )
    lstm = jax.jit(layers.LSTMGate().init)(jax.random.key(2), [A, C])
    i, f, z = (dense(lstm["params"][name], C) for name in ("input", "forget", "candidate"))
    assert_close(
        layers.LSTMGate().apply(lstm, [A, C]),
        sigmoid(f + 1) * np.asarray(A) + sigmoid(i - 1) * np.tanh(z),
    )


def test_a_module_that_combines_is_bound_where_it_stands() -> None:
    layer = layers.Parallel((layers.RNN(4), layers.Identity()), combine=layers.Gate())
    variables = jax.jit(layer.init)(jax.random.key(0), A)
    assert set(variables["params"]) == {"layers_0", "combine"}


@pytest.mark.parametrize(
    ("combine", "outputs", "says"),
    [
        (layers.Gate(), [A], "Gate: combines two outputs, got 1"),
        (layers.Gate(), [A, C[..., :1]], "Gate: outputs must be equally wide, got widths 4, 1"),
        (layers.NormalizedMean(), [A, C[..., :1]], "NormalizedMean: outputs must be equally wide"),
    ],
)
def test_wrong_outputs(combine, outputs, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        jax.jit(combine.init)(jax.random.key(0), outputs)
