"""Recurrent cells in one kernel for all steps: the door to the twins."""

from typing import Any

import jax.numpy as jnp

from recattn_jax.kernels import backends
from recattn_jax.kernels.recurrence import Carry
from recattn_jax.shapes import Array, Float, Mask

Weights = tuple[Float[Array, "D _ H"], Float[Array, "G H"]]


def fused_lstm(
    implementation: str,
    weights: Weights,
    recurrent_kernel: Float[Array, "H 4 H"],
    x: Float[Array, "B T D"],
    carry: Carry,
    starts: Mask | None,
    keep: Mask | None,
) -> tuple[Float[Array, "B T H"], Carry]:
    """The LSTM of `cells.lstm()`, with the values and gradients of `scan_cell`.

    Args:
      implementation: "cudnn", in float32, or "pallas", of at most 256 units; both for a GPU. cuDNN
        knows rows of one document from the first step: a batch with any other is scanned.
      weights: `(input_kernel [D, 4, H], bias [4, H])`.
      recurrent_kernel: `[H, 4, H]`.
      x: `[B, T, D]`, finite.
      carry: `(h, c)`, each `[B, H]`.
      starts: `[B, T]`, true where the carry is set to zeros before the step.
      keep: `[B, T]`, false where the step is padding: the carry stays as it is.

    Returns:
      The hidden states `[B, T, H]` (unspecified at padding), and the last carry.

    Raises:
      ValueError: if there is no such implementation here, or it cannot do what is asked.

    >>> fused_lstm("cudnn", weights, recurrent_kernel, x, (h, c), None, None)  # doctest: +SKIP
    """
    _check("LSTM", implementation, "cudnn", "pallas")
    # Imported where they are asked for: who does without them need not wait for Pallas.
    if implementation == "pallas":
        from recattn_jax.kernels.gpu import recurrence

        return recurrence.run(recurrence.LSTM, weights, recurrent_kernel, x, carry, starts, keep)
    from recattn_jax.kernels.gpu import lstm

    if x.dtype != jnp.float32:
        raise ValueError(f"LSTM: implementation='cudnn' is float32, got {x.dtype}; use None")
    return lstm.run(weights, recurrent_kernel, x, carry, starts, keep)


def fused_gru(
    implementation: str,
    weights: Weights,
    recurrent_kernel: Float[Array, "H 3 H"],
    x: Float[Array, "B T D"],
    carry: Carry,
    starts: Mask | None,
    keep: Mask | None,
) -> tuple[Float[Array, "B T H"], Carry]:
    """The GRU of `cells.gru()`, which resets after the product; see `fused_lstm`.

    Args:
      implementation: "pallas", of at most 256 units, for a GPU.
      weights: `(input_kernel [D, 3, H], bias [4, H])`.
      recurrent_kernel: `[H, 3, H]`.
      x: `[B, T, D]`, finite.
      carry: `(h,)`, `[B, H]`.
      starts: `[B, T]`, true where the carry is set to zeros before the step.
      keep: `[B, T]`, false where the step is padding: the carry stays as it is.

    Returns:
      The hidden states `[B, T, H]` (unspecified at padding), and the last carry.

    Raises:
      ValueError: if there is no such implementation here, or it cannot do what is asked.

    >>> fused_gru("pallas", weights, recurrent_kernel, x, (h,), None, None)  # doctest: +SKIP
    """
    _check("GRU", implementation, "pallas")
    from recattn_jax.kernels.gpu import recurrence

    return recurrence.run(recurrence.GRU, weights, recurrent_kernel, x, carry, starts, keep)


def _check(name: str, implementation: str, *known: str) -> None:
    needs: Any = dict.fromkeys(known, ("gpu",))
    backends.check_implementation(name, implementation, ("xla", *known), needs)
