"""Recurrences over whole sequences: pure functions on arrays.

A cell is three functions without parameters of their own,

    projected = project(weights, x)                   parallel over time
    gates     = merge(projected, h @ U)               elementwise and linear; mostly `operator.add`
    carry     = advance(carry, gates, *step_weights)  elementwise, but for products with weights

and `scan_cell` brings the rest: the scan, resets, padding, blocks of time and one backward pass
that serves every cell. The first entry of a carry is the hidden state h, which is also the output.
The cells themselves stand in `kernels.cells`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recattn_jax.kernels.precision import wide
from recattn_jax.kernels.products import kernel_gradient, recur, recur_transposed, units_of
from recattn_jax.shapes import Array, Float, Mask

Carry = tuple[Array, ...]
Weights = Any

BLOCK = 16
"""Steps whose gates are projected in one product: few enough that they stay in a CPU's cache."""


class Cell(NamedTuple):
    """What tells one recurrent cell from another; see the module's docstring.

    Its functions should be module-level ones, or come from a cached factory: compiled programs are
    found again by their identity. What `project` takes, and gates, may be any pytree of arrays.
    """

    project: Callable[[Weights, Any], Any]
    merge: Callable[[Any, Array], Any]
    advance: Callable[..., Carry]


def scan_cell(
    cell: Cell,
    weights: Weights,
    recurrent_kernel: Float[Array, "*N _ G H"],
    x: Any,
    carry: Carry,
    starts: Mask | None = None,
    keep: Mask | None = None,
    block: int | None = None,
    *,
    step_weights: tuple[Any, ...] = (),
    drop: Float[Array, "B _ _"] | None = None,
    remat_every: int | None = None,
) -> tuple[Float[Array, "B T _"], Carry]:
    """Runs a cell over whole sequences.

    `gates_t = merge(project(weights, x_t), h_{t-1} U)`,
    `carry_t = advance(carry_{t-1}, gates_t, *step_weights)`.

    The backward scan carries only cotangents of the carry and the gates; gradients of weights and
    inputs are large products outside it. `jax.jvp` through it raises; `grad`, `vmap` and
    `checkpoint` work.

    Args:
      cell: the cell's three functions.
      weights: what `cell.project` takes; cast to x's dtype by the caller, as are the next.
      recurrent_kernel: `[P, G, H]`, P the width of h; or `[N, K, G, K]` for N heads of K units that
        do not see each other.
      x: inputs `[B, T, D]`, or a pytree of arrays `[B, T, ...]`, as `cell.project` takes them.
      carry: arrays `[B, ...]`, float32 or wider, the hidden state `[B, P]` first.
      starts: `[B, T]`, true where the carry is set to zeros before the step.
      keep: `[B, T]`, false where the step is padding: the carry stays as it is.
      block: steps projected at a time; None is `BLOCK`.
      step_weights: what `cell.advance` takes beside the carry and the gates.
      drop: `[B, T, P]`, or `[B, 1, P]` for all steps: what h is multiplied by before the product
        with the recurrent kernel; it gets no gradient.
      remat_every: None keeps all gates and carries for the backward pass; k keeps the carry of
        every k-th step, and computes the rest anew from there.

    Returns:
      The hidden states `[B, T, P]` in the dtype of the carry (unspecified at padding), and the last
      carry.

    >>> cell = Cell(affine, jnp.add, lambda carry, gates: (jnp.tanh(gates[:, 0]),))
    >>> weights = jnp.ones((3, 1, 2)), jnp.zeros((1, 2))
    >>> x, carry = jnp.ones((5, 7, 3)), (jnp.zeros((5, 2)),)
    >>> h, _ = scan_cell(cell, weights, jnp.ones((2, 1, 2)), x, carry)
    >>> h.shape
    (5, 7, 2)
    """
    block = BLOCK if block is None else block
    every_drop = None
    if drop is not None and drop.shape[1] == 1:
        every_drop, drop = drop[:, 0], None
    fixed = _Fixed(weights, recurrent_kernel, step_weights, every_drop)
    inputs = (x, _Masks(starts, keep, drop))
    x_TB, masks = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), inputs)
    hidden_TBP, last = _compiled_scan(cell, block, remat_every, fixed, x_TB, carry, masks)
    return jnp.swapaxes(hidden_TBP, 0, 1), last


