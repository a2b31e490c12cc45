"""Weights of Keras 3 layers, to and from our params.

Give what `layer.get_weights()` returns, or a dictionary by name; `layer.set_weights` takes what
comes back. Recurrent layers with `use_bias=False` come as zeros, since ours always have a bias, and
have no way back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recattn_jax.interop import layouts
from recattn_jax.interop.layouts import Params

Weights = Sequence[Any] | Mapping[str, Any]


def rnn_from(weights: Weights) -> Params:
    """`keras.layers.SimpleRNN(H)` to `RNN(H)`, exactly.

    Args:
      weights: `kernel [D, H]`, `recurrent_kernel [H, H]`, `bias [H]`.

    Returns:
      `input_kernel [D, 1, H]`, `recurrent_kernel [H, 1, H]`, `bias [1, H]`.

    Raises:
      ValueError: naming a weight that is missing, unknown or of the wrong shape.

    >>> rnn_from([np.ones((3, 2)), np.ones((2, 2)), np.ones(2)])["input_kernel"].shape
    (3, 1, 2)
    """
    return _from("SimpleRNN", (0,), weights)


def rnn_to(params: Mapping[str, Any]) -> list[np.ndarray]:
    """`RNN(H)` to `keras.layers.SimpleRNN(H)`, the inverse of `rnn_from`.

    Args:
      params: ours.

    Returns:
      `kernel [D, H]`, `recurrent_kernel [H, H]`, `bias [H]`.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> ours = {"input_kernel": np.ones((3, 1, 2)), "recurrent_kernel": np.ones((2, 1, 2))}
    >>> rnn_to(ours | {"bias": np.ones((1, 2))})[0].shape
    (3, 2)
    """
    return _to("SimpleRNN", (0,), params)


def lstm_from(weights: Weights) -> Params:
    """`keras.layers.LSTM(H)` to `LSTM(H)`, exactly.

    Args:
      weights: `kernel [D, 4H]`, `recurrent_kernel [H, 4H]`, `bias [4H]`.

    Returns:
      `input_kernel [D, 4, H]`, `recurrent_kernel [H, 4, H]`, `bias [4, H]`.

    Raises:
      ValueError: naming a weight that is missing, unknown or of the wrong shape.

    >>> lstm_from([np.ones((3, 8)), np.ones((2, 8)), np.ones(8)])["input_kernel"].shape
    (3, 4, 2)
    """
    return _from("LSTM", _LSTM, weights)


def lstm_to(params: Mapping[str, Any]) -> list[np.ndarray]:
    """`LSTM(H)` to `keras.layers.LSTM(H)`, the inverse of `lstm_from`.

    Args:
      params: ours.

    Returns:
      `kernel [D, 4 H]`, `recurrent_kernel [H, 4 H]`, `bias [4 H]`.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> ours = {"input_kernel": np.ones((3, 4, 2)), "recurrent_kernel": np.ones((2, 4, 2))}
    >>> lstm_to(ours | {"bias": np.ones((4, 2))})[0].shape
    (3, 8)
    """
    return _to("LSTM", _LSTM, params)


def gru_from(weights: Weights, reset_after: bool = True) -> Params:
    """`keras.layers.GRU(H, reset_after=...)` to `GRU(H, reset_after=...)`.

    Keras's two biases with `reset_after` are summed where they meet, in r and z.

    Args:
      weights: `kernel [D, 3H]`, `recurrent_kernel [H, 3H]`, `bias [2, 3H]` with `reset_after`,
        `[3H]` without; their gates stand in the order z, r, h.
      reset_after: that of the layer; True is Keras's default.

    Returns:
      `input_kernel [D, 3, H]`, `recurrent_kernel [H, 3, H]`, `bias [4, H]` with `reset_after`,
      `[3, H]` without.

    Raises:
      ValueError: naming a weight that is missing, unknown or of the wrong shape.

    >>> gru_from([np.ones((3, 6)), np.ones((2, 6)), np.ones((2, 6))])["bias"].tolist()
    [[2.0, 2.0], [2.0, 2.0], [1.0, 1.0], [1.0, 1.0]]
    """
    return _from("GRU", _GRU, weights, reset_after)


def gru_to(params: Mapping[str, Any], reset_after: bool = True) -> list[np.ndarray]:
    """`GRU(H, reset_after=...)` to `keras.layers.GRU(H, reset_after=...)`.

    Args:
      params: ours.
      reset_after: that of the layer.

    Returns:
      `kernel [D, 3 H]`, `recurrent_kernel [H, 3 H]` and `bias`, `[2, 3 H]` with `reset_after`, else
      `[3 H]`; in r and z the recurrent bias is zeros.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> ours = {"input_kernel": np.ones((3, 3, 2)), "recurrent_kernel": np.ones((2, 3, 2))}
    >>> gru_to(ours | {"bias": np.ones((4, 2))})[2].shape
    (2, 6)
    """
    return _to("GRU", _GRU, params, reset_after)


def attention_from(weights: Weights) -> Params:
    """`keras.layers.MultiHeadAttention(H, K)` to `SelfAttention(H)` or `CrossAttention(H)`.

    Theirs knows no order, so ours takes `positions=None`, `causal=False` if no mask was used, and
    `use_bias=True` if there are biases. H K must be the width of the queries, and their keys and
    values must come from one memory, with heads of one size.

    Args:
      weights: of `query`, `key` and `value` a `kernel [D, H, K]` and a `bias [H, K]` each, of
        `attention_output` a `kernel [H, K, D]` and a `bias [D]`; or no biases. By name they are
        `query/kernel` and so on.

    Returns:
      `query`, `key`, `value` and `out`, each with its `kernel` and `bias`.

    Raises:
      ValueError: naming a weight that is missing, unknown or of the wrong shape.

    >>> weights = [np.ones((4, 2, 2))] * 3 + [np.ones((2, 2, 4))]
    >>> sorted(attention_from(weights))
    ['key', 'out', 'query', 'value']
    """
    named = _named("MultiHeadAttention", weights, _ATTENTION)
    theirs = layouts.read_attention("MultiHeadAttention", named, out="attention_output")
    return layouts.nest(
        {name.replace("attention_output", "out"): array for name, array in theirs.items()}
    )


def attention_to(params: Mapping[str, Any]) -> list[np.ndarray]:
    """`SelfAttention(H)` or `CrossAttention(H)` to `keras.layers.MultiHeadAttention(H, K)`.

    Args:
      params: ours, with as many heads of keys and values as of queries.

    Returns:
      The kernel and, where there is one, the bias of the query, key and value, `[D, H, K]` and `[H,
      K]`, and of the output, `[H, K, D]` and `[D]`.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> kernels = {name: {"kernel": np.ones((4, 2, 2))} for name in ("query", "key", "value")}
    >>> [array.shape for array in attention_to(kernels | {"out": {"kernel": np.ones((2, 2, 4))}})]
    [(4, 2, 2), (4, 2, 2), (4, 2, 2), (2, 2, 4)]
    """
    return list(layouts.read_attention("to MultiHeadAttention", params).values())


def dot_attention_from(weights: Weights, width: int) -> Params:
    """`keras.layers.Attention(use_scale=...)` to attention by `General()` or `Dot()`, exactly.

    Their scale times the identity is the matrix of `CrossAttention(1, score=General(),
    project=False)`, or of `SelfAttention` with `causal=False, positions=None` too; without a scale
    the score is `Dot()`, which has no params. `score_mode="concat"` has no equal here.

    Args:
      weights: `scale []`, or nothing.
      width: of queries and keys, D.

    Returns:
      `score_kernel [1, D, D]`, or nothing.

    Raises:
      ValueError: naming a weight that is unknown or of the wrong shape.

    >>> dot_attention_from([np.array(2.0)], width=2)["score_kernel"].tolist()
    [[[2.0, 0.0], [0.0, 2.0]]]
    """
    if len(weights) == 0:
        return {}
    scale = layouts.read("Attention", _named("Attention", weights, ("scale",)), {"scale": ""})
    return {"score_kernel": scale["scale"] * np.eye(width, dtype=scale["scale"].dtype)[None]}


def dot_attention_to(params: Mapping[str, Any]) -> list[np.ndarray]:
    """Attention by `General()` or `Dot()` to `keras.layers.Attention`; see `dot_attention_from`.

    Args:
      params: ours; the matrix must be a number times the identity, which training seldom leaves it.

    Returns:
      `scale []`, or nothing.

    Raises:
      ValueError: if the matrix is another one; naming a key that is unknown or of the wrong shape.

    >>> dot_attention_to({"score_kernel": 2.0 * np.eye(3)[None]})
    [array(2.)]
    """
    if not params:
        return []
    (kernel,) = layouts.read("to Attention", params, {"score_kernel": "1 D D"})["score_kernel"]
    scale = kernel[0, 0].copy()
    _must_be(
        "to Attention: score_kernel",
        kernel,
        scale * np.eye(len(kernel)),
        "a number times the identity",
    )
    return [np.asarray(scale)]


def additive_attention_from(weights: Weights, width: int) -> Params:
    """`keras.layers.AdditiveAttention(use_scale=...)` to attention by `Additive(D)`, exactly.

    Theirs maps neither queries nor keys, so W and U of `CrossAttention(1, score=Additive(D),
    project=False)`, or of `SelfAttention` with `causal=False, positions=None` too, are identities.

    Args:
      weights: `scale [D]`, or nothing, which is ones.
      width: of queries and keys, D.

    Returns:
      `query_kernel [1, D, D]`, `key_kernel [1, D, D]`, `score_bias [1, D]`, `score_vector [1, D]`.

    Raises:
      ValueError: naming a weight that is unknown or of the wrong shape.

    >>> additive_attention_from([np.ones(3)], width=3)["score_vector"].shape
    (1, 3)
    """
    named = _named("AdditiveAttention", weights, ("scale",)) if len(weights) else {}
    named = named or {"scale": np.ones(width, np.float32)}
    scale = layouts.read("AdditiveAttention", named, {"scale": str(width)})["scale"]
    identity = np.eye(width, dtype=scale.dtype)[None]
    return {
        "query_kernel": identity,
        "key_kernel": identity.copy(),
        "score_bias": np.zeros_like(scale)[None],
        "score_vector": scale[None],
    }


def additive_attention_to(params: Mapping[str, Any]) -> list[np.ndarray]:
    """Attention by `Additive(D)` to `keras.layers.AdditiveAttention`; see the other direction.

    Args:
      params: ours; W and U must be identities and the bias zeros, since Keras has none of them.

    Returns:
      `scale [D]`.

    Raises:
      ValueError: if they are not; naming a key that is missing, unknown or of the wrong shape.

    >>> additive_attention_to(additive_attention_from([np.ones(3)], width=3))
    [array([1., 1., 1.])]
    """
    layout = {"query_kernel": "1 D D", "key_kernel": "1 D D"}
    layout |= {"score_bias": "1 D", "score_vector": "1 D"}
    ours = layouts.read("to AdditiveAttention", params, layout)
    identity = np.eye(ours["query_kernel"].shape[-1])
    for name in ("query_kernel", "key_kernel"):
        _must_be(f"to AdditiveAttention: {name}", ours[name][0], identity, "the identity")
    _must_be("to AdditiveAttention: score_bias", ours["score_bias"], np.zeros(()), "zeros")
    return [ours["score_vector"][0]]


# Where our gates stand among theirs: i, f, g, o among i, f, c, o; r, z, n among z, r, h. To swap
# twice is to leave all in place, so these serve in both directions.
_LSTM = (0, 1, 2, 3)
_GRU = (1, 0, 2)
_CELL = ("kernel", "recurrent_kernel", "bias")
_ATTENTION = tuple(
    f"{part}/{kind}"
    for part in ("query", "key", "value", "attention_output")
    for kind in ("kernel", "bias")
)


def _from(name: str, order: tuple[int, ...], weights: Weights, reset_after: bool = False) -> Params:
    named = _named(name, weights, _CELL)
    gates = len(order)
    rows = f"{gates}H".removeprefix("1")
    layout = {"recurrent_kernel": f"H {rows}", "kernel": f"D {rows}"}
    if "bias" in named:
        layout["bias"] = f"2 {rows}" if reset_after else rows
    theirs = layouts.read(name, named, layout)
    kernel, recurrent_kernel = (
        theirs[key].reshape(len(theirs[key]), gates, -1)[:, order]
        for key in ("kernel", "recurrent_kernel")
    )
    zeros = np.zeros((1 + reset_after, *kernel.shape[1:]), kernel.dtype)
    biases = theirs.get("bias", zeros).reshape(zeros.shape)[:, order]
    bias = biases.sum(axis=0)
    if reset_after:  # the biases of n do not meet before the reset
        bias = np.concatenate([bias[:-1], biases[:, -1]])
    return {"input_kernel": kernel, "recurrent_kernel": recurrent_kernel, "bias": bias}


def _to(
    name: str, order: tuple[int, ...], params: Mapping[str, Any], reset_after: bool = False
) -> list[np.ndarray]:
    gates = len(order)
    layout = layouts.cell(gates, gates + reset_after)
    ours = layouts.read(f"to {name}", layouts.flatten(params), layout)
    kernel, recurrent_kernel = (
        ours[key][:, order].reshape(len(ours[key]), -1)
        for key in ("input_kernel", "recurrent_kernel")
    )
    bias = ours["bias"][:gates]
    if not reset_after:
        return [kernel, recurrent_kernel, bias[order, :].reshape(-1)]
    biases = np.stack([bias, np.zeros_like(bias)])
    biases[1, -1] = ours["bias"][-1]
    return [kernel, recurrent_kernel, biases[:, order].reshape(2, -1)]


def _named(owner: str, weights: Weights, names: tuple[str, ...]) -> dict[str, Any]:
    """Weights by name: a list holds the arrays of all names, or of all but the biases."""
    if isinstance(weights, Mapping):
        return layouts.flatten(weights)
    unbiased = tuple(name for name in names if not name.endswith("bias"))
    for held in (names, unbiased):
        if len(weights) == len(held):
            return dict(zip(held, weights, strict=True))
    or_fewer = "" if unbiased == names else ", or all but the biases"
    raise ValueError(f"{owner}: {len(weights)} arrays given, expected {', '.join(names)}{or_fewer}")


def _must_be(what: str, array: np.ndarray, wanted: np.ndarray, in_words: str) -> None:
    if not np.array_equal(array, np.broadcast_to(wanted, array.shape)):
        raise ValueError(f"{what} must be {in_words}, for which Keras has no weights")
