"""Combinators: layers made of layers. They hand `Context` on, and stream where their parts do."""

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from recattn_jax import partition
from recattn_jax.layers.base import Combinator, Context, SequenceLayer, Stacked
from recattn_jax.shapes import Array, State


def add(outputs: Sequence[Array]) -> Array:
    """Adds the outputs of parallel layers.

    Args:
      outputs: arrays of one shape.

    Returns:
      Their sum.

    Raises:
      ValueError: if the shapes differ: a width of one would be spread over the others in silence.

    >>> add([jnp.ones(2), jnp.ones(2)]).tolist()
    [2.0, 2.0]
    """
    if len({output.shape for output in outputs}) > 1:
        widths = ", ".join(str(output.shape[-1]) for output in outputs)
        raise ValueError(f"add: outputs must be equally wide, got widths {widths}")
    return reduce(operator.add, outputs)


def concat(outputs: Sequence[Array]) -> Array:
    """Joins the outputs of parallel layers along their width.

    Args:
      outputs: arrays `[B, T, E_i]`.

    Returns:
      `[B, T, sum of E_i]`.

    >>> concat([jnp.ones((1, 1, 2)), jnp.ones((1, 1, 3))]).shape
    (1, 1, 5)
    """
    return jnp.concatenate(outputs, axis=-1)


class Serial(Combinator):
    """Layers one after another, `y = l_n(... l_1(x))`.

    Attributes:
      layers: the layers, in order.

    Call: `[B, T, D] -> [B, T, E]`; state: a tuple of theirs.

    Raises:
      ValueError: if one instance stands twice in `layers`.

    >>> from recattn_jax.layers import LSTM, Dense
    >>> layer = Serial((LSTM(4), Dense(2)))
    """

    layers: tuple[SequenceLayer, ...]

    def forward(self, x: Array, state: State | None, context: Context) -> tuple[Array, State]:
        states = _split_state(self, state)
        new = []
        for layer, old in zip(self.layers, states, strict=True):
            x, after = layer(x, old, context)
            new.append(after)
        return x, tuple(new)


class Parallel(Combinator):
    """Layers side by side on the same input, `y = combine([l_1(x), ..., l_n(x)])`.

    Attributes:
      layers: the layers.
      combine: `add`, `concat`, or any function of a list of arrays `[B, T, E_i]`, step by step.

    Call: `[B, T, D] -> [B, T, E]`; state: a tuple of theirs.

    Raises:
      ValueError: if one instance stands twice in `layers`.

    >>> from recattn_jax.layers import LSTM, SelfAttention
    >>> layer = Parallel((LSTM(8), SelfAttention(heads=2, window=16)), combine=add)
    """

    layers: tuple[SequenceLayer, ...]
    combine: Callable[[Sequence[Array]], Array]

    def forward(self, x: Array, state: State | None, context: Context) -> tuple[Array, State]:
        states = _split_state(self, state)
        pairs = [layer(x, old, context) for layer, old in zip(self.layers, states, strict=True)]
        return self.combine([y for y, _ in pairs]), tuple(after for _, after in pairs)


class Residual(Combinator):
    """Adds the input to the output of a layer, `y = x + layer(x)`.

    Attributes:
      layer: a layer whose output is as wide as its input.

    Call: `[B, T, D] -> [B, T, D]`; state: the layer's.

    Raises:
      ValueError: if the layer changes the width.

    >>> from recattn_jax.layers import GatedMLP, RMSNorm
    >>> layer = Residual(Serial((RMSNorm(), GatedMLP(16))))

    He et al., Deep residual learning, 2015, arXiv:1512.03385.
    """

    layer: SequenceLayer

    def forward(self, x: Array, state: State | None, context: Context) -> tuple[Array, State]:
        y, state = self.layer(x, state, context)
        if y.shape != x.shape:
            raise ValueError(
                f"Residual: the layer maps width {x.shape[-1]} to {y.shape[-1]}; they must be equal"
            )
        return partition.constrain(x + y), state


class Repeat(Combinator):
    """A stack of copies of one layer, each with its own parameters, compiled once.

    `y = layer_depth(... layer_1(x))`; parameters and states are stacked, the depth first.

    Attributes:
      stacked: a layer whose output is as wide as its input. Its name stands in the paths of its
        parameters, and tells rules on paths that their first axis is the depth.
      depth: number of copies.

    Call: `[B, T, D] -> [B, T, D]`; state: `Stacked` of the layer's.

    Raises:
      ValueError: if the depth is less than 1.

    >>> from recattn_jax.layers import LSTM
    >>> layer = Repeat(Residual(LSTM(8)), depth=3)
    """

    stacked: SequenceLayer
    depth: int

    @nn.compact
    def forward(self, x: Array, state: State | None, context: Context) -> tuple[Array, State]:
        if self.depth < 1:
            raise ValueError(f"Repeat: depth={self.depth} must be at least 1")

        if state is not None and not isinstance(state, Stacked):
            raise ValueError(
                "Repeat: state must be Stacked, as an earlier call returned it; got "
                f"{type(state).__name__}"
            )

        def body(layer: SequenceLayer, x: Array, state: Any) -> tuple[Array, State]:
            return layer(x, state, context)

        scan = nn.scan(
            body,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True, "variational": True},
            length=self.depth,
        )
        y, states = scan(self.stacked, x, None if state is None else state.layers)
        return y, Stacked(states)


def _split_state(module: Serial | Parallel, state: State | None) -> Sequence[State | None]:
    if state is None:
        return [None] * len(module.layers)
    if not isinstance(state, tuple) or len(state) != len(module.layers):
        raise ValueError(
            f"{type(module).__name__}: state must be a tuple of {len(module.layers)} states, one a "
            f"layer, as an earlier call returned it; got {type(state).__name__}"
        )
    return state
