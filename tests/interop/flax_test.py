"""The same weights in Flax Linen and here: outputs, final states and gradients; there and back."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import interop
from recattn_jax.layers import GRU, LSTM, RNN, Context, CrossAttention, SelfAttention, SequenceLayer
from tests.oracles import assert_close, assert_gradients_close

B, T, S, D, H, M = 2, 5, 4, 6, 3, 5


def moved(params: Any) -> Any:
    """Away from the zeros that biases start at."""
    noise = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + 0.1 * noise.normal(size=leaf.shape), params)


def compare(
    ours: Callable[[Any, jax.Array], Any],
    theirs: Callable[[Any, jax.Array], Any],
    params: Any,
    x: jax.Array,
    convert: Callable[..., Any],
    back: Callable[..., Any],
) -> None:
    """Outputs, with final states, and gradients of the params, taken back, and of x."""

    def loss(run: Callable[[Any, jax.Array], Any]) -> Any:
        def total(params: Any, x: jax.Array) -> Any:
            outputs = run(params, x)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(outputs)), outputs

        return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))

    (_, got), (d_params, d_x) = loss(ours)(convert(params), x)
    (_, wanted), d_theirs = loss(theirs)(params, x)
    assert_close(got, wanted)
    assert_gradients_close((back(d_params), d_x), d_theirs)
    jax.tree.map(np.testing.assert_array_equal, back(convert(params)), params)


@pytest.mark.parametrize(
    ("kind", "cell", "layer"),
    [
        ("rnn", nn.SimpleCell(H), RNN(H)),
        ("lstm", nn.LSTMCell(H), LSTM(H)),
        ("lstm", nn.OptimizedLSTMCell(H), LSTM(H)),
        ("gru", nn.GRUCell(H), GRU(H)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else value,
)
def test_cells_equal_flax(kind: str, cell: nn.RNNCellBase, layer: SequenceLayer) -> None:
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    scan = nn.RNN(cell, return_carry=True)
    params = moved(scan.init(jax.random.key(1), x)["params"]["cell"])

    def ours(params: Any, x: jax.Array) -> Any:
        y, state = layer.apply({"params": params}, x)
        return y, state.carry

    def theirs(params: Any, x: jax.Array) -> Any:
        carry, y = scan.apply({"params": {"cell": params}}, x)
        return y, carry[::-1] if isinstance(carry, tuple) else (carry,)  # their LSTM has c, h

    convert, back = (getattr(interop.flax, f"{kind}_{way}") for way in ("from", "to"))
    compare(ours, theirs, params, x, convert, back)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory", [None, M])
def test_attention_equals_flax(memory: int | None, bias: bool) -> None:
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    source = jax.random.normal(jax.random.key(1), (B, S, memory)) if memory else None
    layer = (
        CrossAttention(2, use_bias=bias)
        if memory
        else SelfAttention(2, causal=False, positions=None, use_bias=bias)
    )
    attention = nn.MultiHeadDotProductAttention(2, use_bias=bias)
    params = moved(attention.init(jax.random.key(2), x, source)["params"])

    def ours(params: Any, x: jax.Array) -> Any:
        return layer.apply({"params": params}, x, None, Context(memory=source))[0]

    def theirs(params: Any, x: jax.Array) -> Any:
        return attention.apply({"params": params}, x, source)

    compare(ours, theirs, params, x, interop.flax.attention_from, interop.flax.attention_to)


def kernel(*shape: int, bias: int | None = None) -> dict[str, np.ndarray]:
    weights = {"kernel": np.ones(shape)}
    return weights if bias is None else weights | {"bias": np.ones(bias)}


SIMPLE = {"i": kernel(3, 2, bias=2), "h": kernel(2, 2)}
HEADS = {name: kernel(4, 2, 2) for name in ("query", "key", "value")} | {"out": kernel(2, 2, 4)}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda f: f.rnn_from({"i": SIMPLE["i"]}), "SimpleCell: missing h/kernel"),
        (lambda f: f.rnn_from(SIMPLE | {"cell": SIMPLE}), "unknown cell/i/kernel, cell/i/bias"),
        (
            lambda f: f.rnn_from(SIMPLE | {"h": kernel(2, 3)}),
            r"SimpleCell: h/kernel must be \[H, H\] with H = 2, got \[2, 3\]",
        ),
        (lambda f: f.lstm_from(SIMPLE), "LSTMCell: missing ii/kernel, .*; unknown i/kernel"),
        (lambda f: f.gru_from({}), "GRUCell: missing ir/kernel"),
        (
            lambda f: f.gru_to(
                {
                    "input_kernel": np.ones((3, 3, 2)),
                    "recurrent_kernel": np.ones((2, 3, 2)),
                    "bias": np.ones((3, 2)),  # of a GRU that resets before the product
                }
            ),
            r"to GRUCell: bias must be \[4, H\] with H = 2, got \[3, 2\]",
        ),
        (
            lambda f: f.attention_from(HEADS | {"query_ln": {"scale": np.ones(2)}}),
            "unknown query_ln/scale",
        ),
        (
            lambda f: f.attention_from(HEADS | {"query": kernel(5, 2, 2)}),
            r"out/kernel must be \[H, K, D\] with D = 5, H = 2, K = 2, got \[2, 2, 4\]",
        ),
        (
            lambda f: f.attention_from(
                {name: kernel(5, 2, 2) for name in ("query", "key", "value")}
                | {"out": kernel(2, 2, 5)}
            ),
            r"query/kernel must be \[D, H, K\] with D = H K, got \[5, 2, 2\]",
        ),
        (
            lambda f: f.attention_to(HEADS | {"key": kernel(4, 1, 2)}),
            r"key/kernel must be \[M, H, K\] with H = 2, K = 2, got \[4, 1, 2\]",
        ),
    ],
)
def test_wrong_params_are_refused(call: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        call(interop.flax)
    assert "\n" not in str(raised.value)
