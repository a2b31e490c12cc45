"""Combinators over width: layers in turn, side by side, around a residual, across one another.

They hand `Context` on, and stream where their parts do.
"""

from collections.abc import Sequence

from recattn_jax import partition
from recattn_jax.layers.attention import SelfAttention
from recattn_jax.layers.base import Combinator, Context, SequenceLayer, check_state
from recattn_jax.layers.combine import Combine
from recattn_jax.shapes import Array, State


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
        states = _split_state(self, state, len(self.layers), x.shape[0])
        new = []
        for layer, old in zip(self.layers, states, strict=True):
            x, after = layer(x, old, context)
            new.append(after)
        return x, tuple(new)


class Parallel(Combinator):
    """Layers side by side on the same input, `y = combine([l_1(x), ..., l_n(x)])`.

    Attributes:
      layers: the layers.
      combine: `add`, `concat`, `Gate()`, `NormalizedMean()`, or any function or Linen module of a
        list of arrays `[B, T, E_i]`, step by step.

    Call: `[B, T, D] -> [B, T, E]`; state: a tuple of theirs.

    Raises:
      ValueError: if one instance stands twice in `layers`.

    >>> from recattn_jax.layers import LSTM, SelfAttention, add
    >>> layer = Parallel((LSTM(8), SelfAttention(heads=2, window=16)), combine=add)
    """

    layers: tuple[SequenceLayer, ...]
    combine: Combine

    def forward(self, x: Array, state: State | None, context: Context) -> tuple[Array, State]:
        states = _split_state(self, state, len(self.layers), x.shape[0])
        pairs = [layer(x, old, context) for layer, old in zip(self.layers, states, strict=True)]
        y = partition.constrain(self.combine([y for y, _ in pairs]))
        return y, tuple(after for _, after in pairs)


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


class AttendToInput(Combinator):
    """A recurrence whose outputs attend over the inputs.

    `h = recurrence(x)`, `a_t = sum_s softmax_s(score(h_t, x_s)) x_s`, `y = combine([h, a])`, with
    the projections of the attention around its inputs and its output.

    Attributes:
      recurrence: makes the queries.
      attention: self-attention, whose keys and values are made of x in place of the queries.
      combine: `add`, `concat`, `Gate()`, or any function or Linen module of two arrays
        `[B, T, H]`, `[B, T, E]`.

    Call: `[B, T, D] -> [B, T, E]`; state: the two of the parts.

    >>> from recattn_jax.layers import RNN, SelfAttention, add
    >>> layer = AttendToInput(RNN(8), SelfAttention(heads=2, window=16), combine=add)
    """

    recurrence: SequenceLayer
    attention: SelfAttention
    combine: Combine

    def forward(self, x: Array, state: State | None, context: Context) -> tuple[Array, State]:
        before, seen = _split_state(self, state, 2, x.shape[0])
        hidden, after = self.recurrence(x, before, context)
        mixed, seen = self.attention.attend(hidden, x, seen, context)
        return partition.constrain(self.combine([hidden, mixed])), (after, seen)


def _split_state(
    layer: SequenceLayer, state: State | None, count: int, batch: int
) -> Sequence[State | None]:
    """The states of the parts; None for fresh ones."""
    if state is None:
        return [None] * count
    if not isinstance(state, tuple) or len(state) != count:
        raise ValueError(
            f"{type(layer).__name__}: state must be a tuple of {count} states, one a layer, as an "
            f"earlier call returned it; got {type(state).__name__}"
        )
    check_state(layer, state, tuple, batch)
    return state
