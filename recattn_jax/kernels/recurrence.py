"""Recurrences over whole sequences: pure functions on arrays.

A cell is three functions without parameters of their own,

    projected = project(weights, x)         parallel over time
    gates     = merge(projected, h @ U)     elementwise and linear; `operator.add` for most cells
    carry     = advance(carry, gates)       elementwise

and `scan_cell` brings the rest: the scan, resets, padding, blocks of time and one backward pass
that serves every cell. The first entry of a carry is the hidden state h, which is also the output.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recattn_jax.shapes import Activations, Array, Float, Mask

Carry = tuple[Array, ...]
Weights = Any

BLOCK = 16
"""Steps whose gates are projected in one product: few enough that they stay in a CPU's cache."""


class Cell(NamedTuple):
    """What tells one recurrent cell from another; see the module's docstring.

    Its functions should be module-level ones: compiled programs are found again by their identity.
    """

    project: Callable[[Weights, Array], Array]
    merge: Callable[[Array, Array], Array]
    advance: Callable[[Carry, Array], Carry]


def affine(weights: tuple[Array, Array], x: Float[Array, "... D"]) -> Float[Array, "... G H"]:
    """Projects inputs to gates, `x W + b`, summed in float32.

    Args:
      weights: `(input_kernel [D, G, H], bias [G, H])`.
      x: inputs `[..., D]`.

    Returns:
      Gates `[..., G, H]`, float32.

    >>> affine((jnp.ones((2, 4, 3)), jnp.zeros((4, 3))), jnp.ones((5, 2))).shape
    (5, 4, 3)
    """
    kernel_DGH, bias_GH = weights
    gates = jnp.einsum("...d,dgh->...gh", x, kernel_DGH, preferred_element_type=jnp.float32)
    return gates + jnp.reshape(bias_GH.astype(jnp.float32), (1,) * (x.ndim - 1) + bias_GH.shape)


def advance_lstm(carry: Carry, gates_BGH: Float[Array, "B 4 H"]) -> Carry:
    """One LSTM step from its gates, in the order i, f, g, o.

    `c' = sigmoid(f) c + sigmoid(i) tanh(g)`, `h' = sigmoid(o) tanh(c')`.

    Args:
      carry: `(h, c)`, each `[B, H]`.
      gates_BGH: gates before their nonlinearity, `[B, 4, H]`.

    Returns:
      The next `(h, c)`.

    >>> advance_lstm((jnp.zeros((1, 2)), jnp.zeros((1, 2))), jnp.zeros((1, 4, 2)))[0].shape
    (1, 2)

    Hochreiter and Schmidhuber, Long short-term memory, 1997; forget gate: Gers et al., 2000.
    """
    _, cell = carry
    i, f, g, o = (gates_BGH[:, gate] for gate in range(4))
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def advance_elman(carry: Carry, gates_BGH: Float[Array, "B 1 H"]) -> Carry:
    """One step of the tanh RNN: `h' = tanh(gate)`.

    Args:
      carry: `(h,)`, `[B, H]`; the gate already holds its product with the recurrent kernel.
      gates_BGH: `[B, 1, H]`.

    Returns:
      The next `(h,)`.

    >>> advance_elman((jnp.zeros((1, 2)),), jnp.zeros((1, 1, 2)))[0].shape
    (1, 2)

    Elman, Finding structure in time, 1990.
    """
    del carry
    return (jnp.tanh(gates_BGH[:, 0]),)


def scan_cell(
    cell: Cell,
    weights: Weights,
    recurrent_kernel: Float[Array, "H G H"],
    x: Activations,
    carry: Carry,
    starts: Mask | None = None,
    keep: Mask | None = None,
    block: int | None = None,
) -> tuple[Float[Array, "B T H"], Carry]:
    """Runs a cell over whole sequences.

    `gates_t = merge(project(weights, x_t), h_{t-1} U)`, `carry_t = advance(carry_{t-1}, gates_t)`.

    The backward scan carries only the cotangent of the carry; gradients of weights and inputs are
    large products outside it. `jax.jvp` through it raises; `grad`, `vmap` and `checkpoint` work.

    Args:
      cell: the cell's three functions.
      weights: what `cell.project` takes; cast to x's dtype by the caller.
      recurrent_kernel: `[H, G, H]`.
      x: inputs `[B, T, D]`.
      carry: float32 arrays `[B, H]`, the hidden state first.
      starts: `[B, T]`, true where the carry is set to zeros before the step.
      keep: `[B, T]`, false where the step is padding: the carry stays as it is.
      block: steps projected at a time; None is `BLOCK`.

    Returns:
      The hidden states `[B, T, H]` in float32 (unspecified at padding), and the last carry.

    >>> cell = Cell(affine, jnp.add, advance_elman)
    >>> weights = jnp.ones((3, 1, 2)), jnp.zeros((1, 2))
    >>> x, carry = jnp.ones((5, 7, 3)), (jnp.zeros((5, 2)),)
    >>> h, _ = scan_cell(cell, weights, jnp.ones((2, 1, 2)), x, carry)
    >>> h.shape
    (5, 7, 2)
    """
    block = BLOCK if block is None else block
    masks = tuple(None if mask is None else jnp.swapaxes(mask, 0, 1) for mask in (starts, keep))
    x_TBD = jnp.swapaxes(x, 0, 1)
    hidden_TBH, last = _compiled_scan(cell, block, weights, recurrent_kernel, x_TBD, carry, masks)
    return jnp.swapaxes(hidden_TBH, 0, 1), last