class _Fixed(NamedTuple):
    """What is the same at every step; `drop` is `[B, P]`."""

    weights: Weights
    kernel: Array
    step_weights: tuple[Any, ...]
    drop: Array | None


class _Masks(NamedTuple):
    """What is told of each step: `[T, B]`, `[T, B]` and `[T, B, P]`, or without the T."""

    starts: Array | None
    keep: Array | None
    drop: Array | None


def _run(
    cell: Cell,
    block: int,
    remat_every: int | None,
    fixed: _Fixed,
    x_TB: Any,
    carry: Carry,
    masks: _Masks,
) -> tuple[Array, Carry]:
    if remat_every is None:
        return _scan(cell, block, fixed, x_TB, carry, masks)
    # Weights enter the chunks wide, so that the sum of the chunks' gradients is wide too.
    widened = jax.tree.map(lambda a: a.astype(wide(a.dtype)), fixed)

    @jax.checkpoint
    def chunk(carry: Carry, inputs: Any) -> tuple[Carry, Array]:
        narrow = jax.tree.map(lambda a, like: a.astype(like.dtype), widened, fixed)
        hidden_TBP, last = _scan(cell, block, narrow, inputs[0], carry, inputs[1])
        return last, hidden_TBP

    last, hidden_TBP = _scan_blocks(chunk, remat_every, carry, (x_TB, masks))
    return hidden_TBP, last


# The bodies of the scans are closures: without a cache of its own every eager call would compile.
_compiled_scan = jax.jit(_run, static_argnums=(0, 1, 2))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(
    cell: Cell, block: int, fixed: _Fixed, x_TB: Any, carry: Carry, masks: _Masks
) -> tuple[Array, Carry]:
    return _scan_forward(cell, block, fixed, x_TB, carry, masks)[0]


def _scan_forward(
    cell: Cell, block: int, fixed: _Fixed, x_TB: Any, carry: Carry, masks: _Masks
) -> tuple[tuple[Array, Carry], Any]:
    def step(carry: Carry, inputs: Any) -> tuple[Carry, Any]:
        projected, now = inputs
        before = _reset(carry, now.starts)
        seen = _drop(before[0], fixed.drop, now.drop)
        gates = cell.merge(projected, recur(seen, fixed.kernel))
        after = _select(now.keep, cell.advance(before, gates, *fixed.step_weights), carry)
        return after, (after[0], before[1:], gates)

    def run_block(carry: Carry, inputs: Any) -> tuple[Carry, Any]:
        x_block, mask_block = inputs
        projected = cell.project(fixed.weights, x_block)
        return jax.lax.scan(step, carry, (projected, mask_block), unroll=_length(x_block))

    last, (hidden, before, gates) = _scan_blocks(run_block, block, carry, (x_TB, masks))
    return (hidden, last), (fixed, x_TB, masks, carry[0], hidden, before, gates)


