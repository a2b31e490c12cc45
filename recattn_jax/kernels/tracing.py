"""The reference of `recurrence.scan_cell`: a cell as it is written, which keeps everything."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recattn_jax.kernels.products import recurrent_products
from recattn_jax.kernels.recurrence import Carry, Cell, Weights
from recattn_jax.shapes import Array, Float, Mask


class Traced(NamedTuple):
    """A recurrence with all that it went through.

    Attributes:
      hidden: `[B, T, P]`, the hidden states.
      carry: the last carry.
      carries: after each step, arrays `[B, T, ...]`.
      gates: by name, arrays `[B, T, H]`, as `Cell.view` gives them; {} of a cell without.

    >>> traced = trace_cell(cell, weights, recurrent_kernel, x, carry)  # doctest: +SKIP
    >>> traced.gates["forget"]  # doctest: +SKIP
    """

    hidden: Array
    carry: Carry
    carries: Carry
    gates: dict[str, Array]


def trace_cell(
    cell: Cell,
    weights: Weights,
    recurrent_kernel: Float[Array, "*N _ G H"],
    x: Any,
    carry: Carry,
    starts: Mask | None = None,
    keep: Mask | None = None,
    *,
    step_weights: tuple[Any, ...] = (),
    drop: Float[Array, "B _ _"] | None = None,
) -> Traced:
    """Runs a cell as it is written, one step after the other, and keeps everything.

    The reference of `scan_cell`: the same values, in more time and memory, for looking inside.

    Args:
      cell: the cell's functions.
      weights: as in `scan_cell`, like all that follow.
      recurrent_kernel: `[P, G, H]` or `[N, K, G, K]`.
      x: inputs `[B, T, D]`, or a pytree of arrays `[B, T, ...]`.
      carry: arrays `[B, ...]`, the hidden state first.
      starts: `[B, T]`, true where the carry is set to zeros before the step.
      keep: `[B, T]`, false where the step is padding.
      step_weights: what `cell.advance` takes beside the carry and the gates.
      drop: `[B, T, P]` or `[B, 1, P]`.

    Returns:
      Hidden states, the last carry, and carries and gates of every step.

    >>> from recattn_jax.kernels.products import affine
    >>> cell = Cell(affine, jnp.add, lambda carry, gates: (jnp.tanh(gates[:, 0]),))
    >>> weights = jnp.ones((3, 1, 2)), jnp.zeros((1, 2))
    >>> x, carry = jnp.ones((5, 7, 3)), (jnp.zeros((5, 2)),)
    >>> trace_cell(cell, weights, jnp.ones((2, 1, 2)), x, carry).carries[0].shape
    (5, 7, 2)
    """
    recur = recurrent_products(recurrent_kernel, steps=1).forward
    length = jax.tree.leaves(x)[0].shape[1]
    if drop is not None:
        drop = jnp.broadcast_to(drop, (drop.shape[0], length, drop.shape[2]))

    def step(carry: Carry, now: Any) -> tuple[Carry, Any]:
        x, start_B, keep_B, drop_BP = now
        before = carry
        if start_B is not None:
            before = tuple(jnp.where(start_B[:, None], 0, leaf) for leaf in carry)
        seen = before[0] if drop_BP is None else before[0] * drop_BP
        gates = cell.merge(cell.project(weights, x), recur(seen))
        after = cell.advance(before, gates, *step_weights)
        if keep_B is not None:
            keep_B1 = keep_B[:, None]
            after = tuple(jnp.where(keep_B1, a, b) for a, b in zip(after, carry, strict=True))
        view = {} if cell.view is None else cell.view(before, gates, *step_weights)
        return after, (after, view)

    over_time = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (x, starts, keep, drop))
    last, seen = jax.lax.scan(step, carry, over_time)
    carries, gates = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), seen)
    return Traced(carries[0], last, carries, gates)
