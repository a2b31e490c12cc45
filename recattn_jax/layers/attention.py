"""Self-attention, and the template of all multi-head attention."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from recattn_jax import partition
from recattn_jax.kernels import attention, fused_attention, segments
from recattn_jax.kernels.attention import Attended, Marks, Reach, Scoring
from recattn_jax.kernels.backends import check_implementation
from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.layers.dense import dense_general
from recattn_jax.layers.positions import Positions, Rotary
from recattn_jax.layers.scores import Keys, ScaledDot, Score
from recattn_jax.shapes import Activations, Array, Float, Heads, Int, State

Made = TypeVar("Made")
Values = Float[Array, "B S G V"]


class MultiHead(SequenceLayer):
    """The template of multi-head attention (abstract): projections, and the score's parameters.

    Parameters: `query/kernel [D, H, K]`, `key/kernel [M, G, K]`, `value/kernel [M, G, K]` and
    `out/kernel [H, K, D]`, with a `bias` each where `use_bias` says so; K is D / H.

    Attributes:
      heads: H; the width of the queries must divide by it.
      kv_heads: G, heads of keys and values, of which each serves H / G heads of queries; None is H.
      score: how queries and keys are compared.
      use_bias: whether the projections have biases.
      project: whether there are projections at all. Without them inputs are only split into heads,
        and the output is as wide as what is looked at.
    """

    heads: int
    kv_heads: int | None = None
    score: Score = ScaledDot()
    use_bias: bool = False
    project: bool = True

    @nn.compact
    def build(self, make: Callable[[], Made]) -> Made:
        """Calls what declares parameters: from any method, and again for the same names."""
        return make()

    def parameter(
        self, name: str, start: nn.initializers.Initializer, shape: tuple[int, ...]
    ) -> Array:
        """A parameter of this layer, float32."""
        return self.build(lambda: self.param(name, start, shape, jnp.float32))

    def dense(
        self, name: str, x: Array, features: tuple[int, ...], axis: tuple[int, ...] = (-1,)
    ) -> Array:
        """A linear map of some axes to others, with the dtype of x."""
        return self.build(
            lambda: dense_general(features, axis, use_bias=self.use_bias, dtype=x.dtype, name=name)(
                x
            )
        )

    def split_queries(self, x: Activations) -> Heads:
        """Queries `[B, T, H, K]`, before the score transforms them."""
        if self.project:
            return self.dense("query", x, (self.heads, self.head_size(x.shape[-1])))
        return self._split("x", x)

    def split_sources(self, sources: Float[Array, "B S M"], size: int) -> tuple[Keys, Values]:
        """Transformed keys `[B, S, G, N]` and values `[B, S, G, V]` of what is looked at."""
        if self.project:
            shape = (self.key_heads(), size)
            keys = self.dense("key", sources, shape)
            values = self.dense("value", sources, shape)
        else:
            keys = values = self._split("what is looked at", sources)
        return self.score.keys(self.parameter, keys), values

    def transform_queries(self, queries: Heads, keys: Keys) -> Float[Array, "B T H N"]:
        """Queries as the score compares them with these keys."""
        queries = self.score.queries(self.parameter, queries, keys.shape[-1])
        if queries.shape[-1] != keys.shape[-1]:
            raise ValueError(
                f"{type(self).__name__}: score={self.score} compares queries of head size "
                f"{queries.shape[-1]} with keys of {keys.shape[-1]}; use General(), or project=True"
            )
        return queries

    def join(self, mixed: Float[Array, "B T H V"], width: int) -> Float[Array, "B T E"]:
        """Mixed values `[B, T, H, V]` to outputs, `width` wide where there are projections."""
        if self.project:
            return self.dense("out", mixed, (width,), (-2, -1))
        return mixed.reshape((*mixed.shape[:2], -1))

    def note(self, weights: Array) -> None:
        """Sows the weights where the caller collects `intermediates`."""
        self.sow("intermediates", "weights", weights)

    def head_size(self, width: int) -> int:
        """K, of queries that are so wide."""
        if self.heads < 1 or width % self.heads:
            raise ValueError(
                f"{type(self).__name__}: heads={self.heads} must divide the width of x, which is "
                f"{width}"
            )
        return width // self.heads

    def key_heads(self) -> int:
        """G, after a look at whether the fields agree."""
        groups = self.heads if self.kv_heads is None else self.kv_heads
        if groups < 1 or self.heads % groups:
            raise ValueError(
                f"{type(self).__name__}: kv_heads={groups} must divide heads={self.heads}"
            )
        if not self.project and (groups != self.heads or self.use_bias):
            raise ValueError(
                f"{type(self).__name__}: project=False leaves out the projections that kv_heads="
                f"{self.kv_heads} and use_bias={self.use_bias} are about; leave these out too"
            )
        return groups

    def _split(self, what: str, x: Activations) -> Heads:
        if x.shape[-1] % self.key_heads():
            raise ValueError(
                f"{type(self).__name__}: heads={self.heads} must divide the width of {what}, "
                f"which is {x.shape[-1]}"
            )
        return x.reshape((*x.shape[:2], self.heads, -1))


@struct.dataclass
class AttentionState:
    """The ring buffer of a windowed attention layer: position p is kept in slot `p mod W`.

    Attributes:
      keys: `[B, W, G, N]`, transformed and rotated already.
      values: `[B, W, G, V]`.
      segments: `[B, W]`, the document of each slot; 0 is empty.
      segment: `[B]`, the document of the last real step; 0 is nothing yet.
      position: `[B]`, steps of that document so far.

    >>> layer = SelfAttention(heads=2, window=3)
    >>> key, x = jax.random.key(0), jnp.ones((2, 5, 8))
    >>> state = jax.eval_shape(layer.init_with_output, key, x)[0][1]
    >>> state.keys.shape
    (2, 3, 2, 4)
    """

    __no_type_check__ = True

    keys: Float[Array, "B W G N"]
    values: Float[Array, "B W G V"]
    segments: Int[Array, "B W"]
    segment: Int[Array, " B"]
    position: Int[Array, " B"]


class SelfAttention(MultiHead):
    """Multi-head self-attention.

    `y_t = concat_h(sum_s softmax_s(score(q_t, k_s)) v_s) W_o`, over the steps of the same document
    that t may look at; `q = x W_q`, `k = x W_k`, `v = x W_v`.

    Attributes:
      heads: H; the width of x must divide by it.
      kv_heads: G, heads of keys and values, of which each serves H / G heads of queries; None is H.
      score: how queries and keys are compared.
      use_bias: whether the projections have biases.
      project: whether there are projections at all, W_q to W_o; without them x is only split.
      causal: whether later steps are hidden.
      window: only steps less than this far away are seen, in time and memory linear in T; None is
        the whole document. Attention streams if it is causal and has a window: to stream the full
        kind, give a window at least as long as the longest document.
      positions: how positions enter: `Rotary()`, `ALiBi()`, `RelativeBias()` or None.
      sinks: whether every head learns a score, `sinks [H]`, that only stands in the softmax's
        denominator, so that a head may look at nothing (as in gpt-oss, not a kept first token).
      implementation: None and "xla" are this project's own; "cudnn" on a GPU and "splash" on a TPU
        are one kernel, which never builds the weights, for `ScaledDot` without sinks or biases by
        distance ("cudnn": in bfloat16 or float16, without a cap). None was measured yet. With a
        state, and where the caller collects `intermediates`, all are as None.

    Call: `[B, T, D] -> [B, T, D]`; state: `AttentionState`, of a size that does not grow. With
    `mutable=["intermediates"]` the weights come out too: `[B, H, T, T]`, with a window too, in time
    and memory that grow with the square of T; and after a state `[B, N, H, L, W + L]`, in N blocks
    of L steps that look at the buffer and at themselves.

    Raises:
      ValueError: if widths and heads do not divide, `window` is less than 1, the state is that of
        another layer or batch, or the implementation cannot do what the other fields say.

    >>> layer = SelfAttention(heads=2, window=4)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 8)))[0]

    Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762; sinks: OpenAI, gpt-oss
    model card, 2025, arXiv:2508.10925.
    """

    causal: bool = True
    window: int | None = None
    positions: Positions | None = Rotary()
    sinks: bool = False
    implementation: str | None = dataclasses.field(default=None, kw_only=True)

    @property
    def streams(self) -> bool:
        return self.causal and self.window is not None

    def forward(
        self, x: Activations, state: State | None, context: Context
    ) -> tuple[Float[Array, "B T E"], AttentionState | tuple[()]]:
        return self.attend(x, x, state, context)

    def attend(
        self,
        queries: Activations,
        sources: Float[Array, "B T M"],
        state: State | None,
        context: Context,
    ) -> tuple[Float[Array, "B T E"], AttentionState | tuple[()]]:
        """Looks from one sequence at another of the same steps; `forward` looks from x at x.

        Args:
          queries: `[B, T, D]`, what looks; zero at padding.
          sources: `[B, T, M]`, what is looked at; zero at padding.
          state: the state that an earlier call returned; None for a fresh one.
          context: side inputs.

        Returns:
          `[B, T, D]` (without projections `[B, T, M]`; unspecified at padding) and the state.
        """
        batch, length, width = queries.shape
        if self.window is not None and self.window < 1:
            raise ValueError(f"SelfAttention: window={self.window} must be at least 1, or None")
        split_queries = self.split_queries(queries)
        keys, values = self.split_sources(sources.astype(queries.dtype), self.head_size(width))
        self._check_state(state, keys, values)
        marks = _mark(batch, length, state, context)
        positions = Positions() if self.positions is None else self.positions
        split_queries = positions.rotate(
            self.transform_queries(split_queries, keys), marks.positions
        )
        keys = positions.rotate(keys, marks.positions)
        scoring = Scoring(
            self.score.comparison(self.parameter, self.heads),
            positions.bias(self.parameter, self.heads, self.causal),
            self._sinks(),
        )
        weights: Array | None
        fused = self._fused(scoring)
        if state is None:
            if fused and not self.is_mutable_collection("intermediates"):
                mixed, weights = self._mix_fused(split_queries, keys, values, context), None
            else:
                mixed, weights = self._mix(split_queries, keys, values, marks, scoring)
            if self.streams:
                state = self._remember(keys, values, marks, self._empty(keys, values))
        else:
            mixed, weights, state = self._go_on(split_queries, keys, values, marks, scoring, state)
        if weights is not None:
            self.note(weights)
        return self.join(mixed, width), () if state is None else state

    def _sinks(self) -> Array | None:
        if not self.sinks:
            return None
        return partition.gather(self.parameter("sinks", nn.initializers.zeros, (self.heads,)))

    def _mix(
        self, queries: Heads, keys: Keys, values: Values, marks: Marks, scoring: Scoring
    ) -> Attended:
        """Attention among the steps of x alone."""
        reach = Reach(self.causal, self.window)
        if self.is_mutable_collection("intermediates"):
            return attention.document_attention(queries, keys, values, marks, marks, reach, scoring)
        if self.window is not None:
            return attention.windowed_attention(queries, keys, values, marks, reach, scoring)
        return attention.sequence_attention(queries, keys, values, marks, reach, scoring)

    def _fused(self, scoring: Scoring) -> bool:
        """Whether a kernel without weights is asked for; what it cannot do is refused."""
        known = ("xla", *fused_attention.NEEDS)
        check_implementation("SelfAttention", self.implementation, known, fused_attention.NEEDS)
        if self.implementation in (None, "xla"):
            return False
        if not isinstance(self.score, ScaledDot):
            field, instead = f"score={self.score}", "ScaledDot()"
        elif scoring.bias is not None:
            field, instead = f"positions={self.positions}", "Rotary() or None"
        elif self.sinks:
            field, instead = "sinks=True", "False"
        else:
            return True
        raise ValueError(
            f"SelfAttention: implementation={self.implementation!r} cannot do {field}; use "
            f"{instead} there, or implementation=None"
        )

    def _mix_fused(self, queries: Heads, keys: Keys, values: Values, context: Context) -> Heads:
        """`_mix` without the weights."""
        assert self.implementation is not None and isinstance(self.score, ScaledDot)
        reach, cap = Reach(self.causal, self.window), self.score.cap
        return fused_attention.fused_attention(
            queries, keys, values, context.segments, reach, self.implementation, cap
        )

    def _go_on(
        self,
        queries: Heads,
        keys: Keys,
        values: Values,
        marks: Marks,
        scoring: Scoring,
        state: AttentionState,
    ) -> tuple[Array, Array | None, AttentionState]:
        """Attention of the steps of x to themselves and to the ring buffer, a window at a time."""
        assert self.window is not None  # a state is only kept with a window
        length = queries.shape[1]
        size = min(length, self.window)
        blocks = -(-length // size)
        noting = self.is_mutable_collection("intermediates")

        def cut(x: Array, filled: str = "constant") -> Array:
            """`[B, T, ...] -> [N, B, size, ...]`; what fills the last block is padding."""
            ends = [(0, 0), (0, blocks * size - length), *[(0, 0)] * (x.ndim - 2)]
            x_BNT = jnp.pad(x, ends, mode=filled)
            x_BNT = x_BNT.reshape((x.shape[0], blocks, size, *x.shape[2:]))
            return jnp.moveaxis(x_BNT, 1, 0)

        def attend(state: AttentionState, block: tuple[Any, ...]) -> tuple[AttentionState, Any]:
            queries, keys, values, marks = block
            ring = attention.ring_positions(state.position - 1, state.segments.shape[1])
            past = Marks(
                jnp.concatenate([state.segments, marks.segments], axis=1),
                jnp.concatenate([ring, marks.positions], axis=1),
            )
            mixed, weights = attention.document_attention(
                queries,
                jnp.concatenate([state.keys, keys], axis=1),
                jnp.concatenate([state.values, values], axis=1),
                marks,
                past,
                Reach(self.causal, self.window),
                scoring,
            )
            after = self._remember(keys, values, marks, state)
            return after, (mixed, weights if noting else None)

        parts = (
            *(cut(x) for x in (queries, keys, values)),
            Marks(cut(marks.segments), cut(marks.positions, "edge")),
        )
        state, noted = jax.lax.scan(attend, state, parts)
        mixed, weights = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), noted)
        mixed = mixed.reshape((queries.shape[0], blocks * size, *mixed.shape[3:]))[:, :length]
        return mixed, weights, state

    def _check_state(self, state: State | None, keys: Keys, values: Values) -> None:
        if state is None:
            return
        if not isinstance(state, AttentionState):
            raise ValueError(
                "SelfAttention: state must be an AttentionState, as an earlier call returned it; "
                f"got {type(state).__name__}"
            )
        if state.segment.shape[0] != keys.shape[0]:
            raise ValueError(
                f"SelfAttention: state is for a batch of {state.segment.shape[0]}, x has "
                f"{keys.shape[0]}"
            )
        for name, kept, new in (("keys", state.keys, keys), ("values", state.values, values)):
            if kept.shape[1:] != (self.window, *new.shape[2:]):
                raise ValueError(
                    f"SelfAttention: state keeps {name} {list(kept.shape[1:])} of a row, this layer"
                    f" [window, kv_heads, size] = {[self.window, *new.shape[2:]]}; it is the state "
                    "of another layer"
                )

    def _empty(self, keys: Keys, values: Values) -> AttentionState:
        assert self.window is not None
        batch = keys.shape[0]
        zeros_B = jnp.zeros((batch,), jnp.int32)
        return AttentionState(
            keys=jnp.zeros((batch, self.window, *keys.shape[2:]), keys.dtype),
            values=jnp.zeros((batch, self.window, *values.shape[2:]), values.dtype),
            segments=jnp.zeros((batch, self.window), jnp.int32),
            segment=zeros_B,
            position=zeros_B,
        )

    def _remember(
        self, keys: Keys, values: Values, marks: Marks, state: AttentionState
    ) -> AttentionState:
        """The state after these steps: the last ones of the last document are written."""
        window = state.segments.shape[1]
        _, segment = segments.last_segments(marks.segments, state.segment)
        position = marks.positions[:, -1] + 1
        slots_BT = attention.ring_slots(marks, segment, position - 1, window)

        def write(buffer: Array, new: Array) -> Array:
            # Row by row, so that the partitioner sees that no row needs another's.
            return jax.vmap(lambda row, slots_T, new: row.at[slots_T].set(new, mode="drop"))(
                buffer, slots_BT, new
            )

        return AttentionState(
            keys=write(state.keys, keys),
            values=write(state.values, values),
            segments=write(state.segments, marks.segments),
            segment=segment,
            position=position,
        )


def _mark(batch: int, length: int, state: AttentionState | None, context: Context) -> Marks:
    zeros_B = jnp.zeros((batch,), jnp.int32)
    segment, position = (zeros_B, zeros_B) if state is None else (state.segment, state.position)
    places = segments.follow_positions(context.segments, length, segment, position)
    return Marks(places.segments, places.positions)
