"""Dot-product attention: pure functions on arrays.

What a query may look at is decided by `Marks`: a step sees the steps of its own document, up to
itself where attention is causal, and no further away than the window.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from recattn_jax.shapes import Array, Bool, Float, Heads, Int


class Marks(NamedTuple):
    """Where steps stand: their document and their position in it, both `[B, T]`."""

    segments: Int[Array, "B T"]
    positions: Int[Array, "B T"]


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
    scores: Float[Array, "*batch S"], mask: Bool[Array, "*batch S"]
) -> Float[Array, "*batch S"]:
    """A softmax over what is seen, in float32; where nothing is seen the weights are zeros.

    `w_s = m_s exp(e_s) / sum_r m_r exp(e_r)`. Values and gradients are finite in every row.

    Args:
      scores: `[..., S]`, finite.
      mask: `[..., S]`.

    Returns:
      Weights `[..., S]`, float32, that sum to 1 or, where nothing is seen, to 0.

    >>> safe_softmax(jnp.zeros((2, 2)), jnp.array([[True, True], [False, False]])).tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    scores = jnp.where(mask, scores.astype(jnp.float32), -jnp.inf)
    top = jnp.max(scores, axis=-1, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1.0)


def dot_product_attention(
    queries: Heads,
    keys: Float[Array, "B S H K"],
    values: Float[Array, "B S H K"],
    mask: Bool[Array, "B T S"] | None,
) -> Heads:
    """Attention by scaled dot products.

    `y_t = sum_s softmax_s(q_t . k_s / sqrt(K)) v_s`, over the keys that t may look at.

    Args:
      queries: `[B, T, H, K]`.
      keys: `[B, S, H, K]`.
      values: `[B, S, H, K]`.
      mask: `[B, T, S]`, true where a query may look; None for everywhere.

    Returns:
      `[B, T, H, K]` in the dtype of the queries; zeros where a query sees nothing. Scores and
      weights are float32.

    >>> q = jnp.ones((1, 3, 2, 4))
    >>> dot_product_attention(q, q, q, None).shape
    (1, 3, 2, 4)

    Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """
    scores_BHTS = jnp.einsum(
        "bthk,bshk->bhts", queries, keys, preferred_element_type=jnp.float32
    ) / math.sqrt(queries.shape[-1])
    mask_BHTS = True if mask is None else mask[:, None]
    weights_BHTS = safe_softmax(scores_BHTS, jnp.broadcast_to(mask_BHTS, scores_BHTS.shape))
    mixed_BTHK = jnp.einsum(
        "bhts,bshk->bthk",
        weights_BHTS.astype(values.dtype),
        values,
        preferred_element_type=jnp.float32,
    )
    return mixed_BTHK.astype(queries.dtype)


def windowed_attention(
    queries: Heads,
    keys: Heads,
    values: Heads,
    marks: Marks,
    causal: bool,
    window: int,
) -> Heads:
    """Self-attention within a window, in blocks: time and memory are linear in T.

    The same values as `dot_product_attention` under `attention_mask` of the same marks. A query
    block of `window` steps looks at its own block of keys and its neighbours only. Padding may
    stand before or after a document, not inside it.

    Args:
      queries: `[B, T, H, K]`.
      keys: `[B, T, H, K]`.
      values: `[B, T, H, K]`.
      marks: document and position of every step, `[B, T]`.
      causal: whether steps after the query are hidden.
      window: only positions less than this far from the query are seen.

    Returns:
      `[B, T, H, K]` in the dtype of the queries.

    >>> q, t = jnp.ones((1, 6, 2, 4)), jnp.arange(6)[None]
    >>> windowed_attention(q, q, q, Marks(jnp.ones_like(t), t), causal=True, window=2).shape
    (1, 6, 2, 4)

    Beltagy et al., Longformer, 2020, arXiv:2004.05150.
    """
    length = queries.shape[1]
    if length <= window:
        return dot_product_attention(
            queries, keys, values, attention_mask(marks, marks, causal, window)
        )
    blocks = -(-length // window)
    around = (-1, 0) if causal else (-1, 0, 1)

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

    mask = attention_mask(
        Marks(*(fold(own(m)) for m in marks)),
        Marks(*(fold(near(m)) for m in marks)),
        causal,
        window,
    )
    mixed = dot_product_attention(fold(own(queries)), fold(near(keys)), fold(near(values)), mask)
    return mixed.reshape((queries.shape[0], blocks * window, *mixed.shape[2:]))[:, :length]


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
