"""Params of Flax Linen's recurrent cells and attention, to and from ours.

Those of a cell: of an `nn.RNN`, take `params["cell"]`. Every pair is exact in both directions.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from recattn_jax.interop import layouts
from recattn_jax.interop.layouts import Layout, Params


class _Cell(NamedTuple):
    """A cell of theirs: two Dense for each gate, and which Dense holds each row of our bias."""

    name: str
    gates: tuple[str, ...]
    biased: tuple[str, ...]

    @property
    def layout(self) -> Layout:
        kernels = {f"i{gate}/kernel": "D H" for gate in self.gates}
        kernels |= {f"h{gate}/kernel": "H H" for gate in self.gates}
        return kernels | {f"{dense}/bias": "H" for dense in self.biased}


_SIMPLE = _Cell("SimpleCell", ("",), ("i",))
_LSTM = _Cell("LSTMCell", ("i", "f", "g", "o"), ("hi", "hf", "hg", "ho"))
_GRU = _Cell("GRUCell", ("r", "z", "n"), ("ir", "iz", "in", "hn"))


def rnn_from(params: Mapping[str, Any]) -> Params:
    """`nn.SimpleCell(H)` to `RNN(H)`.

    Args:
      params: `{"i": {"kernel": [D, H], "bias": [H]}, "h": {"kernel": [H, H]}}`.

    Returns:
      `input_kernel [D, 1, H]`, `recurrent_kernel [H, 1, H]`, `bias [1, H]`.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> i, h = {"kernel": np.ones((3, 2)), "bias": np.ones(2)}, {"kernel": np.ones((2, 2))}
    >>> rnn_from({"i": i, "h": h})["input_kernel"].shape
    (3, 1, 2)
    """
    return _from(_SIMPLE, params)


def rnn_to(params: Mapping[str, Any]) -> Params:
    """`RNN(H)` to `nn.SimpleCell(H)`, the inverse of `rnn_from`.

    Args:
      params: ours.

    Returns:
      Theirs.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> ours = {"input_kernel": np.ones((3, 1, 2)), "recurrent_kernel": np.ones((2, 1, 2))}
    >>> rnn_to(ours | {"bias": np.ones((1, 2))})["i"]["kernel"].shape
    (3, 2)
    """
    return _to(_SIMPLE, params)


def lstm_from(params: Mapping[str, Any]) -> Params:
    """`nn.LSTMCell(H)` or `nn.OptimizedLSTMCell(H)` to `LSTM(H)`.

    Args:
      params: for each gate g of i, f, g, o a kernel `ig [D, H]`, and `hg [H, H]` with a bias.

    Returns:
      `input_kernel [D, 4, H]`, `recurrent_kernel [H, 4, H]`, `bias [4, H]`.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> i, h = {"kernel": np.ones((3, 2))}, {"kernel": np.ones((2, 2)), "bias": np.ones(2)}
    >>> lstm_from({f"i{g}": i for g in "ifgo"} | {f"h{g}": h for g in "ifgo"})["bias"].shape
    (4, 2)
    """
    return _from(_LSTM, params)


def lstm_to(params: Mapping[str, Any]) -> Params:
    """`LSTM(H)` to `nn.LSTMCell(H)` or `nn.OptimizedLSTMCell(H)`, the inverse of `lstm_from`.

    Args:
      params: ours.

    Returns:
      Theirs.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> ours = {"input_kernel": np.ones((3, 4, 2)), "recurrent_kernel": np.ones((2, 4, 2))}
    >>> lstm_to(ours | {"bias": np.ones((4, 2))})["ho"]["bias"].shape
    (2,)
    """
    return _to(_LSTM, params)


def gru_from(params: Mapping[str, Any]) -> Params:
    """`nn.GRUCell(H)` to `GRU(H)`, which resets after the product as theirs does.

    Args:
      params: for each gate g of r, z, n a kernel `ig [D, H]` with a bias, and `hg [H, H]`; `hn` has
        a bias too.

    Returns:
      `input_kernel [D, 3, H]`, `recurrent_kernel [H, 3, H]`, `bias [4, H]`.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> i, h = {"kernel": np.ones((3, 2)), "bias": np.ones(2)}, {"kernel": np.ones((2, 2))}
    >>> gates = {"ir": i, "iz": i, "in": i, "hr": h, "hz": h, "hn": h | {"bias": np.ones(2)}}
    >>> gru_from(gates)["bias"].shape
    (4, 2)
    """
    return _from(_GRU, params)


def gru_to(params: Mapping[str, Any]) -> Params:
    """`GRU(H)` to `nn.GRUCell(H)`, the inverse of `gru_from`.

    Args:
      params: ours, of a GRU that resets after the product.

    Returns:
      Theirs.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> ours = {"input_kernel": np.ones((3, 3, 2)), "recurrent_kernel": np.ones((2, 3, 2))}
    >>> gru_to(ours | {"bias": np.ones((4, 2))})["hn"]["bias"].shape
    (2,)
    """
    return _to(_GRU, params)


def attention_from(params: Mapping[str, Any]) -> Params:
    """`nn.MultiHeadDotProductAttention(H)` to `SelfAttention(H)` or `CrossAttention(H)`.

    Theirs knows no order, so ours takes `positions=None`, `causal=False` if no mask was used, and
    `use_bias=True` if there are biases. Theirs with `normalize_qk` (its norm is another one),
    `qkv_features` or `out_features` of another width has no equal here.

    Args:
      params: `query`, `key`, `value` with `kernel [D, H, K]`, `out` with `kernel [H, K, D]`, and
        biases or none.

    Returns:
      The same arrays, checked.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> kernels = {name: {"kernel": np.ones((4, 2, 2))} for name in ("query", "key", "value")}
    >>> sorted(attention_from(kernels | {"out": {"kernel": np.ones((2, 2, 4))}}))
    ['key', 'out', 'query', 'value']
    """
    return layouts.nest(layouts.read_attention("MultiHeadDotProductAttention", params))


def attention_to(params: Mapping[str, Any]) -> Params:
    """`SelfAttention(H)` or `CrossAttention(H)` to `nn.MultiHeadDotProductAttention(H)`.

    Args:
      params: ours, with as many heads of keys and values as of queries.

    Returns:
      The same arrays, checked.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> kernels = {name: {"kernel": np.ones((4, 2, 2))} for name in ("query", "key", "value")}
    >>> sorted(attention_to(kernels | {"out": {"kernel": np.ones((2, 2, 4))}}))
    ['key', 'out', 'query', 'value']
    """
    return layouts.nest(layouts.read_attention("to MultiHeadDotProductAttention", params))


def _from(cell: _Cell, params: Mapping[str, Any]) -> Params:
    theirs = layouts.read(cell.name, layouts.flatten(params), cell.layout)
    return {
        "input_kernel": np.stack([theirs[f"i{gate}/kernel"] for gate in cell.gates], axis=1),
        "recurrent_kernel": np.stack([theirs[f"h{gate}/kernel"] for gate in cell.gates], axis=1),
        "bias": np.stack([theirs[f"{dense}/bias"] for dense in cell.biased]),
    }


def _to(cell: _Cell, params: Mapping[str, Any]) -> Params:
    layout = layouts.cell(len(cell.gates), len(cell.biased))
    ours = layouts.read(f"to {cell.name}", layouts.flatten(params), layout)
    kernels = {"i": ours["input_kernel"], "h": ours["recurrent_kernel"]}
    theirs = {
        f"{side}{gate}/kernel": kernel[:, row]
        for side, kernel in kernels.items()
        for row, gate in enumerate(cell.gates)
    }
    biases = zip(cell.biased, ours["bias"], strict=True)
    return layouts.nest(theirs | {f"{dense}/bias": row for dense, row in biases})
