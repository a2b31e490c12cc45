"""Combinators over depth: stacks of layers, one layer many times, and memory against time."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from recattn_jax.layers.base import Combinator, Context, SequenceLayer, Stacked, check_state
from recattn_jax.layers.combinators import Serial
from recattn_jax.layers.pointwise import Dropout
from recattn_jax.layers.time import Bidirectional
from recattn_jax.shapes import Array, State


class Repeat(Combinator):
    """A stack of copies of one layer, each with its own parameters, compiled once.

    `y = layer_depth(... layer_1(x))`; parameters and states are stacked, the depth first.

    Attributes:
      stacked: a layer whose output is as wide as its input. Its name stands in the paths of its
        parameters, and tells rules on paths that their first axis is the depth.
      depth: number of copies.

    Call: `[B, T, D] -> [B, T, D]`; state: `Stacked` of the layer's.

    Raises:
      ValueError: if the depth is less than 1, the layer changes the width, or the state is not
        one of so many copies.

    >>> from recattn_jax.layers import LSTM, Residual
    >>> layer = Repeat(Residual(LSTM(8)), depth=3)
    """

    stacked: SequenceLayer
    depth: int

    def forward(self, x: Array, state: State | None, context: Context) -> tuple[Array, State]:
        states = _states(self, "depth", self.depth, state, x.shape[0])
        prepared = context.prepared.get("/".join(self.path))

        def run(layer: SequenceLayer, x: Array, own: Any) -> tuple[Array, State]:
            state, prepared = own
            y, state = layer(x, state, dataclasses.replace(context, prepared=prepared))
            _check_width(self, x, y)
            return y, state

        own = (states, {} if prepared is None else prepared.layers)
        y, states = _over_depth(run, self.depth, shared=False)(self.stacked, x, own)
        return y, Stacked(states)

    def prepare(self, context: Context) -> Context:
        """Prepares every copy; what each made stands under the path of the whole, depth first."""
        key = "/".join(self.path)
        if key in context.prepared or self.is_initializing():
            return context

        def run(layer: SequenceLayer, carry: tuple[()], own: None) -> tuple[tuple[()], Any]:
            return carry, layer.prepare(dataclasses.replace(context, prepared={})).prepared

        _, prepared = _over_depth(run, self.depth, shared=False)(self.stacked, (), None)
        if not prepared:
            return context
        return dataclasses.replace(context, prepared={**context.prepared, key: Stacked(prepared)})


class Tied(Combinator):
    """One layer applied several times with the same parameters, on purpose.

    `y = layer(... layer(x))`; every application has a state of its own.

    Attributes:
      layer: a layer whose output is as wide as its input.
      times: number of applications.

    Call: `[B, T, D] -> [B, T, D]`; state: `Stacked` of the layer's, the applications first.

    Raises:
      ValueError: if `times` is less than 1, the layer changes the width, or the state is not
        one of so many applications.

    >>> from recattn_jax.layers import LSTM, Residual
    >>> layer = Tied(Residual(LSTM(8)), times=3)

    Dehghani et al., Universal transformers, 2018, arXiv:1807.03819.
    """

    layer: SequenceLayer
    times: int

    def forward(self, x: Array, state: State | None, context: Context) -> tuple[Array, State]:
        states = _states(self, "times", self.times, state, x.shape[0])

        def run(layer: SequenceLayer, x: Array, state: Any) -> tuple[Array, State]:
            y, state = layer(x, state, context)
            _check_width(self, x, y)
            return y, state

        y, states = _over_depth(run, self.times, shared=True)(self.layer, x, states)
        return y, Stacked(states)


class Remat(Combinator):
    """Computes a layer again in the backward pass instead of keeping what it computed.

    `y = layer(x)`, with the same values and gradients: memory is saved, and time is spent. A
    `Repeat` of it keeps the output of every copy, and for one at a time all that is inside.

    Without `Repeat`, as several in a `Serial`, CPUs save little of it: what keeps the second
    computation waiting for its turn is dropped before their compiler orders the work. What one
    recurrent layer keeps inside, its `remat_every` makes less.

    Attributes:
      layer: the layer.

    Call: `[B, T, D] -> [B, T, E]`; state: the layer's.

    >>> from recattn_jax.layers import LSTM, Residual
    >>> layer = Repeat(Remat(Residual(LSTM(8))), depth=3)

    Chen et al., Training deep nets with sublinear memory cost, 2016, arXiv:1604.06174.
    """

    layer: SequenceLayer

    def forward(self, x: Array, state: State | None, context: Context) -> tuple[Array, State]:
        def run(
            layer: SequenceLayer, x: Array, state: State | None, context: Context
        ) -> tuple[Array, State]:
            return layer(x, state, context)

        return nn.remat(run)(self.layer, x, state, context)


def stack(
    cell: Callable[[int], SequenceLayer],
    features: int,
    depth: int,
    bidirectional: bool = False,
    dropout: float = 0.0,
) -> Serial:
    """A deep stack of recurrent layers, in one line.

    `y = cell(dropout(... dropout(cell(x))))`; in both directions, every layer sees the outputs of
    both directions of the one below, joined.

    Args:
      cell: makes a layer from its width, such as `LSTM`.
      features: width H of every layer, and in both directions of each direction.
      depth: number of layers.
      bidirectional: whether every layer runs in both directions; such a stack does not stream.
      dropout: rate between layers, not after the last.

    Returns:
      A layer `[B, T, D] -> [B, T, H]`, or `[B, T, 2 H]` in both directions.

    Raises:
      ValueError: if the depth is less than 1.

    >>> from recattn_jax.layers import LSTM
    >>> layer = stack(LSTM, features=256, depth=3, bidirectional=True, dropout=0.2)

    Graves et al., Speech recognition with deep recurrent neural networks, 2013, arXiv:1303.5778.
    """
    if depth < 1:
        raise ValueError(f"stack: depth={depth} must be at least 1")
    layers: list[SequenceLayer] = []
    for level in range(depth):
        if level > 0 and dropout:
            layers.append(Dropout(dropout))
        if bidirectional:
            layers.append(Bidirectional(cell(features), cell(features)))
        else:
            layers.append(cell(features))
    return Serial(tuple(layers))


def _check_width(layer: SequenceLayer, x: Array, y: Array) -> None:
    if y.shape != x.shape:
        raise ValueError(
            f"{type(layer).__name__}: the layer maps width {x.shape[-1]} to {y.shape[-1]}; they "
            "must be equal, as each copy reads what the one before wrote"
        )


def _states(
    layer: SequenceLayer, field: str, times: int, state: State | None, batch: int
) -> State | None:
    """The states of the copies, stacked; None for fresh ones."""
    if times < 1:
        raise ValueError(f"{type(layer).__name__}: {field}={times} must be at least 1")
    if state is None:
        return None
    check_state(layer, state, Stacked, batch)
    for leaf in jax.tree.leaves(state.layers):
        if leaf.shape[0] != times:
            raise ValueError(
                f"{type(layer).__name__}: state is for {field}={leaf.shape[0]}, "
                f"but the layer has {field}={times}"
            )
    return state.layers


def _over_depth(run: Callable[..., Any], times: int, shared: bool) -> Callable[..., Any]:
    """Scans `run(layer, x, own) -> (x, own)` over copies of a layer: compiled once."""
    return nn.scan(
        run,
        variable_axes={"intermediates": 0} if shared else {"params": 0, "intermediates": 0},
        variable_broadcast="params" if shared else False,
        split_rngs={"params": not shared, "dropout": True, "variational": True},
        length=times,
    )
