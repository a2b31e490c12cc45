"""Positions: fields of attention layers, and layers that add them to x.

A position counts the real steps of a document, from 0, wherever the document stands in its row.
"""

import dataclasses
from collections.abc import Callable
from typing import final

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from recattn_jax import partition
from recattn_jax.kernels import positions as kernels
from recattn_jax.kernels import segments
from recattn_jax.layers.base import Context, SequenceLayer, check_state
from recattn_jax.layers.scores import Declare
from recattn_jax.shapes import Activations, Array, Float, Heads, Int, State


@dataclasses.dataclass(frozen=True)
class Positions:
    """How positions enter attention: here, not at all; the template of the others.

    A frozen value: parameters are declared by the attention layer and belong to it.

    >>> Positions() == Positions()
    True
    """

    def rotate(self, x: Heads, positions: Int[Array, "B T"]) -> Heads:
        """Changes transformed queries or keys `[B, T, H, K]` by where they stand, `[B, T]`."""
        del positions
        return x

    def bias(self, declare: Declare, heads: int, causal: bool) -> Callable[[Array], Array] | None:
        """What is added to the scores.

        Args:
          declare: declares parameters.
          heads: H.
          causal: whether later keys are never seen.

        Returns:
          From distances `[B, T, S]`, the query's position less the key's, to `[B, H, T, S]`; None
          for nothing.
        """
        del declare, heads, causal
        return None


@dataclasses.dataclass(frozen=True)
class Rotary(Positions):
    """Rotates transformed queries and keys: products depend on distance. See `kernels.positions`.

    With `Additive` scores, which are no products, they tell where both sides stand instead.

    Attributes:
      base: wavelengths grow geometrically from 2 pi to nearly 2 pi times this, in steps.

    >>> Rotary()
    Rotary(base=10000.0)

    Su et al., RoFormer, 2021, arXiv:2104.09864.
    """

    base: float = 10_000.0

    def rotate(self, x: Heads, positions: Int[Array, "B T"]) -> Heads:
        return kernels.rotary(x, positions, self.base)


@dataclasses.dataclass(frozen=True)
class ALiBi(Positions):
    """Scores fall in proportion to distance, `e - slope_h |t - s|`; nothing is learned.

    >>> ALiBi()
    ALiBi()

    Press et al., Train short, test long, 2021, arXiv:2108.12409.
    """

    def bias(self, declare: Declare, heads: int, causal: bool) -> Callable[[Array], Array]:
        del declare, causal
        slopes_H = jnp.asarray(kernels.alibi_slopes(heads))

        def penalty(distance_BTS: Array) -> Array:
            return -slopes_H[None, :, None, None] * jnp.abs(distance_BTS)[:, None]

        return penalty


@dataclasses.dataclass(frozen=True)
class RelativeBias(Positions):
    """Adds a learned number for each head and bucket of distances, `relative_bias [buckets, H]`.

    Attributes:
      buckets: how many; half of them hold one distance each, the others grow with distance. Where
        attention is not causal, half of all are for later keys.
      distance: all distances from here on share the last bucket, in steps.

    >>> RelativeBias()
    RelativeBias(buckets=32, distance=128)

    Raffel et al., Exploring the limits of transfer learning (T5), 2019, arXiv:1910.10683.
    """

    buckets: int = 32
    distance: int = 128

    def __post_init__(self) -> None:
        if self.buckets < 4 or self.buckets % 2 or self.distance < self.buckets:
            raise ValueError(
                f"RelativeBias: buckets={self.buckets} must be even, at least 4, and no more than "
                f"distance={self.distance}"
            )

    def bias(self, declare: Declare, heads: int, causal: bool) -> Callable[[Array], Array]:
        table_NH = declare("relative_bias", nn.initializers.normal(0.02), (self.buckets, heads))
        table_NH = partition.gather(table_NH)

        def look_up(distance_BTS: Array) -> Array:
            bucket = kernels.relative_buckets(distance_BTS, self.buckets, self.distance, causal)
            return jnp.moveaxis(table_NH[bucket], -1, 1)

        return look_up


