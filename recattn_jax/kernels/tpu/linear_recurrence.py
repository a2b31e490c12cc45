"""The elementwise linear recurrence on a TPU: one pass over memory, the carry stays on the core."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from recattn_jax.shapes import Float

ROWS, LANES = 8, 512
"""Batch rows and units of one program: whole registers of 8 by 128, enough to hide their delay."""
STEPS = 64
"""Steps in one block of time: three arrays of 1 MB, each twice while the next is fetched."""
UNROLL = 8


def solve(
    reverse: bool, decay: Float[jax.Array, "B T H"], inputs: Float[jax.Array, "B T H"]
) -> Float[jax.Array, "B T H"]:
    """`h_t = a_t h_{t-1} + b_t` from zeros, or `h_t = a_t h_{t+1} + b_t`.

    Programs take tiles of the batch and of H, and blocks of time one after the other. Time comes
    first in memory, so that one step of a tile is whole registers. Where a tile reaches over an end
    its values are never used.

    Args:
      reverse: whether it runs back in time.
      decay: `a`, `[B, T, H]`, float32.
      inputs: `b`, `[B, T, H]`, float32.

    Returns:
      `h`, `[B, T, H]`, float32.

    Raises:
      ValueError: if the arrays are not float32.

    >>> solve(False, decay, inputs)  # doctest: +SKIP
    """
    if inputs.dtype != jnp.float32:
        raise ValueError(
            f"linear_recurrence: implementation='pallas' is float32, not {inputs.dtype}; use None"
        )
    batch, length, width = inputs.shape
    steps, rows, lanes = min(STEPS, length), min(ROWS, batch), min(LANES, width)
    blocks = pl.cdiv(length, steps)

    def place(row: Any, lane: Any, block: Any) -> tuple[Any, Any, Any]:
        return blocks - 1 - block if reverse else block, row, lane

    tile = pl.BlockSpec((steps, rows, lanes), place)
    hidden_TBH = pl.pallas_call(
        partial(_run_block, reverse, length),
        jax.ShapeDtypeStruct((length, batch, width), inputs.dtype),
        grid=(pl.cdiv(batch, rows), pl.cdiv(width, lanes), blocks),
        in_specs=[tile, tile],
        out_specs=tile,
        scratch_shapes=[pltpu.VMEM((rows, lanes), inputs.dtype)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        name="linear_recurrence",
    )(jnp.swapaxes(decay, 0, 1), jnp.swapaxes(inputs, 0, 1))
    return jnp.swapaxes(hidden_TBH, 0, 1)


def _run_block(
    reverse: bool, length: int, decay_ref: Any, input_ref: Any, hidden_ref: Any, carry_ref: Any
) -> None:
    """One block of time of one tile; the carry is what the block before left."""
    steps = hidden_ref.shape[0]
    turn, blocks = pl.program_id(2), pl.num_programs(2)
    first = (blocks - 1 - turn if reverse else turn) * steps

    @pl.when(turn == 0)
    def _() -> None:
        carry_ref[...] = jnp.zeros_like(carry_ref)

    def step(n: Any, hidden: jax.Array) -> jax.Array:
        t = steps - 1 - n if reverse else n
        hidden = decay_ref[t] * hidden + input_ref[t]
        if length % steps:  # back in time, what lies past the end would come first
            hidden = jnp.where(first + t < length, hidden, 0.0)
        hidden_ref[t] = hidden
        return hidden

    # The compiler unrolls whole loops or nothing: the turns of a loop are unrolled by hand.
    unroll = UNROLL if steps % UNROLL == 0 else 1

    def some_steps(n: Any, hidden: jax.Array) -> jax.Array:
        for k in range(unroll):
            hidden = step(n * unroll + k, hidden)
        return hidden

    carry_ref[...] = jax.lax.fori_loop(0, steps // unroll, some_steps, carry_ref[...])
