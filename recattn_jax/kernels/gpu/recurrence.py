"""Recurrent cells on a GPU, each a single kernel that walks over all steps.

A program keeps the carry of some rows of the batch in its registers. The hidden state also goes
through memory, since a product takes it in another layout and in parts: it is an output anyway.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from recattn_jax.kernels.products import affine
from recattn_jax.kernels.recurrence import Carry
from recattn_jax.shapes import Array, Float, Mask

ROWS = 16
"""Batch rows of one program: the least that a product takes."""
LEAST, PART = 16, 64
"""The least units of a product, and the rows of a kernel that are in shared memory at a time."""
LARGEST = 256
"""The most units H: what a product of one gate gives must fit into registers."""
START, PADDING = 1, 2
"""Marks of steps: the carry is set to zeros before one, and one that is no step."""


class Cell(NamedTuple):
    """A cell whose gates are arrays of their own, since a kernel cannot cut its registers.

    Attributes:
      places: for each gate, which gate of the recurrent product is added to it; None for none.
      leaves: how many arrays the carry has.
      advance: from a carry, arrays `[B, H]`, and the gates, `[B, H]` each, to the next carry.

    >>> Cell((0,), 1, lambda carry, gates: (jnp.tanh(gates[0]),)).leaves
    1
    """

    places: tuple[int | None, ...]
    leaves: int
    advance: Callable[[Carry, tuple[Array, ...]], Carry]


def _advance_lstm(carry: Carry, gates: tuple[Array, ...]) -> Carry:
    i, f, g, o = gates
    cell = jax.nn.sigmoid(f) * carry[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def _advance_gru(carry: Carry, gates: tuple[Array, ...]) -> Carry:
    r, z, n, recurrent = gates
    z = jax.nn.sigmoid(z)
    return ((1.0 - z) * jnp.tanh(n + jax.nn.sigmoid(r) * recurrent) + z * carry[0],)


LSTM = Cell((0, 1, 2, 3), 2, _advance_lstm)
"""Of `cells.lstm()`."""
GRU = Cell((0, 1, None, 2), 1, _advance_gru)
"""Of `cells.gru()`, which resets after the product."""


def run(
    cell: Cell,
    weights: tuple[Float[Array, "D _ H"], Float[Array, "G H"]],
    recurrent_kernel: Float[Array, "H _ H"],
    x: Float[Array, "B T D"],
    carry: Carry,
    starts: Mask | None,
    keep: Mask | None,
) -> tuple[Float[Array, "B T H"], Carry]:
    """Runs a cell over whole sequences, as `scan_cell` does.

    All inputs are projected in one product before. Gates and carries of all steps are kept for the
    backward pass, a kernel that walks back; gradients of weights are large products after it. H is
    padded to a power of 2 and B to a multiple of 16.

    Args:
      cell: `LSTM` or `GRU`.
      weights: `(input_kernel [D, G, H], bias [G, H])`, as `products.affine` takes them.
      recurrent_kernel: `[H, R, H]`, float32 or bfloat16.
      x: `[B, T, D]`, finite.
      carry: arrays `[B, H]`, float32, the hidden state first.
      starts: `[B, T]`, true where the carry is set to zeros before the step.
      keep: `[B, T]`, false where the step is padding: the carry stays as it is.

    Returns:
      The hidden states `[B, T, H]`, float32, and the last carry.

    Raises:
      ValueError: if H is more than 256, or the sums would be wider than float32.

    >>> run(LSTM, weights, recurrent_kernel, x, (h, c), None, None)  # doctest: +SKIP

    Diamos et al., Persistent RNNs, 2016.
    """
    batch, length, _ = x.shape
    units = recurrent_kernel.shape[0]
    if units > LARGEST or carry[0].dtype != jnp.float32:
        raise ValueError(
            f"recurrence: implementation='pallas' takes at most {LARGEST} units and float32 or "
            f"bfloat16, got {units} units and {x.dtype}; use None"
        )
    marks_BT = jnp.zeros((batch, length), jnp.int32)
    if starts is not None:
        marks_BT += START * starts.astype(jnp.int32)
    if keep is not None:
        marks_BT = jnp.where(keep, marks_BT, PADDING)
    lanes = max(LEAST, pl.next_power_of_2(units)) - units
    rows = -batch % ROWS
    carry_after = _walk(
        cell,
        jnp.pad(affine(weights, x), [(0, rows), (0, 0), (0, 0), (0, lanes)]),
        jnp.pad(jnp.swapaxes(recurrent_kernel, 0, 1), [(0, 0), (0, lanes), (0, lanes)]),
        tuple(jnp.pad(leaf, [(0, rows), (0, lanes)]) for leaf in carry),
        jnp.pad(marks_BT, [(0, rows), (0, 0)], constant_values=PADDING),
    )
    carry_after = tuple(leaf[:batch, 1:, :units] for leaf in carry_after)
    return carry_after[0], tuple(leaf[:, -1] for leaf in carry_after)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _walk(
    cell: Cell, projected: Array, kernel_GKH: Array, carry: Carry, marks_BT: Array
) -> tuple[Array, ...]:
    """From gates `[B, T, G, H]` to carries `[B, T + 1, H]`, of which the first is the one given."""
    return _walk_forward(cell, projected, kernel_GKH, carry, marks_BT)[0]


def _walk_forward(
    cell: Cell, projected: Array, kernel_GKH: Array, carry: Carry, marks_BT: Array
) -> tuple[tuple[Array, ...], Any]:
    batch, length, gates, units = projected.shape
    like_carry = jax.ShapeDtypeStruct((batch, length + 1, units), jnp.float32)
    *carries, gates_BTGH = _call(
        partial(_step_on, cell),
        (projected, marks_BT, *carry),
        (kernel_GKH,),
        (*(like_carry,) * cell.leaves, jax.ShapeDtypeStruct(projected.shape, jnp.float32)),
        "recurrence_forward",
    )
    return tuple(carries), (kernel_GKH, tuple(carries), gates_BTGH, marks_BT)


def _walk_backward(cell: Cell, residuals: Any, d_carries: tuple[Array, ...]) -> tuple[Any, ...]:
    kernel_GKH, carries, gates_BTGH, marks_BT = residuals
    like_carry = jax.ShapeDtypeStruct(carries[0][:, 0].shape, jnp.float32)
    d_gates_BTGH, *d_carry = _call(
        partial(_step_back, cell),
        (gates_BTGH, marks_BT, *carries, *d_carries),
        (jnp.swapaxes(kernel_GKH, 1, 2),),
        (jax.ShapeDtypeStruct(gates_BTGH.shape, jnp.float32), *(like_carry,) * cell.leaves),
        "recurrence_backward",
    )
    seen_BTH = jnp.where((marks_BT == START)[:, :, None], 0.0, carries[0][:, :-1])
    fed = [gate for gate, place in enumerate(cell.places) if place is not None]
    d_kernel_GKH = jnp.einsum(
        "btk,btgh->gkh",
        seen_BTH.astype(kernel_GKH.dtype),
        d_gates_BTGH[:, :, jnp.array(fed)].astype(kernel_GKH.dtype),
        preferred_element_type=jnp.float32,
    )
    return d_gates_BTGH, d_kernel_GKH.astype(kernel_GKH.dtype), tuple(d_carry), None


_walk.defvjp(_walk_forward, _walk_backward)


def _call(
    kernel: Callable[..., None],
    cut: tuple[Array, ...],
    whole: tuple[Array, ...],
    out: tuple[jax.ShapeDtypeStruct, ...],
    name: str,
) -> Any:
    """Runs a kernel with the arrays cut into rows of the batch, and those that all programs see."""

    def rows(x: Any) -> pl.BlockSpec:
        rest = len(x.shape) - 1
        return pl.BlockSpec((ROWS, *x.shape[1:]), lambda n: (n, *(0,) * rest))

    def all_of(x: Any) -> pl.BlockSpec:
        rank = len(x.shape)
        return pl.BlockSpec(x.shape, lambda n: (0,) * rank)

    return pl.pallas_call(
        kernel,
        out,
        grid=(cut[0].shape[0] // ROWS,),
        in_specs=[*map(all_of, whole), *map(rows, cut)],
        out_specs=tuple(map(rows, out)),
        # One stage: loads of a later step may not come before the stores of this one.
        compiler_params=plgpu.CompilerParams(
            num_warps=4 if out[0].shape[-1] <= PART else 8, num_stages=1
        ),
        name=name,
    )(*whole, *cut)


def _product(x_ref: Any, at: tuple[Any, ...], kernel_ref: Any, gate: int) -> Array:
    """`x W` of one gate, a part of W at a time; x is `x_ref` `[B, ..., H]` at some step."""
    units = kernel_ref.shape[1]
    part = min(PART, units)
    total = jnp.zeros((ROWS, units), jnp.float32)
    for first in range(0, units, part):
        rows = pl.ds(first, part)
        kernel = kernel_ref[gate, rows, :]
        x = x_ref[(slice(None), *at, rows)].astype(kernel.dtype)
        total += jnp.dot(x, kernel, preferred_element_type=jnp.float32)
    return total


def _where(mask_B: Array, new: Array | float, old: Array) -> Array:
    return jnp.where(mask_B[:, None], new, old)


def _step_on(cell: Cell, kernel_ref: Any, gates_in: Any, marks_ref: Any, *refs: Any) -> None:
    first, carries, gates_out = refs[: cell.leaves], refs[cell.leaves : -1], refs[-1]
    carry = tuple(ref[...] for ref in first)
    for ref, leaf in zip(carries, carry, strict=True):
        ref[:, 0, :] = leaf

    def step(t: Any, carry: Carry) -> Carry:
        plgpu.debug_barrier()  # what the threads stored of h is what the others read
        mark = marks_ref[:, t]
        before = tuple(_where(mark == START, 0.0, leaf) for leaf in carry)
        gates = []
        for gate, place in enumerate(cell.places):
            value = gates_in[:, t, gate, :]
            if place is not None:
                recurrent = _product(carries[0], (t,), kernel_ref, place)
                value += _where(mark == START, 0.0, recurrent)
            gates_out[:, t, gate, :] = value
            gates.append(value)
        after = cell.advance(before, tuple(gates))
        after = tuple(_where(mark == PADDING, o, n) for o, n in zip(carry, after, strict=True))
        for ref, leaf in zip(carries, after, strict=True):
            ref[:, t + 1, :] = leaf
        return after

    jax.lax.fori_loop(0, gates_in.shape[1], step, carry)


def _step_back(cell: Cell, turned_ref: Any, gates_ref: Any, marks_ref: Any, *refs: Any) -> None:
    carries, d_carries = refs[: cell.leaves], refs[cell.leaves : 2 * cell.leaves]
    d_gates_ref, *d_first = refs[2 * cell.leaves :]
    length = gates_ref.shape[1]

    def step(n: Any, d_carry: Carry) -> Carry:
        t = length - 1 - n
        mark = marks_ref[:, t]
        d_carry = tuple(d + ref[:, t + 1, :] for d, ref in zip(d_carry, d_carries, strict=True))
        before = tuple(_where(mark == START, 0.0, ref[:, t, :]) for ref in carries)
        gates = tuple(gates_ref[:, t, g, :] for g in range(len(cell.places)))
        _, pull = jax.vjp(cell.advance, before, gates)
        d_before, d_gates = pull(tuple(_where(mark == PADDING, 0.0, d) for d in d_carry))
        for gate, d_gate in enumerate(d_gates):
            d_gates_ref[:, t, gate, :] = d_gate
        plgpu.debug_barrier()  # what the threads stored is what the others read
        d_hidden = d_before[0]
        for gate, place in enumerate(cell.places):
            if place is not None:
                d_hidden += _product(d_gates_ref, (t, gate), turned_ref, place)
        d_before = tuple(_where(mark == START, 0.0, d) for d in (d_hidden, *d_before[1:]))
        return tuple(_where(mark == PADDING, o, d) for o, d in zip(d_carry, d_before, strict=True))

    zeros = tuple(jnp.zeros(ref.shape, jnp.float32) for ref in d_first)
    d_carry = jax.lax.fori_loop(0, length, step, zeros)
    for ref, source, d in zip(d_first, d_carries, d_carry, strict=True):
        ref[...] = d + source[:, 0, :]
