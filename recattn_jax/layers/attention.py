"""Attention layers."""

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from recattn_jax.kernels import attention, segments
from recattn_jax.kernels.attention import Marks
from recattn_jax.kernels.positions import rotary
from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.shapes import Array, Float, Heads, Int, Sequence


@struct.dataclass
class AttentionState:
    """The ring buffer of a windowed attention layer: position p is kept in slot `p mod W`.

    Attributes:
      keys: `[B, W, H, K]`, already rotated.
      values: `[B, W, H, K]`.
      segments: `[B, W]`, the document of each slot; 0 is empty.
      segment: `[B]`, the document of the last real step; 0 is nothing yet.
      position: `[B]`, steps of that document so far.
    """

    __no_type_check__ = True

    keys: Float[Array, "B W H K"]
    values: Float[Array, "B W H K"]
    segments: Int[Array, "B W"]
    segment: Int[Array, " B"]
    position: Int[Array, " B"]


class SelfAttention(SequenceLayer):
    """Multi-head self-attention by scaled dot products.

    `y_t = concat_h(sum_s softmax_s(q_t . k_s / sqrt(K)) v_s) W_o`, over the steps of the same
    document that t may look at.

    Attributes:
      heads: H; the width of x must divide by it.
      causal: whether later steps are hidden.
      window: only steps less than this far away are seen, in time and memory linear in T; None is
        the whole document. Attention streams if it is causal and has a window: to stream the full
        kind, give a window at least as long as the longest document.
      rotary: base of rotary positions, in steps; None for no positions at all.

    Call: `[B, T, D] -> [B, T, D]`; state: `AttentionState`, of a size that does not grow.

    Raises:
      ValueError: if D does not divide by `heads`, or `window` is less than 1.

    >>> layer = SelfAttention(heads=2, window=4)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 8)))[0]

    Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """

    heads: int
    causal: bool = True
    window: int | None = None
    rotary: float | None = 10_000.0

    @property
    def streams(self) -> bool:
        return self.causal and self.window is not None

    @nn.compact
    def forward(
        self, x: Sequence, state: AttentionState | None, context: Context
    ) -> tuple[Sequence, AttentionState | tuple[()]]:
        batch, _, width = x.shape
        if self.heads < 1 or width % self.heads:
            raise ValueError(
                f"SelfAttention: heads={self.heads} must divide the width of x, which is {width}"
            )
        if self.window is not None and self.window < 1:
            raise ValueError(f"SelfAttention: window={self.window} must be at least 1, or None")
        if state is not None and state.segment.shape[0] != batch:
            raise ValueError(
                f"SelfAttention: state is for a batch of {state.segment.shape[0]}, x has {batch}"
            )
        shape = (self.heads, width // self.heads)
        projections = nn.DenseGeneral((3, *shape), use_bias=False, dtype=x.dtype, name="qkv")
        queries, keys, values = jnp.moveaxis(projections(x), 2, 0)
        marks, segment, position = _mark(x, state, context)
        if self.rotary is not None:
            queries, keys = (rotary(a, marks.positions, self.rotary) for a in (queries, keys))

        mixed = self._mix(queries, keys, values, marks, state)
        y = nn.DenseGeneral(
            width,
            axis=(-2, -1),
            use_bias=False,
            dtype=x.dtype,
            name="out",
        )(mixed)
        if not self.streams:
            return y, ()
        return y, self._remember(keys, values, marks, segment, position, state)

    def _mix(
        self, queries: Heads, keys: Heads, values: Heads, marks: Marks, state: AttentionState | None
    ) -> Heads:
        if state is None:
            if self.window is None:
                seen = attention.visible(marks, marks, self.causal, None)
                return attention.dot_product_attention(queries, keys, values, seen)
            return attention.windowed_attention(
                queries, keys, values, marks, self.causal, self.window
            )
        assert self.window is not None  # a state is only kept with a window
        old = Marks(state.segments, attention.ring_positions(state.position - 1, self.window))
        past = Marks(*(jnp.concatenate(pair, axis=1) for pair in zip(old, marks, strict=True)))
        return attention.dot_product_attention(
            queries,
            jnp.concatenate([state.keys, keys], axis=1),
            jnp.concatenate([state.values, values], axis=1),
            attention.visible(marks, past, self.causal, self.window),
        )

    def _remember(
        self,
        keys: Heads,
        values: Heads,
        marks: Marks,
        segment: Int[Array, " B"],
        position: Int[Array, " B"],
        state: AttentionState | None,
    ) -> AttentionState:
        assert self.window is not None
        batch, _, heads, size = keys.shape
        if state is None:
            empty = jnp.zeros((batch, self.window, heads, size), keys.dtype)
            slots = jnp.zeros((batch, self.window), jnp.int32)
            state = AttentionState(empty, empty, slots, segment, position)
        slots_BT = attention.ring_slots(marks, segment, position - 1, self.window)
        rows_B1 = jnp.arange(batch)[:, None]

        def write(buffer: Array, new: Array) -> Array:
            return buffer.at[rows_B1, slots_BT].set(new, mode="drop")

        return AttentionState(
            keys=write(state.keys, keys),
            values=write(state.values, values),
            segments=write(state.segments, marks.segments),
            segment=segment,
            position=position,
        )


def _mark(
    x: Sequence, state: AttentionState | None, context: Context
) -> tuple[Marks, Int[Array, " B"], Int[Array, " B"]]:
    """The marks of x, and the document and position after it."""
    batch, length, _ = x.shape
    if state is None and context.segments is None:
        ones = jnp.ones((batch, length), jnp.int32)
        positions = jnp.broadcast_to(jnp.arange(length)[None, :], (batch, length))
        return Marks(ones, positions), ones[:, 0], jnp.full((batch,), length, jnp.int32)
    numbers = context.segments
    if numbers is None:
        numbers = jnp.ones((batch, length), jnp.int32)
    zeros = jnp.zeros((batch,), jnp.int32)
    segment, position = (zeros, zeros) if state is None else (state.segment, state.position)
    starts, segment = segments.document_starts(numbers, segment)
    positions, position = segments.document_positions(numbers, starts, position)
    return Marks(numbers, positions), segment, position