def _scan_backward(cell: Cell, block: int, residuals: Any, cotangents: Any) -> tuple[Any, ...]:
    del block
    fixed, x_TB, masks, first, hidden, before, gates_TB = residuals
    d_hidden_TBP, d_last = cotangents
    # Turned once, here: in the loop it would be turned in every step.
    turned = jnp.moveaxis(fixed.kernel, -3, -1)
    # What each step saw: the carry of the step before, zeros where a document starts.
    before = _reset((jnp.concatenate([first[None], hidden[:-1]]),), masks.starts) + before
    merged = (
        jax.eval_shape(cell.project, fixed.weights, x_TB),
        jax.ShapeDtypeStruct(d_hidden_TBP.shape[:2] + units_of(fixed.kernel), d_hidden_TBP.dtype),
    )

    def unmerge(d_gates: Any, at: int) -> tuple[Any, Array]:
        """The cotangents of the inputs of `merge`: it is linear, so any inputs give the same."""
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape[at:], a.dtype), merged)
        return jax.vjp(cell.merge, *zeros)[1](d_gates)

    def step(carried: tuple[Carry, Any], inputs: Any) -> tuple[tuple[Carry, Any], Any]:
        # The cotangents of the gates take their place, so that there is one array of that size.
        d_carry, gates_TB = carried
        d_hidden, before, now, at = inputs
        gates = jax.tree.map(lambda a: a[at], gates_TB)
        d_carry = (d_carry[0] + d_hidden, *d_carry[1:])
        d_after = _select(now.keep, d_carry, _zeros(d_carry))
        _, pull = jax.vjp(lambda *a: cell.advance(*a, *fixed.step_weights), before, gates)
        d_before, d_gates = pull(d_after)
        d_seen = recur_transposed(unmerge(d_gates, 1)[1], turned)
        d_hidden = d_before[0] + _drop(d_seen, fixed.drop, now.drop)
        d_before = _reset((d_hidden, *d_before[1:]), now.starts)
        d_gates_TB = jax.tree.map(lambda a, new: a.at[at].set(new), gates_TB, d_gates)
        d_carry = _select(now.keep, d_before, d_carry)
        return (d_carry, d_gates_TB), d_after if fixed.step_weights else None

    steps = (d_hidden_TBP, before, masks, jnp.arange(_length(d_hidden_TBP)))
    (d_carry, d_gates_TB), d_after_TB = jax.lax.scan(step, (d_last, gates_TB), steps, reverse=True)
    d_projected, d_recurrent = unmerge(d_gates_TB, 0)
    _, pull = jax.vjp(cell.project, fixed.weights, x_TB)
    d_weights, d_x = pull(d_projected)
    seen = _drop(before[0], fixed.drop, masks.drop)
    d_fixed = _Fixed(
        d_weights,
        kernel_gradient(seen, d_recurrent, fixed.kernel),
        _step_weights_gradient(cell, fixed.step_weights, before, gates_TB, d_after_TB),
        None,
    )
    return d_fixed, d_x, d_carry, None


_scan.defvjp(_scan_forward, _scan_backward)


def _step_weights_gradient(
    cell: Cell, step_weights: tuple[Any, ...], before: Carry, gates_TB: Any, d_after_TB: Any
) -> tuple[Any, ...]:
    """All steps advance at once, so that each gradient is one product over time and batch."""
    if not step_weights:
        return ()

    def advance(step_weights: tuple[Any, ...]) -> Carry:
        return jax.vmap(lambda *a: cell.advance(*a, *step_weights))(before, gates_TB)

    return jax.vjp(advance, step_weights)[1](d_after_TB)[0]


def _drop(hidden: Array, every: Array | None, now: Array | None) -> Array:
    """Multiplies by the mask of every step, `[B, P]`, or by that of the steps at hand."""
    if every is not None:
        now = every.reshape((1,) * (hidden.ndim - 2) + every.shape)
    return hidden if now is None else hidden * now.astype(hidden.dtype)


def _reset(carry: Carry, start: Array | None) -> Carry:
    if start is None:
        return carry
    return tuple(jnp.where(start[..., None], 0, leaf) for leaf in carry)


def _select(keep: Array | None, new: Carry, old: Carry) -> Carry:
    if keep is None:
        return new
    return tuple(jnp.where(keep[..., None], n, o) for n, o in zip(new, old, strict=True))


def _zeros(carry: Carry) -> Carry:
    return tuple(jnp.zeros_like(leaf) for leaf in carry)


def _length(inputs: Any) -> int:
    return jax.tree.leaves(inputs)[0].shape[0]


def _scan_blocks(
    run_block: Callable[[Carry, Any], tuple[Carry, Any]], block: int, carry: Carry, inputs: Any
) -> tuple[Carry, Any]:
    """Scans over blocks of time; what does not fill a block at the end is a block of its own."""
    blocks, rest = divmod(_length(inputs), block)
    whole = blocks * block
    outputs = []
    if blocks:
        blocked = jax.tree.map(lambda a: a[:whole].reshape((blocks, block, *a.shape[1:])), inputs)
        carry, out = jax.lax.scan(run_block, carry, blocked)
        outputs.append(jax.tree.map(lambda a: a.reshape((whole, *a.shape[2:])), out))
    if rest:
        carry, out = run_block(carry, jax.tree.map(lambda a: a[whole:], inputs))
        outputs.append(out)
    if len(outputs) == 1:
        return carry, outputs[0]
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)