_Masks = tuple[Mask | None, Mask | None]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(
    cell: Cell,
    block: int,
    weights: Weights,
    kernel: Array,
    x_TBD: Array,
    carry: Carry,
    masks: _Masks,
) -> tuple[Array, Carry]:
    return _scan_forward(cell, block, weights, kernel, x_TBD, carry, masks)[0]


def _scan_forward(
    cell: Cell,
    block: int,
    weights: Weights,
    kernel: Array,
    x_TBD: Array,
    carry: Carry,
    masks: _Masks,
) -> tuple[tuple[Array, Carry], Any]:
    kernel_x = kernel.astype(x_TBD.dtype)

    def step(carry: Carry, inputs: Any) -> tuple[Carry, Any]:
        projected, (start, keep) = inputs
        before = _reset(carry, start)
        gates = cell.merge(projected, _recur(before[0], kernel_x))
        after = _select(keep, cell.advance(before, gates), carry)
        return after, (after, gates)

    def run_block(carry: Carry, inputs: Any) -> tuple[Carry, Any]:
        x_block, mask_block = inputs
        projected = cell.project(weights, x_block)
        return jax.lax.scan(step, carry, (projected, mask_block), unroll=x_block.shape[0])

    last, (carries, gates) = _scan_blocks(run_block, block, carry, (x_TBD, masks))
    return (carries[0], last), (weights, kernel, x_TBD, carry, masks, carries, gates)


def _scan_backward(cell: Cell, block: int, residuals: Any, cotangents: Any) -> tuple[Any, ...]:
    del block
    weights, kernel, x_TBD, carry, masks, carries, gates_TBGH = residuals
    d_hidden_TBH, d_last = cotangents
    # Turned once, here: in the loop it would be turned in every step.
    kernel_GHK = jnp.moveaxis(kernel.astype(x_TBD.dtype), 0, -1)
    # What each step saw: the carry of the step before, zeros where a document starts.
    before = tuple(
        jnp.concatenate([first[None], rest[:-1]])
        for first, rest in zip(carry, carries, strict=True)
    )
    before = _reset(before, masks[0])

    def step(d_carry: Carry, inputs: Any) -> tuple[Carry, Array]:
        d_hidden, before, gates, (start, keep) = inputs
        d_carry = (d_carry[0] + d_hidden, *d_carry[1:])
        d_after = _select(keep, d_carry, _zeros(d_carry))
        _, pull = jax.vjp(cell.advance, before, gates)
        d_before, d_gates = pull(d_after)
        d_recurrent = _split_gates(cell, gates, kernel, d_gates)[1]
        d_hidden = d_before[0] + _recur_transposed(d_recurrent, kernel_GHK)
        d_before = _reset((d_hidden, *d_before[1:]), start)
        return _select(keep, d_before, d_carry), d_gates

    d_carry, d_gates_TBGH = jax.lax.scan(
        step, d_last, (d_hidden_TBH, before, gates_TBGH, masks), reverse=True
    )
    d_projected, d_recurrent = _split_gates(cell, gates_TBGH, kernel, d_gates_TBGH)
    _, pull = jax.vjp(cell.project, weights, x_TBD)
    d_weights, d_x = pull(d_projected)
    d_kernel = jnp.einsum(
        "tbk,tbgh->kgh",
        before[0].astype(x_TBD.dtype),
        d_recurrent.astype(x_TBD.dtype),
        preferred_element_type=jnp.float32,
    )
    return d_weights, d_kernel.astype(kernel.dtype), d_x, d_carry, (None, None)


_scan.defvjp(_scan_forward, _scan_backward)
# The bodies of the scans are closures: without a cache of its own every eager call would compile.
_compiled_scan = jax.jit(_scan, static_argnums=(0, 1))


def _recur(hidden_BH: Array, kernel: Array) -> Array:
    return jnp.einsum(
        "bk,kgh->bgh", hidden_BH.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32
    )


def _recur_transposed(d_recurrent_BGH: Array, kernel: Array) -> Array:
    return jnp.einsum(
        "bgh,ghk->bk",
        d_recurrent_BGH.astype(kernel.dtype),
        kernel,
        preferred_element_type=jnp.float32,
    )


def _split_gates(cell: Cell, gates: Array, kernel: Array, d_gates: Array) -> tuple[Array, Array]:
    """The cotangents of the inputs of `merge`: it is linear, so any inputs give the same."""
    zeros = jnp.zeros((*gates.shape[:-2], *kernel.shape[1:]), gates.dtype)
    return jax.vjp(cell.merge, zeros, zeros)[1](d_gates)


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


def _scan_blocks(
    run_block: Callable[[Carry, Any], tuple[Carry, Any]], block: int, carry: Carry, inputs: Any
) -> tuple[Carry, Any]:
    """Scans over blocks of time; what does not fill a block at the end is a block of its own."""
    length = jax.tree.leaves(inputs)[0].shape[0]
    blocks, rest = divmod(length, block)
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
