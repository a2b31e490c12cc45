"""State dicts of torch's recurrent layers and attention, to and from our params.

Give tensors as they stand in `module.state_dict()`, on the CPU, and load what comes back with
`module.load_state_dict({name: torch.as_tensor(array) for name, array in state_dict.items()})`.

torch has two biases where one is enough: their sum is ours, and ours goes back as (ours, zeros).
So what came from us returns exactly, and what came from torch returns as an equal layer. A module
without biases comes as zeros, and has no way back.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from recattn_jax.interop import layouts
from recattn_jax.interop.layouts import Arrays, Layout, Params


def rnn_from(state_dict: Mapping[str, Any], dropout: bool = False) -> Params:
    """`torch.nn.RNN(D, H, ...)` to the params of `RNN(H)`, or of a stack of it.

    One layer gives the params of the cell or, in both directions, of `Bidirectional(cell, cell)`;
    several give those of `stack(RNN, H, depth, bidirectional, dropout)`. For torch's
    `nonlinearity="relu"` ours takes `activation=jax.nn.relu`.

    Args:
      state_dict: `weight_ih_l0 [H, D]`, `weight_hh_l0 [H, H]`, biases `[H]`, and so on.
      dropout: whether the stack has Dropout between its layers: it takes every second place there,
        and torch's state dict does not tell.

    Returns:
      `input_kernel [D, 1, H]`, `recurrent_kernel [H, 1, H]`, `bias [1, H]`, nested for a stack.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> weights = {"weight_ih_l0": np.ones((2, 3)), "weight_hh_l0": np.ones((2, 2))}
    >>> rnn_from(weights)["input_kernel"].shape
    (3, 1, 2)
    """
    return _from(_RNN, state_dict, dropout)


def rnn_to(params: Mapping[str, Any]) -> Arrays:
    """`RNN(H)`, or a stack of it, to the state dict of `torch.nn.RNN`; see `rnn_from`.

    Args:
      params: of the cell, or of a `stack` of it.

    Returns:
      The state dict.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> ours = {"input_kernel": np.ones((3, 1, 2)), "recurrent_kernel": np.ones((2, 1, 2))}
    >>> rnn_to(ours | {"bias": np.ones((1, 2))})["weight_ih_l0"].shape
    (2, 3)
    """
    return _to(_RNN, params)


def lstm_from(state_dict: Mapping[str, Any], dropout: bool = False) -> Params:
    """`torch.nn.LSTM(D, H, ...)` to the params of `LSTM(H, projection=P)`, or of a stack of it.

    One layer gives the params of the cell or, in both directions, of `Bidirectional(cell, cell)`;
    several give those of `stack(LSTM, H, depth, bidirectional, dropout)`. For torch's `proj_size=P`
    the cell is `LSTM(H, projection=P)`.

    Args:
      state_dict: `weight_ih_l0 [4H, D]`, `weight_hh_l0 [4H, P]`, biases `[4H]`, with a `proj_size`
        also `weight_hr_l0 [P, H]` (without, P = H), and so on.
      dropout: whether the stack has Dropout between its layers: it takes every second place there,
        and torch's state dict does not tell.

    Returns:
      `input_kernel [D, 4, H]`, `recurrent_kernel [P, 4, H]`, `bias [4, H]`, and
      `projection_kernel [H, P]` where there is one, nested for a stack.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> weights = {"weight_ih_l0": np.ones((8, 3)), "weight_hh_l0": np.ones((8, 2))}
    >>> lstm_from(weights)["input_kernel"].shape
    (3, 4, 2)
    """
    return _from(_LSTM, state_dict, dropout)


def lstm_to(params: Mapping[str, Any]) -> Arrays:
    """`LSTM(H)`, or a stack of it, to the state dict of `torch.nn.LSTM`; see `lstm_from`.

    Args:
      params: of the cell, or of a `stack` of it.

    Returns:
      The state dict.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> ours = {"input_kernel": np.ones((3, 4, 2)), "recurrent_kernel": np.ones((2, 4, 2))}
    >>> lstm_to(ours | {"bias": np.ones((4, 2))})["weight_ih_l0"].shape
    (8, 3)
    """
    return _to(_LSTM, params)


def gru_from(state_dict: Mapping[str, Any], dropout: bool = False) -> Params:
    """`torch.nn.GRU(D, H, ...)` to the params of `GRU(H)`, or of a stack of it.

    One layer gives the params of the cell or, in both directions, of `Bidirectional(cell, cell)`;
    several give those of `stack(GRU, H, depth, bidirectional, dropout)`. Both reset after the
    product, so the recurrent bias of n stays by itself.

    Args:
      state_dict: `weight_ih_l0 [3H, D]`, `weight_hh_l0 [3H, H]`, biases `[3H]`, and so on.
      dropout: whether the stack has Dropout between its layers: it takes every second place there,
        and torch's state dict does not tell.

    Returns:
      `input_kernel [D, 3, H]`, `recurrent_kernel [H, 3, H]`, `bias [4, H]`, nested for a stack.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> weights = {"weight_ih_l0": np.ones((6, 3)), "weight_hh_l0": np.ones((6, 2))}
    >>> gru_from(weights)["bias"].shape
    (4, 2)
    """
    return _from(_GRU, state_dict, dropout)


def gru_to(params: Mapping[str, Any]) -> Arrays:
    """`GRU(H)`, or a stack of it, to the state dict of `torch.nn.GRU`; see `gru_from`.

    Args:
      params: of the cell, which resets after the product, or of a `stack` of it.

    Returns:
      The state dict.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> ours = {"input_kernel": np.ones((3, 3, 2)), "recurrent_kernel": np.ones((2, 3, 2))}
    >>> gru_to(ours | {"bias": np.ones((4, 2))})["bias_hh_l0"].tolist()
    [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    """
    return _to(_GRU, params)


def attention_from(state_dict: Mapping[str, Any], heads: int) -> Params:
    """`torch.nn.MultiheadAttention(D, heads, ...)` to `SelfAttention` or `CrossAttention`.

    Theirs knows no order, so ours takes `positions=None`, `causal=False` if no mask was used, and
    `use_bias=True` if there are biases. `kdim` and `vdim` must be equal: ours looks at one memory.

    Args:
      state_dict: `in_proj_weight [3D, D]`, or `q_proj_weight [D, D]`, `k_proj_weight [D, M]` and
        `v_proj_weight [D, M]`; `out_proj.weight [D, D]`; `in_proj_bias [3D]` and `out_proj.bias
        [D]`, or neither.
      heads: H, which the state dict does not tell.

    Returns:
      `query/kernel [D, H, K]`, `key/kernel [M, H, K]`, `value/kernel [M, H, K]`, `out/kernel
      [H, K, D]`, and their biases, nested.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape; or if `heads` does
        not divide D.

    >>> weights = {"in_proj_weight": np.ones((12, 4)), "out_proj.weight": np.ones((4, 4))}
    >>> attention_from(weights, heads=2)["query"]["kernel"].shape
    (4, 2, 2)
    """
    packed, biased = "in_proj_weight" in state_dict, any("bias" in name for name in state_dict)
    theirs = layouts.read("MultiheadAttention", state_dict, _attention_layout(packed, biased))
    width = theirs["out_proj.weight"].shape[0]
    if heads < 1 or width % heads:
        raise ValueError(f"MultiheadAttention: heads={heads} must divide the width {width}")
    weights = (
        np.split(theirs["in_proj_weight"], 3)
        if packed
        else [theirs[f"{part}_proj_weight"] for part in "qkv"]
    )
    ours: Arrays = {
        f"{part}/kernel": weight.T.reshape(-1, heads, width // heads)
        for part, weight in zip(_PARTS, weights, strict=True)
    }
    ours["out/kernel"] = theirs["out_proj.weight"].T.reshape(heads, width // heads, width)
    if biased:
        biases = np.split(theirs["in_proj_bias"], 3)
        for part, bias in zip(_PARTS, biases, strict=True):
            ours[f"{part}/bias"] = bias.reshape(heads, -1)
        ours["out/bias"] = theirs["out_proj.bias"]
    return layouts.nest(ours)


def attention_to(params: Mapping[str, Any]) -> Arrays:
    """`SelfAttention` or `CrossAttention` to `torch.nn.MultiheadAttention`, exactly.

    Args:
      params: ours, with as many heads of keys and values as of queries.

    Returns:
      The state dict; packed where the memory is as wide as the queries, as torch has it.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> kernels = {name: {"kernel": np.ones((4, 2, 2))} for name in ("query", "key", "value")}
    >>> sorted(attention_to(kernels | {"out": {"kernel": np.ones((2, 2, 4))}}))
    ['in_proj_weight', 'out_proj.weight']
    """
    ours = layouts.read_attention("to MultiheadAttention", params)
    width, memory = ours["query/kernel"].shape[0], ours["key/kernel"].shape[0]
    weights = [ours[f"{part}/kernel"].reshape(-1, width).T for part in _PARTS]
    if memory == width:
        theirs = {"in_proj_weight": np.concatenate(weights)}
    else:
        theirs = {f"{part[0]}_proj_weight": w for part, w in zip(_PARTS, weights, strict=True)}
    theirs["out_proj.weight"] = ours["out/kernel"].reshape(width, width).T
    if "out/bias" in ours:
        theirs["in_proj_bias"] = np.concatenate([ours[f"{p}/bias"].reshape(-1) for p in _PARTS])
        theirs["out_proj.bias"] = ours["out/bias"]
    return theirs


_PARTS = ("query", "key", "value")


def _attention_layout(packed: bool, biased: bool) -> Layout:
    if packed:
        layout = {"in_proj_weight": "3D D"}
    else:
        layout = {"q_proj_weight": "D D", "k_proj_weight": "D M", "v_proj_weight": "D M"}
    layout["out_proj.weight"] = "D D"
    return layout | ({"in_proj_bias": "3D", "out_proj.bias": "D"} if biased else {})


class _Cell(NamedTuple):
    """A recurrent layer of theirs: how many gates, and how many rows our bias has."""

    name: str
    gates: int
    biases: int


_RNN = _Cell("RNN", 1, 1)
_LSTM = _Cell("LSTM", 4, 4)
_GRU = _Cell("GRU", 3, 4)


class _Shape(NamedTuple):
    """What the names of a state dict tell, or those of our params."""

    depth: int
    directions: int
    projected: bool

    @property
    def ends(self) -> list[list[str]]:
        """The ends of torch's names, by layer and direction."""
        suffixes = ("", "_reverse")[: self.directions]
        return [[f"_l{layer}{suffix}" for suffix in suffixes] for layer in range(self.depth)]

    def places(self, step: int) -> list[list[str]]:
        """The beginnings of our names, by layer and direction; `step` from layer to layer."""
        suffixes = ("",) if self.directions == 1 else ("forward_layer/", "backward_layer/")
        layers = [f"layers_{step * layer}/" if step else "" for layer in range(self.depth)]
        return [[f"{layer}{suffix}" for suffix in suffixes] for layer in layers]

    def width(self, layer: int) -> str:
        """The input width of a layer."""
        if layer == 0:
            return "D"
        return f"{self.directions}{'P' if self.projected else 'H'}".removeprefix("1")


def _from(cell: _Cell, state_dict: Mapping[str, Any], dropout: bool) -> Params:
    names = [str(name) for name in state_dict]
    numbers = [int(found[1]) for name in names if (found := re.search(r"_l(\d+)", name))]
    shape = _Shape(
        depth=max(numbers, default=0) + 1,
        directions=2 if any(name.endswith("_reverse") for name in names) else 1,
        projected=any(name.startswith("weight_hr") for name in names),
    )
    biased = any(name.startswith("bias") for name in names)
    theirs = layouts.read(cell.name, state_dict, _layout(cell, shape, biased))
    step = 0 if shape.depth == 1 else 2 if dropout else 1
    ours: Arrays = {}
    for ends, places in zip(shape.ends, shape.places(step), strict=True):
        for end, place in zip(ends, places, strict=True):
            ours |= _cell_from(cell, theirs, end, place)
    return layouts.nest(ours)


def _layout(cell: _Cell, shape: _Shape, biased: bool) -> Layout:
    """The layout of a whole state dict."""
    rows = f"{cell.gates}H".removeprefix("1")
    layout: Layout = {}
    for layer, ends in enumerate(shape.ends):
        for end in ends:
            layout[f"weight_hh{end}"] = f"{rows} {'P' if shape.projected else 'H'}"
            layout[f"weight_ih{end}"] = f"{rows} {shape.width(layer)}"
            if biased:
                layout |= {f"bias_ih{end}": rows, f"bias_hh{end}": rows}
            if shape.projected:
                layout[f"weight_hr{end}"] = "P H"
    return layout


def _cell_from(cell: _Cell, theirs: Arrays, end: str, place: str) -> Arrays:
    """One layer in one direction; `[G H, D]` becomes `[D, G, H]`."""
    inputs, hidden = theirs[f"weight_ih{end}"], theirs[f"weight_hh{end}"]
    zeros = np.zeros(len(inputs), inputs.dtype)
    bias_ih, bias_hh = (
        theirs.get(f"bias_{side}{end}", zeros).reshape(cell.gates, -1) for side in ("ih", "hh")
    )
    bias = bias_ih + bias_hh
    if cell.biases > cell.gates:  # the last gate's two biases do not meet before the reset
        bias = np.concatenate([bias[:-1], bias_ih[-1:], bias_hh[-1:]])
    ours = {
        f"{place}input_kernel": inputs.T.reshape(inputs.shape[1], cell.gates, -1),
        f"{place}recurrent_kernel": hidden.T.reshape(hidden.shape[1], cell.gates, -1),
        f"{place}bias": bias,
    }
    if f"weight_hr{end}" in theirs:
        ours[f"{place}projection_kernel"] = theirs[f"weight_hr{end}"].T
    return ours


def _to(cell: _Cell, params: Mapping[str, Any]) -> Arrays:
    flat = layouts.flatten(params)
    numbers = {int(found[1]) for name in flat if (found := re.match(r"layers_(\d+)/", name))}
    shape = _Shape(
        depth=max(len(numbers), 1),
        directions=2 if any("backward_layer/" in name for name in flat) else 1,
        projected=any(name.endswith("projection_kernel") for name in flat),
    )
    # With Dropout between them, layers are two places apart.
    places = shape.places(0 if not numbers else 2 if max(numbers) >= shape.depth else 1)
    layout: Layout = {}
    for layer, prefixes in enumerate(places):
        for place in prefixes:
            width = shape.width(layer)
            layout |= layouts.cell(cell.gates, cell.biases, width, shape.projected, place)
    ours = layouts.read(f"to {cell.name}", flat, layout)
    theirs: Arrays = {}
    for ends, prefixes in zip(shape.ends, places, strict=True):
        for end, place in zip(ends, prefixes, strict=True):
            theirs |= _cell_to(cell, ours, place, end)
    return theirs


def _cell_to(cell: _Cell, ours: Arrays, place: str, end: str) -> Arrays:
    """One layer in one direction; `[D, G, H]` becomes `[G H, D]`."""
    inputs, hidden = ours[f"{place}input_kernel"], ours[f"{place}recurrent_kernel"]
    bias_ih = ours[f"{place}bias"][: cell.gates]
    bias_hh = np.zeros_like(bias_ih)
    if cell.biases > cell.gates:
        bias_hh[-1] = ours[f"{place}bias"][-1]
    theirs = {
        f"weight_ih{end}": inputs.reshape(len(inputs), -1).T,
        f"weight_hh{end}": hidden.reshape(len(hidden), -1).T,
        f"bias_ih{end}": bias_ih.reshape(-1),
        f"bias_hh{end}": bias_hh.reshape(-1),
    }
    if f"{place}projection_kernel" in ours:
        theirs[f"weight_hr{end}"] = ours[f"{place}projection_kernel"].T
    return theirs