@struct.dataclass
class PositionState:
    """What a layer that adds positions carries on.

    Attributes:
      segment: `[B]`, the document of the last real step; 0 is nothing yet.
      position: `[B]`, steps of that document so far.

    >>> layer = SinusoidalPositions()
    >>> import jax
    >>> key, x = jax.random.key(0), jnp.ones((2, 5, 8))
    >>> state = jax.eval_shape(layer.init_with_output, key, x)[0][1]
    >>> state.position.shape
    (2,)
    """

    __no_type_check__ = True

    segment: Int[Array, " B"]
    position: Int[Array, " B"]


class AddedPositions(SequenceLayer):
    """The template of layers that add a code of the position to x (abstract)."""

    def code(self, positions: Int[Array, "B T"], width: int) -> Float[Array, "B T D"]:
        """The code `[B, T, D]` of positions `[B, T]`."""
        raise NotImplementedError

    def check(self, length: int) -> None:
        """Raises if a document of this many steps is too long."""

    @final
    @property
    def streams(self) -> bool:
        """Always."""
        return True

    @final
    @nn.compact
    def forward(
        self, x: Activations, state: State | None, context: Context
    ) -> tuple[Activations, PositionState]:
        """Adds codes to x."""
        batch, length, width = x.shape
        if state is None:
            zeros_B = jnp.zeros((batch,), jnp.int32)
            state = PositionState(zeros_B, zeros_B)
        check_state(self, state, PositionState, batch)
        if context.segments is None:
            self.check(length)
        places = segments.follow_positions(context.segments, length, state.segment, state.position)
        y = x + self.code(places.positions, width).astype(x.dtype)
        return y, PositionState(places.segment, places.position)


class SinusoidalPositions(AddedPositions):
    """Adds sines and cosines of the position, of many wavelengths; see `kernels.positions`.

    `y_t = x_t + p_t`, `p_t[2 i] = sin(t w_i)`, `p_t[2 i + 1] = cos(t w_i)`,
    `w_i = base ** (-2 i / D)`.

    Attributes:
      base: wavelengths grow geometrically from 2 pi to nearly 2 pi times this, in steps.

    Call: `[B, T, D] -> [B, T, D]`; state: `PositionState`.

    >>> y, state = SinusoidalPositions().apply({}, jnp.ones((2, 5, 8)))
    >>> y.shape
    (2, 5, 8)

    Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """

    base: float = 10_000.0

    def code(self, positions: Int[Array, "B T"], width: int) -> Float[Array, "B T D"]:
        return kernels.sinusoids(positions, width, self.base)


class LearnedPositions(AddedPositions):
    """Adds a learned vector for every position, `y_t = x_t + E_t`, `embedding [length, D]`.

    Attributes:
      length: how many positions there are. Where a later one stands in a packed or a carried
        document, y is NaN there, as with `Embed` and a token out of range.

    Call: `[B, T, D] -> [B, T, D]`; state: `PositionState`.

    Raises:
      ValueError: if x is longer than that, without segments.

    >>> import jax
    >>> layer = LearnedPositions(9)
    >>> layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 8)))[0][0].shape
    (2, 5, 8)

    Gehring et al., Convolutional sequence to sequence learning, 2017, arXiv:1705.03122.
    """

    length: int

    def code(self, positions: Int[Array, "B T"], width: int) -> Float[Array, "B T D"]:
        start = nn.initializers.normal(0.02)
        table = self.param("embedding", start, (self.length, width), jnp.float32)
        return jnp.take(table, positions, axis=0, mode="fill")

    def check(self, length: int) -> None:
        if length > self.length:
            raise ValueError(
                f"LearnedPositions: x has {length} steps, but there are positions for "
                f"length={self.length}; make it longer"
            )
