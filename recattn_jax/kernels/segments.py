"""Where documents start and how far along they are, from segment numbers.

A segment number is positive for a real step and 0 for padding; a new number starts a new document.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from recattn_jax.shapes import Array, Bool, Int, Mask, Segments

Tree = TypeVar("Tree")


class Steps(NamedTuple):
    """What a recurrence must know of the documents in its rows.

    Attributes:
      starts: `[B, T]`, true where the carry is set to zeros before the step; None for nowhere.
      keep: `[B, T]`, false at padding, where the carry stays as it is; None for no padding.
      segment: `[B]`, the last real number after all steps.

    >>> _, steps = follow_documents(jnp.ones((1, 2)), jnp.array([1]), jnp.array([[1, 0, 2]]))
    >>> steps.starts.tolist(), steps.keep.tolist(), steps.segment.tolist()
    ([[False, False, True]], [[True, False, True]], [2])
    """

    starts: Mask | None
    keep: Mask | None
    segment: Int[Array, " B"]


def follow_documents(
    carry: Tree, before_B: Int[Array, " B"], segments_BT: Segments | None
) -> tuple[Tree, Steps]:
    """Where a recurrence resets its carry, and where it keeps it.

    Args:
      carry: arrays `[B, ...]`, what an earlier call left; zeros for nothing.
      before_B: `[B]`, the last real number of what came earlier in the stream, 0 for nothing.
      segments_BT: segment numbers `[B, T]`, 0 for padding; None for ones.

    Returns:
      The carry to start from, and the steps.

    >>> follow_documents(jnp.ones((1, 2)), jnp.array([7]), None)[0].tolist()
    [[0.0, 0.0]]
    """
    if segments_BT is not None:
        starts_BT, last_B = document_starts(segments_BT, before_B)
        return carry, Steps(starts_BT, segments_BT > 0, last_B)
    # Without segments every step is of document 1: only another document before it resets.
    fresh_B = before_B > 1

    def reset(leaf: Array) -> Array:
        return jnp.where(fresh_B.reshape((-1,) + (1,) * (leaf.ndim - 1)), 0, leaf)

    return jax.tree.map(reset, carry), Steps(None, None, jnp.ones_like(before_B))


def last_segments(
    segments_BT: Segments, last_B: Int[Array, " B"]
) -> tuple[Segments, Int[Array, " B"]]:
    """The number of the last real step before each step, and after all of them.

    Args:
      segments_BT: segment numbers `[B, T]`, 0 for padding.
      last_B: `[B]`, the last real number of what came earlier in the stream, 0 for nothing.

    Returns:
      `[B, T]`, the last real number strictly before each step, and `[B]`, after the last step.

    >>> last_segments(jnp.array([[0, 3, 0, 4]]), jnp.array([2]))[0].tolist()
    [[2, 2, 3, 3]]
    """
    length = segments_BT.shape[1]
    all_BT = jnp.concatenate([last_B[:, None], segments_BT], axis=1)
    index_T = jnp.arange(length + 1)[None, :]
    real_BT = jax.lax.cummax(jnp.where(all_BT > 0, index_T, 0), axis=1)
    filled_BT = jnp.take_along_axis(all_BT, real_BT, axis=1)
    return filled_BT[:, :-1], filled_BT[:, -1]


def document_starts(
    segments_BT: Segments, last_B: Int[Array, " B"]
) -> tuple[Mask, Int[Array, " B"]]:
    """Marks the real steps whose document is not the one before; the first of all is no start.

    Args:
      segments_BT: segment numbers `[B, T]`, 0 for padding.
      last_B: `[B]`, the last real number of what came earlier in the stream, 0 for nothing.

    Returns:
      `[B, T]`, true at the first step of each document but the stream's first, which finds the
      state as it was given, and `[B]`, the last real number.

    >>> document_starts(jnp.array([[0, 3, 3, 4]]), jnp.array([3]))[0].tolist()
    [[False, False, False, True]]
    """
    before_BT, last_B = last_segments(segments_BT, last_B)
    return (segments_BT > 0) & (segments_BT != before_BT) & (before_BT > 0), last_B


def document_positions(
    segments_BT: Segments, starts_BT: Bool[Array, "B T"], position_B: Int[Array, " B"]
) -> Int[Array, "B T"]:
    """Counts the real steps of the current document before each step.

    Args:
      segments_BT: segment numbers `[B, T]`, 0 for padding, which is not counted.
      starts_BT: `[B, T]`, true at the first step of each document, from `document_starts`.
      position_B: `[B]`, steps of the current document that came earlier in the stream.

    Returns:
      `[B, T]`, the position of each real step in its document (0 is its first); at padding, that
      of the real step before.

    >>> starts = jnp.array([[False, False, True]])
    >>> document_positions(jnp.array([[1, 1, 2]]), starts, jnp.array([5])).tolist()
    [[5, 6, 0]]
    """
    count_BT = jnp.cumsum(segments_BT > 0, axis=1)
    # Steps counted before the current document began; negative where it began in an earlier call.
    first_BT = jnp.where(starts_BT, count_BT - 1, -position_B[:, None])
    began_BT = jax.lax.cummax(first_BT, axis=1)
    return (count_BT - 1 - began_BT).astype(jnp.int32)


class Places(NamedTuple):
    """Where steps stand in their documents, and where a stream stands after them.

    Attributes:
      segments: `[B, T]`, the number of each step's document; 0 is padding.
      positions: `[B, T]`, real steps of the document before each step.
      segment: `[B]`, the last real number after all steps.
      position: `[B]`, real steps of that document so far.

    >>> places = follow_positions(None, 3, jnp.array([0]), jnp.array([0]))
    >>> places.positions.tolist(), places.position.tolist()
    ([[0, 1, 2]], [3])
    """

    segments: Segments
    positions: Int[Array, "B T"]
    segment: Int[Array, " B"]
    position: Int[Array, " B"]


def follow_positions(
    segments_BT: Segments | None,
    length: int,
    before_B: Int[Array, " B"],
    position_B: Int[Array, " B"],
) -> Places:
    """Where each step stands in its document.

    Args:
      segments_BT: segment numbers `[B, T]`, 0 for padding; None for ones.
      length: T.
      before_B: `[B]`, the last real number of what came earlier in the stream, 0 for nothing.
      position_B: `[B]`, real steps of that document so far.

    Returns:
      Where the steps stand, and the stream after them.

    >>> numbers = jnp.array([[3, 3, 0, 4]])
    >>> follow_positions(numbers, 4, jnp.array([3]), jnp.array([5])).positions.tolist()
    [[5, 6, 6, 0]]
    """
    if segments_BT is None:
        segments_BT = jnp.ones((before_B.shape[0], length), jnp.int32)
    starts_BT, last_B = document_starts(segments_BT, before_B)
    positions_BT = document_positions(segments_BT, starts_BT, position_B)
    return Places(segments_BT, positions_BT, last_B, positions_BT[:, -1] + 1)


def compact(segments: Int[Array, "*batch T"]) -> tuple[Int[Array, "*batch T"], ...]:
    """Takes the padding out of rows: where the real steps are, and where they go.

    Args:
      segments: segment numbers `[..., T]`, 0 for padding.

    Returns:
      `[..., T]`, the indices of the real steps, in order, and then of the padding; `[..., T]`, the
      number of real steps before each step.

    >>> order, rank = compact(jnp.array([0, 7, 0, 7]))
    >>> order.tolist(), rank.tolist()
    ([1, 3, 0, 2], [0, 0, 1, 1])
    """
    real = segments > 0
    order = jnp.argsort(~real, axis=-1, stable=True)
    return order, (jnp.cumsum(real, axis=-1) - real).astype(jnp.int32)


def take_steps(x_BT: Array, steps_BN: Int[Array, "B N"]) -> Array:
    """Takes steps of each row, `[B, T, ...] -> [B, N, ...]`.

    Args:
      x_BT: `[B, T, ...]`.
      steps_BN: `[B, N]`, indices of steps, each from 0 to T - 1.

    Returns:
      `[B, N, ...]`.

    >>> take_steps(jnp.array([[5, 6, 7]]), jnp.array([[2, 0]])).tolist()
    [[7, 5]]
    """
    index = steps_BN.reshape((*steps_BN.shape, *(1,) * (x_BT.ndim - 2)))
    return jnp.take_along_axis(x_BT, index, axis=1)
