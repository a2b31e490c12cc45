"""The same weights in Keras 3 and here: outputs, final states and gradients; there and back."""

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")  # read when keras is first imported

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import interop
from recattn_jax.layers import (
    GRU,
    LSTM,
    RNN,
    Additive,
    Context,
    CrossAttention,
    Dot,
    General,
    SelfAttention,
    SequenceLayer,
)
from tests.oracles import assert_close, assert_gradients_close, oracle

B, T, S, D, H, M = 2, 5, 4, 6, 3, 5

# Of Keras 3.15 itself, in `layer.get_weights()`.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Convert = Callable[[Any], Any]


def build(layer: Any, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Makes the weights and gives them values, since biases start at zero."""
    with jax.numpy_rank_promotion("allow"):  # which Keras relies on
        layer.build(*shapes)
    noise = np.random.default_rng(0)
    layer.set_weights([w + 0.1 * noise.normal(size=w.shape) for w in layer.get_weights()])
    return layer.get_weights()


def gradients(run: Callable[[Any, jax.Array], Any], params: Any, x: jax.Array) -> Any:
    """Outputs, and the gradients of the params and of x."""

    def total(params: Any, x: jax.Array) -> Any:
        outputs = run(params, x)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(outputs)), outputs

    (_, outputs), d = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(params, x)
    return outputs, *d


def gradients_of_theirs(layer: Any, x: jax.Array, call: Callable[[Any, jax.Array], Any]) -> Any:
    """The same of a Keras layer."""
    with jax.numpy_rank_promotion("allow"):
        return gradients(call, [variable.value for variable in layer.trainable_variables], x)


@pytest.mark.parametrize(
    ("kind", "options", "layer"),
    [
        ("SimpleRNN", {}, RNN(H)),
        ("LSTM", {}, LSTM(H)),
        ("LSTM", {"use_bias": False}, LSTM(H)),
        ("GRU", {}, GRU(H)),
        ("GRU", {"use_bias": False}, GRU(H)),
        ("GRU", {"reset_after": False}, GRU(H, reset_after=False)),
    ],
)
def test_recurrent_layers_equal_keras(
    kind: str, options: dict[str, bool], layer: SequenceLayer
) -> None:
    keras = oracle("keras")
    theirs = getattr(keras.layers, kind)(H, return_sequences=True, return_state=True, **options)
    weights = build(theirs, (B, T, D))
    name = {"SimpleRNN": "rnn", "LSTM": "lstm", "GRU": "gru"}[kind]
    reset = {"reset_after": False} if "reset_after" in options else {}
    convert, back = (getattr(interop.keras, f"{name}_{way}") for way in ("from", "to"))
    params = convert(weights, **reset)
    x = jax.random.normal(jax.random.key(0), (B, T, D))

    def ours(params: Any, x: jax.Array) -> Any:
        y, state = layer.apply({"params": params}, x)
        return y, *state.carry

    got, d_params, d_x = gradients(ours, params, x)
    wanted, d_weights, d_theirs = gradients_of_theirs(
        theirs,
        x,
        lambda weights, x: tuple(
            theirs.stateless_call(weights, theirs.non_trainable_variables, x)[0]
        ),
    )
    assert_close(got, wanted)
    returned = back(d_params, **reset)
    if returned[-1].ndim == 2:  # both biases of r and z have the gradient of our one
        np.testing.assert_array_equal(returned[-1][1, : 2 * H], 0.0)
        returned[-1][1, : 2 * H] = returned[-1][0, : 2 * H]
    assert_gradients_close((returned[: len(weights)], d_x), (d_weights, d_theirs))

    again = convert(back(params, **reset), **reset)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    by_name = {variable.name: variable.value for variable in theirs.weights}
    jax.tree.map(np.testing.assert_array_equal, convert(by_name, **reset), params)
    if kind != "GRU" or "reset_after" in options:
        returned = back(params, **reset)[: len(weights)]
        jax.tree.map(np.testing.assert_array_equal, returned, weights)
    if "use_bias" not in options:
        theirs.set_weights(back(params, **reset))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory", [None, M])
def test_multi_head_attention_equals_keras(memory: int | None, bias: bool) -> None:
    keras = oracle("keras")
    theirs = keras.layers.MultiHeadAttention(2, D // 2, use_bias=bias, flash_attention=False)
    weights = build(theirs, (B, T, D), (B, S, memory or D))
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    source = jax.random.normal(jax.random.key(1), (B, S, memory)) if memory else None
    layer = (
        CrossAttention(2, use_bias=bias)
        if memory
        else SelfAttention(2, causal=False, positions=None, use_bias=bias)
    )
    params = interop.keras.attention_from(weights)

    def ours(params: Any, x: jax.Array) -> Any:
        return layer.apply({"params": params}, x, None, Context(memory=source))[0]

    def call(weights: Any, x: jax.Array) -> Any:
        seen = x if source is None else source
        return theirs.stateless_call(weights, theirs.non_trainable_variables, x, seen)[0]

    got, d_params, d_x = gradients(ours, params, x)
    wanted, d_weights, d_theirs = gradients_of_theirs(theirs, x, call)
    assert_close(got, wanted)
    assert_gradients_close((interop.keras.attention_to(d_params), d_x), (d_weights, d_theirs))
    jax.tree.map(np.testing.assert_array_equal, interop.keras.attention_to(params), weights)
    by_name = {"/".join(v.path.split("/")[-2:]): v.value for v in theirs.weights}
    again = interop.keras.attention_from(by_name)
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("kind", ["Attention", "AdditiveAttention"])
def test_attention_without_projections_equals_keras(kind: str, scaled: bool) -> None:
    """One scale against a matrix that is that number times the identity, and the like."""
    keras = oracle("keras")
    theirs = getattr(keras.layers, kind)(use_scale=scaled)
    weights = build(theirs, [(B, T, D), (B, S, D)])
    name = {"Attention": "dot", "AdditiveAttention": "additive"}[kind]
    convert, back = (getattr(interop.keras, f"{name}_attention_{way}") for way in ("from", "to"))
    params = convert(weights, width=D)
    score = Additive(D) if name == "additive" else General() if scaled else Dot()
    layer = CrossAttention(1, score=score, project=False)
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    source = jax.random.normal(jax.random.key(1), (B, S, D))

    def ours(params: Any, x: jax.Array) -> Any:
        return layer.apply({"params": params}, x, None, Context(memory=source))[0]

    def call(weights: Any, x: jax.Array) -> Any:
        return theirs.stateless_call(weights, theirs.non_trainable_variables, [x, source])[0]

    got, d_params, d_x = gradients(ours, params, x)
    wanted, d_weights, d_theirs = gradients_of_theirs(theirs, x, call)
    assert_close(got, wanted)
    d_scale = (
        [d_params["score_vector"][0]]
        if name == "additive"
        else [jnp.trace(kernel[0]) for kernel in d_params.values()]
    )
    assert_gradients_close((d_scale if scaled else [], d_x), (d_weights, d_theirs))
    returned = back(params)
    if scaled:
        jax.tree.map(np.testing.assert_array_equal, returned, weights)
        theirs.set_weights(returned)


LSTM_WEIGHTS = [np.ones((3, 8)), np.ones((2, 8)), np.ones(8)]
GRU_WEIGHTS = [np.ones((3, 6)), np.ones((2, 6)), np.ones((2, 6))]
HEADS = [np.ones((4, 2, 2))] * 3 + [np.ones((2, 2, 4))]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda k: k.lstm_from(LSTM_WEIGHTS[:1]),
            "LSTM: 1 arrays given, expected kernel, recurrent_kernel, bias, or all but the biases",
        ),
        (lambda k: k.lstm_from({"kernel": np.ones((3, 8))}), "LSTM: missing recurrent_kernel"),
        (
            lambda k: k.rnn_from(LSTM_WEIGHTS),
            r"SimpleRNN: recurrent_kernel must be \[H, H\], got \[2, 8\]",
        ),
        (
            lambda k: k.lstm_from([*LSTM_WEIGHTS[:2], np.ones(4)]),
            r"LSTM: bias must be \[4H\] with H = 2, got \[4\]",
        ),
        (
            lambda k: k.gru_from(GRU_WEIGHTS, reset_after=False),
            r"GRU: bias must be \[3H\] with H = 2, got \[2, 6\]",
        ),
        (
            lambda k: k.gru_to(k.gru_from(GRU_WEIGHTS), reset_after=False),
            r"to GRU: bias must be \[3, H\] with H = 2, got \[4, 2\]",
        ),
        (
            lambda k: k.lstm_to(k.lstm_from(LSTM_WEIGHTS) | {"projection_kernel": 1}),
            "to LSTM: unknown projection_kernel",
        ),
        (
            lambda k: k.attention_from(HEADS[:3]),
            "MultiHeadAttention: 3 arrays given, expected query/kernel",
        ),
        (
            lambda k: k.attention_from([*HEADS[:2], np.ones((4, 2, 3)), HEADS[3]]),
            r"value/kernel must be \[M, H, K\] with H = 2, K = 2, M = 4, got \[4, 2, 3\]",
        ),
        (
            lambda k: k.dot_attention_from([1.0, 2.0], 3),
            "Attention: 2 arrays given, expected scale",
        ),
        (
            lambda k: k.dot_attention_from({"concat_score_weight": 1.0}, 3),
            "Attention: missing scale; unknown concat_score_weight",
        ),
        (
            lambda k: k.dot_attention_to({"score_kernel": np.ones((1, 2, 2))}),
            "to Attention: score_kernel must be a number times the identity",
        ),
        (
            lambda k: k.additive_attention_from([np.ones(2)], 3),
            r"AdditiveAttention: scale must be \[3\], got \[2\]",
        ),
        (
            lambda k: k.additive_attention_to(
                k.additive_attention_from([np.ones(2)], 2) | {"score_bias": np.ones((1, 2))}
            ),
            "to AdditiveAttention: score_bias must be zeros",
        ),
    ],
)
def test_wrong_weights_are_refused(call: Convert, says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        call(interop.keras)
    assert "\n" not in str(raised.value)
