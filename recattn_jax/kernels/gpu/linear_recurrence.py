"""The elementwise linear recurrence on a GPU: one pass over memory, the carry in registers."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from recattn_jax.shapes import Float

LANES = 64
"""Units of one program: few, so that there are many programs."""
UNROLL = 8
"""Steps that are read at once, before the first of them is taken."""


def solve(
    reverse: bool, decay: Float[jax.Array, "B T H"], inputs: Float[jax.Array, "B T H"]
) -> Float[jax.Array, "B T H"]:
    """`h_t = a_t h_{t-1} + b_t` from zeros, or `h_t = a_t h_{t+1} + b_t`.

    One program for each row of the batch and each tile of H, which walks over all steps.

    Args:
      reverse: whether it runs back in time.
      decay: `a`, `[B, T, H]`, float32 or float64.
      inputs: `b`, `[B, T, H]`, of the same dtype.

    Returns:
      `h`, `[B, T, H]`, in that dtype.

    >>> solve(False, decay, inputs)  # doctest: +SKIP
    """
    batch, length, width = inputs.shape
    row = pl.BlockSpec((None, length, LANES), lambda row, tile: (row, 0, tile))
    return pl.pallas_call(
        partial(_run_row, reverse, width),
        jax.ShapeDtypeStruct(inputs.shape, inputs.dtype),
        grid=(batch, pl.cdiv(width, LANES)),
        in_specs=[row, row],
        out_specs=row,
        compiler_params=plgpu.CompilerParams(num_warps=LANES // 32, num_stages=1),
        name="linear_recurrence",
    )(decay, inputs)


def _run_row(reverse: bool, width: int, decay_ref: Any, input_ref: Any, hidden_ref: Any) -> None:
    length = hidden_ref.shape[0]
    lanes = pl.program_id(1) * LANES + jnp.arange(LANES) < width
    blocks = pl.cdiv(length, UNROLL)

    def some_steps(n: Any, hidden: jax.Array) -> jax.Array:
        first = (blocks - 1 - n if reverse else n) * UNROLL
        times = [first + (UNROLL - 1 - k if reverse else k) for k in range(UNROLL)]
        # Past the end all is zero: back in time the carry is still zeros when it gets to the end.
        masks = [lanes & (t < length) for t in times]
        read = [
            [
                plgpu.load(ref.at[t], mask=mask, other=0.0)
                for t, mask in zip(times, masks, strict=True)
            ]
            for ref in (decay_ref, input_ref)
        ]
        for t, mask, a, b in zip(times, masks, *read, strict=True):
            hidden = a * hidden + b
            plgpu.store(hidden_ref.at[t], hidden, mask=mask)
        return hidden

    jax.lax.fori_loop(0, blocks, some_steps, jnp.zeros((LANES,), hidden_ref.dtype))
