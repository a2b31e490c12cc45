"""Recurrence over blocks of time: a memory of slots, read in every block and written after it."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from recattn_jax.kernels import segments
from recattn_jax.kernels.precision import wide
from recattn_jax.layers.base import (
    Combinator,
    Context,
    SequenceLayer,
    check_state,
)
from recattn_jax.layers.combine import Combine
from recattn_jax.layers.loops import blank, scan_over_time
from recattn_jax.shapes import Activations, Array, Bool, Float, Int, Mask, State


@struct.dataclass
class BlockState:
    """What a block-recurrent layer carries on.

    Attributes:
      reader: the state of the reader.
      slots: `[B, S, D]`, float32, how far the slots are from where every document starts.
      recent: `[B, block, E]`, the last steps as the writer sees them, the newest last.
      segment: `[B]`, the document of the last real step; 0 is nothing yet.
      position: `[B]`, steps of that document so far.

    >>> from recattn_jax.layers import CrossAttention, Residual, add
    >>> layer = BlockRecurrent(Residual(CrossAttention(2)), CrossAttention(2), add, 3, block=4)
    >>> import jax
    >>> key, x = jax.random.key(0), jnp.ones((2, 5, 8))
    >>> state = jax.eval_shape(layer.init_with_output, key, x)[0][1]
    >>> state.slots.shape
    (2, 3, 8)
    """

    __no_type_check__ = True

    reader: State
    slots: Float[Array, "B S D"]
    recent: Float[Array, "B T E"]
    segment: Int[Array, " B"]
    position: Int[Array, " B"]


class BlockRecurrent(Combinator):
    """A recurrence from block to block over slots, with a layer inside every block.

    For the n-th block of `block` steps of a document, from its start:
    `y_n = reader(x_n, memory=m_n)`, `m_{n+1} = gate([m_n, writer(m_n, memory=y_n)])`, where `m_1`
    is learned. The reader's own state goes on from block to block. Documents may start
    anywhere. The memory in the context is hidden from both: they look at slots and at steps.

    The reader is run over stretches of `block` steps wherever they fall. In such a stretch at most
    one block of the document that goes on ends, and none of those that start in it: each step looks
    at the slots from before that end, at those from after it, or at a new document's.

    Attributes:
      reader: a layer that streams, and looks at the slots by a `CrossAttention` somewhere in it.
        With attention of `window=block` it also sees the steps of a block before; inside
        `Chunked(..., size=block)` it does not.
      writer: a layer over the slots `[B, S, D] -> [B, S, D]` that looks at the steps of a block by
        a `CrossAttention`.
      gate: makes the next slots of the last ones and what was written, both float32: `FixedGate()`,
        `LSTMGate()`, `add`, or any function or Linen module of two arrays.
      slots: number of slots S; they are as wide as x.
      block: steps of a block.
      writes_inputs: whether the writer looks at x instead of the outputs of the reader, which is
        then run once instead of twice where documents start inside stretches.

    Call: `[B, T, D] -> [B, T, E]`; state: `BlockState`.

    Raises:
      ValueError: if `slots` or `block` is less than 1, the reader does not stream, or the slots
        change their shape.

    >>> from recattn_jax.layers import CrossAttention, FixedGate, Residual, SelfAttention, Serial
    >>> reader = Serial((Residual(SelfAttention(2, window=16)), Residual(CrossAttention(2))))
    >>> layer = BlockRecurrent(reader, CrossAttention(2), FixedGate(), slots=4, block=16)

    Hutchins et al., Block-recurrent transformers, 2022, arXiv:2203.07852; Didolkar et al., Temporal
    latent bottleneck, 2022, arXiv:2205.14794.
    """

    accepts: ClassVar[tuple[Any, ...]] = (jnp.floating,)

    reader: SequenceLayer
    writer: SequenceLayer
    gate: Combine
    slots: int
    block: int
    writes_inputs: bool = False

    @property
    def streams(self) -> bool:
        """Always: the writer runs afresh over every block, and the reader must stream."""
        return True

    def prepare(self, context: Context) -> Context:
        """Nothing: the memory that the parts look at is their own."""
        return context

    @nn.compact
    def forward(
        self, x: Activations, state: State | None, context: Context
    ) -> tuple[Float[Array, "B T E"], BlockState]:
        self._check_fields()
        batch, length, width = x.shape
        start_SD = self.param("start", nn.initializers.normal(1.0), (self.slots, width))
        start_BSD = jnp.broadcast_to(start_SD.astype(wide(x.dtype)), (batch, self.slots, width))
        # One document a row, from its start: its blocks are the stretches, and all steps of one
        # look at the same slots.
        aligned = state is None and context.segments is None
        if state is None:
            state = self._fresh(x, start_BSD, context)
        check_state(self, state, BlockState, batch)
        places = segments.follow_positions(context.segments, length, state.segment, state.position)
        size = min(length, self.block)
        numbers_BNT, positions_BNT = (_cut(a, size) for a in places[:2])
        stretches = _find_turns(numbers_BNT, positions_BNT, state.segment, self.block)

        def step(layer: BlockRecurrent, carry: Any, inputs: Any) -> tuple[Any, Array]:
            inner, moved_BSD, recent = carry
            x_BT, stretch = inputs
            old = start_BSD + moved_BSD

            def read(inner: State, new: Array, steps: Mask) -> tuple[Array, State]:
                here = dataclasses.replace(context, segments=jnp.where(steps, stretch.numbers, 0))
                if aligned:
                    memory = jnp.where(stretch.turned[:, None, None], new, old)
                    here = _one_memory(here, memory.astype(x.dtype))
                else:
                    here = _three_memories(here, (old, new, start_BSD), x.dtype, stretch)
                return layer.reader(x_BT, inner, here)

            def append(seen: Array) -> Array:
                return jnp.concatenate([recent, segments.take_steps(seen, stretch.order)], axis=1)

            early = None
            if aligned:
                finished = recent
            else:
                seen = x_BT
                if not layer.writes_inputs:
                    # What the writer looks at must be there before the slots that it writes are.
                    early, inner = read(inner, old, stretch.looks_at == OLD)
                    seen = early
                finished = _window(append(seen), stretch.kept, layer.block)
            new = layer._write(old, finished)
            y, inner = read(
                inner, new, stretch.numbers > 0 if early is None else stretch.looks_at != OLD
            )
            y = y if early is None else early + y
            recent = _window(append(x_BT if layer.writes_inputs else y), stretch.real, layer.block)
            last = stretch.last[:, None, None]
            moved = jnp.where(last == NEW, new - start_BSD, jnp.where(last == OLD, moved_BSD, 0))
            return (inner, moved, recent), y

        carry = (state.reader, state.slots, state.recent.astype(x.dtype))
        (inner, moved, recent), y = scan_over_time(step, self, carry, (_cut(x, size), stretches))
        y = y.reshape((batch, -1, y.shape[-1]))[:, :length]
        return y, BlockState(inner, moved, recent, places.segment, places.position)

    def _write(
        self, old: Float[Array, "B S D"], finished: Float[Array, "B T E"]
    ) -> Float[Array, "B S D"]:
        """The slots after a block, float32, from those that the block read and its steps."""
        slots = old.astype(finished.dtype)
        written, _ = self.writer(slots, None, Context(memory=finished))
        new = self.gate([old, written.astype(old.dtype)])
        if new.shape != old.shape:
            raise ValueError(
                f"BlockRecurrent: gate must keep the shape of the slots, {list(old.shape)}, "
                f"but gives {list(new.shape)}"
            )
        return new

    def _check_fields(self) -> None:
        for name in ("slots", "block"):
            if getattr(self, name) < 1:
                raise ValueError(f"BlockRecurrent: {name}={getattr(self, name)} must be at least 1")
        if not self.reader.streams:
            raise ValueError(
                f"BlockRecurrent: reader ({type(self.reader).__name__}) must stream; give its "
                "attention causal=True and a window"
            )

    def _fresh(self, x: Activations, slots: Array, context: Context) -> BlockState:
        zeros_B = jnp.zeros((x.shape[0],), jnp.int32)
        here = _one_memory(context.over_time(lambda a: a[:, :1]), slots.astype(x.dtype))
        y, inner = blank(self.reader, x[:, :1], here)
        width = x.shape[-1] if self.writes_inputs else y.shape[-1]
        recent = jnp.zeros((x.shape[0], self.block, width), x.dtype)
        return BlockState(inner, jnp.zeros_like(slots), recent, zeros_B, zeros_B)


OLD, NEW, FRESH = 1, 2, 3
"""The slots that a step looks at: before its stretch's turn, after it, or a new document's."""


class _Stretch(NamedTuple):
    """What happens in a stretch of time: the document that goes on may turn to a new block, once.

    Attributes:
      numbers: `[B, N, T]`, segment numbers.
      looks_at: `[B, N, T]`, OLD, NEW or FRESH.
      order: `[B, N, T]`, the indices of the real steps, in order, then of the padding.
      kept: `[B, N]`, real steps before the turn.
      real: `[B, N]`, real steps.
      turned: `[B, N]`, whether a block ended.
      last: `[B, N]`, what the last real step looks at, which is what is carried on.
    """

    numbers: Int[Array, "B N T"]
    looks_at: Int[Array, "B N T"]
    order: Int[Array, "B N T"]
    kept: Int[Array, "B N"]
    real: Int[Array, "B N"]
    turned: Bool[Array, "B N"]
    last: Int[Array, "B N"]


def _find_turns(
    numbers: Int[Array, "B N T"],
    positions: Int[Array, "B N T"],
    before_B: Int[Array, " B"],
    block: int,
) -> _Stretch:
    batch, _, size = numbers.shape
    before_BT, _ = segments.last_segments(numbers.reshape(batch, -1), before_B)
    real = numbers > 0
    goes_on = real & (numbers == before_BT[:, ::size, None])
    turns = goes_on & (positions % block == 0)
    after = jnp.cumsum(turns, axis=-1) > 0
    looks_at = jnp.where(goes_on, jnp.where(after, NEW, OLD), FRESH)
    order, _ = segments.compact(numbers)
    return _Stretch(
        numbers,
        looks_at,
        order,
        kept=jnp.sum(goes_on & ~after, axis=-1),
        real=jnp.sum(real, axis=-1),
        turned=jnp.any(turns, axis=-1),
        # OLD comes before NEW and NEW before FRESH; a stretch of padding changes nothing.
        last=jnp.max(jnp.where(real, looks_at, OLD), axis=-1),
    )


def _one_memory(context: Context, memory: Array) -> Context:
    return dataclasses.replace(
        context, memory=memory, memory_segments=None, looks_at=None, prepared={}
    )


def _three_memories(
    context: Context, slots: tuple[Array, Array, Array], dtype: Any, stretch: _Stretch
) -> Context:
    batch, count, _ = slots[0].shape
    numbers_S = jnp.repeat(jnp.array([OLD, NEW, FRESH]), count)
    return dataclasses.replace(
        context,
        memory=jnp.concatenate(slots, axis=1).astype(dtype),
        memory_segments=jnp.broadcast_to(numbers_S[None], (batch, 3 * count)),
        looks_at=stretch.looks_at,
        prepared={},
    )


def _cut(x: Array, size: int) -> Array:
    """`[B, T, ...] -> [B, N, size, ...]`; what fills the last stretch is zeros."""
    count = -(-x.shape[1] // size)
    ends = [(0, 0), (0, count * size - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]
    return jnp.pad(x, ends).reshape((x.shape[0], count, size, *x.shape[2:]))


def _window(steps: Array, first_B: Array, size: int) -> Array:
    """`[B, T, ...] -> [B, size, ...]`, from a first step of each row's own."""
    return segments.take_steps(steps, first_B[:, None] + jnp.arange(size)[None, :])
