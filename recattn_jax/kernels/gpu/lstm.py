"""The LSTM on a GPU by cuDNN."""

import jax
import jax.numpy as jnp
from jax.experimental import rnn

from recattn_jax.kernels import cells
from recattn_jax.kernels.recurrence import Carry, scan_cell
from recattn_jax.shapes import Array, Float, Mask

Kernels = tuple[tuple[Array, Array], Array]


def run(
    weights: tuple[Float[Array, "D 4 H"], Float[Array, "4 H"]],
    recurrent_kernel: Float[Array, "H 4 H"],
    x: Float[Array, "B T D"],
    carry: Carry,
    starts: Mask | None,
    keep: Mask | None,
) -> tuple[Float[Array, "B T H"], Carry]:
    """Runs the LSTM over whole sequences, as `scan_cell` does with the cell `lstm`.

    cuDNN takes rows of one document from the first step, with their lengths. Where each row is such
    a one is only known when the program runs: if one is not, all rows are scanned. Both ways keep
    what their backward pass needs, in memory that is there for either.

    Args:
      weights: `(input_kernel [D, 4, H], bias [4, H])`, gates in the order i, f, g, o; float32.
      recurrent_kernel: `[H, 4, H]`, float32.
      x: `[B, T, D]`, float32, finite.
      carry: `(h, c)`, each `[B, H]`.
      starts: `[B, T]`, true where the carry is set to zeros before the step.
      keep: `[B, T]`, false where the step is padding: the carry stays as it is.

    Returns:
      The hidden states `[B, T, H]` (unspecified at padding), and the last carry.

    >>> run((input_kernel, bias), recurrent_kernel, x, (h, c), None, None)  # doctest: +SKIP

    Appleyard et al., Optimizing performance of recurrent neural networks on GPUs, 2016,
    arXiv:1604.01946.
    """
    batch, length, _ = x.shape
    kernels: Kernels = (weights, recurrent_kernel)
    if starts is None and keep is None:
        return _cudnn(kernels, x, carry, jnp.full((batch,), length, jnp.int32))
    starts = jnp.zeros((batch, length), bool) if starts is None else starts
    keep = jnp.ones((batch, length), bool) if keep is None else keep
    one_document = ~jnp.any(starts[:, 1:]) & ~jnp.any(keep[:, 1:] & ~keep[:, :-1])
    return jax.lax.cond(one_document, _by_lengths, _scan, kernels, x, carry, starts, keep)


def _scan(
    kernels: Kernels, x: Array, carry: Carry, starts: Array, keep: Array
) -> tuple[Array, Carry]:
    return scan_cell(cells.lstm(), *kernels, x, carry, starts, keep)


def _by_lengths(
    kernels: Kernels, x: Array, carry: Carry, starts: Array, keep: Array
) -> tuple[Array, Carry]:
    lengths_B = jnp.sum(keep, axis=1, dtype=jnp.int32)
    first = tuple(jnp.where(starts[:, :1], 0, leaf) for leaf in carry)
    # cuDNN knows no rows of no steps.
    hidden_BTH, last = _cudnn(kernels, x, first, jnp.maximum(lengths_B, 1))
    empty_B1 = lengths_B[:, None] == 0
    return hidden_BTH, tuple(
        jnp.where(empty_B1, old, new) for old, new in zip(carry, last, strict=True)
    )


def _cudnn(kernels: Kernels, x: Array, carry: Carry, lengths_B: Array) -> tuple[Array, Carry]:
    (input_kernel_DGH, bias_GH), recurrent_kernel_KGH = kernels
    width, _, units = input_kernel_DGH.shape
    # One array: the matrices, the gates one below the other, then one bias for each matrix.
    matrices = (jnp.moveaxis(k, 0, -1) for k in (input_kernel_DGH, recurrent_kernel_KGH))
    parts = (*matrices, bias_GH, jnp.zeros_like(bias_GH))
    flat = jnp.concatenate([part.astype(x.dtype).ravel() for part in parts])
    h, c = (leaf[None] for leaf in carry)
    hidden_BTH, h, c = rnn.lstm(x, h, c, flat, lengths_B, width, units, 1, 0.0, False)
    return hidden_BTH, (h[0], c[0])
