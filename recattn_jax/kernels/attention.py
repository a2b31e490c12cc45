"""Attention: pure functions on arrays.

What a query may look at is decided by `Marks`: a step sees the steps of its own document, up to
itself where attention is causal, and no further away than the window. How strongly it looks is
decided by `Scoring`: a comparison of queries and keys, a bias by distance, and sinks. One function,
`attend`, turns both into weights; documents, windows and ring buffers are ways of calling it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from recattn_jax.kernels import backends
from recattn_jax.kernels.precision import wide
from recattn_jax.kernels.scores import heads_product, scaled_dot_scores
from recattn_jax.shapes import Array, Bool, Float, Heads, Int

BLOCKS = 4
"""Blocks of queries that a CPU takes a long causal sequence in; more leave out little more."""
LEAST_BLOCK = 128
"""Queries of such a block at least."""


class Marks(NamedTuple):
    """Where steps stand.

    Attributes:
      segments: `[B, T]`, the document of each step; 0 is padding.
      positions: `[B, T]`, the place of each step in its document, from 0.

    >>> marks = Marks(jnp.array([[1, 1, 2]]), jnp.array([[0, 1, 0]]))
    """

    segments: Int[Array, "B T"]
    positions: Int[Array, "B T"]


class Reach(NamedTuple):
    """How far a step looks.

    Attributes:
      causal: whether steps after its own are hidden.
      window: it looks at steps less than this far away; None for all.

    >>> Reach(causal=True, window=None)
    Reach(causal=True, window=None)
    """

    causal: bool
    window: int | None


def attention_mask(
    queries: Marks, keys: Marks, causal: bool, window: int | None
) -> Bool[Array, "B T S"]:
    """Says which keys each query may look at.

    Args:
      queries: marks `[B, T]`; segment 0 is padding and sees nothing.
      keys: marks `[B, S]`; segment 0 is padding and is seen by nothing.
      causal: whether steps after the query are hidden.
      window: only positions less than this far from the query are seen; None for all.

    Returns:
      `[B, T, S]`, true where the query may look.

    >>> marks = Marks(jnp.array([[1, 1, 2]]), jnp.array([[0, 1, 0]]))
    >>> attention_mask(marks, marks, causal=True, window=None).astype(int).tolist()
    [[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]
    """
    query_BT1, key_B1S = queries.segments[:, :, None], keys.segments[:, None, :]
    mask_BTS = (query_BT1 == key_B1S) & (key_B1S > 0)
    distance_BTS = queries.positions[:, :, None] - keys.positions[:, None, :]
    if causal:
        mask_BTS &= distance_BTS >= 0
    if window is not None:
        mask_BTS &= jnp.abs(distance_BTS) < window
    return mask_BTS


def safe_softmax(
    scores: Float[Array, "*batch S"],
    mask: Bool[Array, "*batch S"],
    sinks: Float[Array, "*#batch 1"] | None = None,
) -> Float[Array, "*batch S"]:
    """A softmax over what is seen; where nothing is seen the weights are zeros.

    `w_s = m_s exp(e_s) / (exp(sink) + sum_r m_r exp(e_r))`, without the first term where there is
    no sink. Values and gradients are finite in every row.

    Args:
      scores: `[..., S]`, finite.
      mask: `[..., S]`.
      sinks: `[..., 1]`, scores that take part in the sum only; they draw weight away.

    Returns:
      Weights `[..., S]`, float32 or wider. They sum to 1, to less with a sink, and to 0 where
      nothing is seen.

    >>> safe_softmax(jnp.zeros((2, 2)), jnp.array([[True, True], [False, False]])).tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    scores = jnp.where(mask, scores.astype(wide(scores.dtype)), -jnp.inf)
    top = jnp.max(scores, axis=-1, keepdims=True)
    if sinks is not None:
        top = jnp.maximum(top, sinks)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if sinks is not None:
        total = total + jnp.exp(sinks - top)
    return weights / jnp.where(total > 0, total, 1.0)


class Scoring(NamedTuple):
    """How queries and keys become weights: `softmax(compare(q, k) + bias(distance))`.

    Attributes:
      compare: from queries `[B, T, H, K]` and keys `[B, S, G, K]` to scores `[B, H, T, S]`.
      bias: from distances `[B, T, S]`, the position of the query less that of the key, to what is
        added to the scores, `[B, H, T, S]`; None for nothing.
      sinks: `[H]`, a score for each head that only stands in the softmax's denominator; None for
        none.

    >>> near = Scoring(bias=lambda distance_BTS: -jnp.abs(distance_BTS[:, None]))
    """

    compare: Callable[[Array, Array], Array] = scaled_dot_scores
    bias: Callable[[Array], Array] | None = None
    sinks: Float[Array, " H"] | None = None


class Attended(NamedTuple):
    """What attention gives.

    Attributes:
      mixed: `[B, T, H, V]`, weighted means of the values.
      weights: `[B, H, T, S]`, what they were weighted with; see `windowed_attention` for its
        blocks.

    >>> q = jnp.ones((1, 3, 2, 4))
    >>> mixed, weights = attend(q, q, q, None)
    """

    mixed: Array
    weights: Array


def attend(
    queries: Heads,
    keys: Float[Array, "B S G K"],
    values: Float[Array, "B S G V"],
    mask: Bool[Array, "B T S"] | None,
    scoring: Scoring = Scoring(),
    distance: Int[Array, "B T S"] | None = None,
) -> Attended:
    """Attention: every query takes a weighted mean of the values that it may look at.

    `y_t = sum_s softmax_s(compare(q_t, k_s) + bias(t - s)) v_s`.

    Args:
      queries: `[B, T, H, K]`; H is a multiple of G, and the keys of a group are never repeated.
      keys: `[B, S, G, K]`.
      values: `[B, S, G, V]`.
      mask: `[B, T, S]`, true where a query may look; None for everywhere.
      scoring: how queries and keys become weights.
      distance: `[B, T, S]`, for the bias, where there is one.

    Returns:
      Mixed values `[B, T, H, V]` in the dtype of the queries, zeros where a query sees nothing;
      and weights `[B, H, T, S]`, float32 or wider, as scores are.

    >>> q = jnp.ones((1, 3, 2, 4))
    >>> attend(q, q, q, None).mixed.shape
    (1, 3, 2, 4)
    """
    scores_BHTS = scoring.compare(queries, keys)
    if scoring.bias is not None:
        if distance is None:
            raise ValueError("attention: distance must be given where scoring has a bias")
        scores_BHTS = scores_BHTS + scoring.bias(distance)
    mask_BHTS = True if mask is None else mask[:, None]
    sinks = None if scoring.sinks is None else scoring.sinks[None, :, None, None]
    weights_BHTS = safe_softmax(scores_BHTS, jnp.broadcast_to(mask_BHTS, scores_BHTS.shape), sinks)
    batch, heads, length, sources = weights_BHTS.shape
    groups = values.shape[2]
    shape = (batch, groups, heads // groups, length, sources)
    mixed_BGRTV = heads_product(
        weights_BHTS.reshape(shape).astype(values.dtype), jnp.swapaxes(values, 1, 2), contract=-2
    )
    values_shape = (batch, length, heads, values.shape[3])  # said, since a batch may be empty
    mixed_BTHV = jnp.moveaxis(mixed_BGRTV, 3, 1).reshape(values_shape)
    return Attended(mixed_BTHV.astype(queries.dtype), weights_BHTS)


def document_attention(
    queries: Heads,
    keys: Float[Array, "B S G K"],
    values: Float[Array, "B S G V"],
    query_marks: Marks,
    key_marks: Marks,
    reach: Reach,
    scoring: Scoring = Scoring(),
) -> Attended:
    """Attention among steps that know where they stand: `attend` under `attention_mask`.

    Args:
      queries: `[B, T, H, K]`.
      keys: `[B, S, G, K]`.
      values: `[B, S, G, V]`.
      query_marks: document and position of every query, `[B, T]`.
      key_marks: of every key, `[B, S]`.
      reach: how far a query looks.
      scoring: how queries and keys become weights.

    Returns:
      Mixed values `[B, T, H, V]` and weights `[B, H, T, S]`.

    >>> q, t = jnp.ones((1, 6, 2, 4)), jnp.arange(6)[None]
    >>> marks = Marks(jnp.ones_like(t), t)
    >>> document_attention(q, q, q, marks, marks, Reach(True, None)).mixed.shape
    (1, 6, 2, 4)
    """
    mask = attention_mask(query_marks, key_marks, *reach)
    distance_BTS = query_marks.positions[:, :, None] - key_marks.positions[:, None, :]
    return attend(queries, keys, values, mask, scoring, distance_BTS)


def sequence_attention(
    queries: Heads,
    keys: Float[Array, "B T G K"],
    values: Float[Array, "B T G V"],
    marks: Marks,
    reach: Reach,
    scoring: Scoring = Scoring(),
) -> Attended:
    """Self-attention among all steps of a sequence: `document_attention` of it with itself.

    The same values. On a CPU causal attention takes its queries in blocks, of which each compares
    keys up to its own end only: no later step can be seen. That leaves out up to half of the work.
    Padding may stand before or after a document, not inside it.

    Args:
      queries: `[B, T, H, K]`.
      keys: `[B, T, G, K]`.
      values: `[B, T, G, V]`.
      marks: document and position of every step, `[B, T]`.
      reach: how far a query looks.
      scoring: how queries and keys become weights.

    Returns:
      Mixed values `[B, T, H, V]` and weights `[B, H, T, T]`.

    >>> q, t = jnp.ones((1, 6, 2, 4)), jnp.arange(6)[None]
    >>> sequence_attention(q, q, q, Marks(jnp.ones_like(t), t), Reach(True, None)).weights.shape
    (1, 2, 6, 6)
    """
    length = queries.shape[1]
    # A mesh may have split time already, which slices would gather; an exported program may be for
    # every length, which is no number then.
    sliced = reach.causal and backends.one_cpu() and isinstance(length, int)
    size = max(LEAST_BLOCK, -(-length // BLOCKS)) if sliced else length
    if not (sliced and length > size):
        return document_attention(queries, keys, values, marks, marks, reach, scoring)
    mixed, weights = [], []
    for start in range(0, length, size):
        end = min(start + size, length)
        block = document_attention(
            queries[:, start:end],
            keys[:, :end],
            values[:, :end],
            Marks(*(m[:, start:end] for m in marks)),
            Marks(*(m[:, :end] for m in marks)),
            reach,
            scoring,
        )
        mixed.append(block.mixed)
        weights.append(jnp.pad(block.weights, ((0, 0), (0, 0), (0, 0), (0, length - end))))
    return Attended(jnp.concatenate(mixed, axis=1), jnp.concatenate(weights, axis=2))


def windowed_attention(
    queries: Heads,
    keys: Float[Array, "B T G K"],
    values: Float[Array, "B T G V"],
    marks: Marks,
    reach: Reach,
    scoring: Scoring = Scoring(),
) -> Attended:
    """Self-attention within a window, in blocks: time and memory are linear in T.

    The same values as `document_attention`. A query block of `window` steps looks at its own block
    of keys and its neighbours only. Padding may stand before or after a document, not inside it.

    Args:
      queries: `[B, T, H, K]`.
      keys: `[B, T, G, K]`.
      values: `[B, T, G, V]`.
      marks: document and position of every step, `[B, T]`.
      reach: how far a query looks; its window is a number.
      scoring: how queries and keys become weights.

    Returns:
      Mixed values `[B, T, H, V]`, and the weights: `[B, H, T, T]` where T is no longer than the
      window, else `[B, N, H, W, R W]`, in N blocks of queries, of which block n looks at the R
      blocks n - 1 and n (and n + 1, if not causal).

    >>> q, t = jnp.ones((1, 6, 2, 4)), jnp.arange(6)[None]
    >>> windowed_attention(q, q, q, Marks(jnp.ones_like(t), t), Reach(True, 2)).mixed.shape
    (1, 6, 2, 4)

    Beltagy et al., Longformer, 2020, arXiv:2004.05150.
    """
    length, window = queries.shape[1], reach.window
    if window is None:
        raise ValueError("windowed_attention: reach.window must be a number of steps")
    if isinstance(length, int) and length <= window:  # where any length is meant, blocks serve all
        return sequence_attention(queries, keys, values, marks, reach, scoring)
    blocks = -(-length // window)
    around = (-1, 0) if reach.causal else (-1, 0, 1)

    def own(x: Array) -> Array:
        """`[B, T, ...]` -> `[B, N, window, ...]`, padded with zeros."""
        padding = [(0, 0), (0, blocks * window - length), *[(0, 0)] * (x.ndim - 2)]
        return jnp.pad(x, padding).reshape((x.shape[0], blocks, window, *x.shape[2:]))

    def near(x: Array) -> Array:
        """`[B, T, ...]` -> `[B, N, neighbours * window, ...]`; segment 0 beyond the ends."""
        x_BNW = own(x)
        ends = [(0, 0), (1, 1), *[(0, 0)] * (x_BNW.ndim - 2)]
        padded = jnp.pad(x_BNW, ends)
        return jnp.concatenate([padded[:, 1 + n : 1 + n + blocks] for n in around], axis=2)

    def fold(x: Array) -> Array:
        """`[B, N, ...]` -> `[B * N, ...]`."""
        return x.reshape((x.shape[0] * x.shape[1], *x.shape[2:]))

    def unfold(x: Array) -> Array:
        """`[B * N, ...]` -> `[B, N, ...]`."""
        return x.reshape((-1, blocks, *x.shape[1:]))

    mixed, weights = document_attention(
        fold(own(queries)),
        fold(near(keys)),
        fold(near(values)),
        Marks(*(fold(own(m)) for m in marks)),
        Marks(*(fold(near(m)) for m in marks)),
        reach,
        scoring,
    )
    mixed_BTHV = mixed.reshape((-1, blocks * window, *mixed.shape[2:]))[:, :length]
    return Attended(mixed_BTHV, unfold(weights))


def ring_slots(
    marks: Marks, last_segment: Int[Array, " B"], last_position: Int[Array, " B"], window: int
) -> Int[Array, "B T"]:
    """The slot of a ring buffer that each step writes; `window`, past the end, for none.

    A step at position p is kept in slot `p mod window`. Only the last `window` steps of a row's
    last document are written, so no slot is written twice: no later step can see the others.

    Args:
      marks: document and position of every step, `[B, T]`.
      last_segment: `[B]`, the document of the row's last real step.
      last_position: `[B]`, the position of the row's last real step.
      window: slots of the buffer.

    Returns:
      `[B, T]`, from 0 to `window`.

    >>> marks = Marks(jnp.array([[1, 2, 2, 2, 0]]), jnp.array([[9, 0, 1, 2, 2]]))
    >>> ring_slots(marks, jnp.array([2]), jnp.array([2]), 2).tolist()
    [[2, 2, 1, 0, 2]]
    """
    current_BT = (marks.segments > 0) & (marks.segments == last_segment[:, None])
    recent_BT = last_position[:, None] - marks.positions < window
    return jnp.where(current_BT & recent_BT, marks.positions % window, window)


def ring_positions(last_position: Int[Array, " B"], window: int) -> Int[Array, "B W"]:
    """The position that each slot of a ring buffer holds, after `last_position` was written.

    Args:
      last_position: `[B]`; -1 where nothing was written yet.
      window: slots of the buffer.

    Returns:
      `[B, W]`; negative in slots that were not written.

    >>> ring_positions(jnp.array([4]), 3).tolist()
    [[3, 4, 2]]
    """
    last_B1 = last_position[:, None]
    return last_B1 - (last_B1 - jnp.arange(window)[None, :]) % window
