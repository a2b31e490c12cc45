"""Attention layers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from recattn_jax.kernels import attention, segments
from recattn_jax.kernels.attention import Marks
from recattn_jax.kernels.positions import rotary
from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.shapes import Activations, Array, Float, Heads, Int


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
        self, x: Activations, state: AttentionState | None, context: Context
    ) -> tuple[Activations, AttentionState | tuple[()]]:
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
        marks = _mark(x, state, context)
        if self.rotary is not None:
            queries, keys = (rotary(a, marks.positions, self.rotary) for a in (queries, keys))

        if state is None:
            mixed = self._mix(queries, keys, values, marks)
            if self.streams:
                state = self._remember(keys, values, marks, self._empty(keys))
        else:
            mixed, state = self._go_on(queries, keys, values, marks, state)
        y = nn.DenseGeneral(
            width,
            axis=(-2, -1),
            use_bias=False,
            dtype=x.dtype,
            name="out",
        )(mixed)
        return y, () if state is None else state

    def _mix(self, queries: Heads, keys: Heads, values: Heads, marks: Marks) -> Heads:
        """Attention among the steps of x alone."""
        if self.window is None:
            mask = attention.attention_mask(marks, marks, self.causal, None)
            return attention.dot_product_attention(queries, keys, values, mask)
        return attention.windowed_attention(queries, keys, values, marks, self.causal, self.window)

    def _go_on(
        self, queries: Heads, keys: Heads, values: Heads, marks: Marks, state: AttentionState
    ) -> tuple[Heads, AttentionState]:
        """Attention of the steps of x to themselves and to the ring buffer, a window at a time."""
        assert self.window is not None  # a state is only kept with a window
        length = queries.shape[1]
        size = min(length, self.window)
        blocks = -(-length // size)

        def cut(x: Array, filled: str = "constant") -> Array:
            """`[B, T, ...] -> [N, B, size, ...]`; what fills the last block is padding."""
            ends = [(0, 0), (0, blocks * size - length), *[(0, 0)] * (x.ndim - 2)]
            x_BNT = jnp.pad(x, ends, mode=filled)
            x_BNT = x_BNT.reshape((x.shape[0], blocks, size, *x.shape[2:]))
            return jnp.moveaxis(x_BNT, 1, 0)

        def attend(state: AttentionState, block: tuple[Any, ...]) -> tuple[AttentionState, Heads]:
            queries, keys, values, marks = block
            ring = attention.ring_positions(state.position - 1, state.segments.shape[1])
            past = Marks(
                jnp.concatenate([state.segments, marks.segments], axis=1),
                jnp.concatenate([ring, marks.positions], axis=1),
            )
            mixed = attention.dot_product_attention(
                queries,
                jnp.concatenate([state.keys, keys], axis=1),
                jnp.concatenate([state.values, values], axis=1),
                attention.attention_mask(marks, past, self.causal, self.window),
            )
            return self._remember(keys, values, marks, state), mixed

        parts = (
            *(cut(x) for x in (queries, keys, values)),
            Marks(cut(marks.segments), cut(marks.positions, "edge")),
        )
        state, mixed_NBT = jax.lax.scan(attend, state, parts)
        mixed = jnp.moveaxis(mixed_NBT, 0, 1)
        return mixed.reshape((queries.shape[0], blocks * size, *mixed.shape[3:]))[:, :length], state

    def _empty(self, keys: Heads) -> AttentionState:
        assert self.window is not None
        batch, _, heads, size = keys.shape
        empty = jnp.zeros((batch, self.window, heads, size), keys.dtype)
        zeros_B = jnp.zeros((batch,), jnp.int32)
        slots = jnp.zeros((batch, self.window), jnp.int32)
        return AttentionState(empty, empty, slots, zeros_B, zeros_B)

    def _remember(
        self, keys: Heads, values: Heads, marks: Marks, state: AttentionState
    ) -> AttentionState:
        """The state after these steps: the last ones of the last document are written."""
        window = state.segments.shape[1]
        _, segment = segments.last_segments(marks.segments, state.segment)
        position = marks.positions[:, -1] + 1
        slots_BT = attention.ring_slots(marks, segment, position - 1, window)
        rows_B1 = jnp.arange(slots_BT.shape[0])[:, None]

        def write(buffer: Array, new: Array) -> Array:
            return buffer.at[rows_B1, slots_BT].set(new, mode="drop")

        return AttentionState(
            keys=write(state.keys, keys),
            values=write(state.values, values),
            segments=write(state.segments, marks.segments),
            segment=segment,
            position=position,
        )


def _mark(x: Activations, state: AttentionState | None, context: Context) -> Marks:
    """The document and the position of every step of x; padding has those of the step before."""
    batch, length, _ = x.shape
    numbers = context.segments
    if numbers is None:
        numbers = jnp.ones((batch, length), jnp.int32)
        if state is None:
            return Marks(numbers, jnp.broadcast_to(jnp.arange(length)[None, :], numbers.shape))
    zeros = jnp.zeros((batch,), jnp.int32)
    segment, position = (zeros, zeros) if state is None else (state.segment, state.position)
    starts, _ = segments.document_starts(numbers, segment)
    return Marks(numbers, segments.document_positions(numbers, starts, position))
