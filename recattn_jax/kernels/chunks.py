"""Functions of single steps, a few steps at a time: small results of work that is large.

Cross-entropy over a large vocabulary is the case in point: `[B, T, V]` logits become a number for
every step, and need never stand in memory together.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from recattn_jax import partition
from recattn_jax.kernels.precision import wide
from recattn_jax.shapes import Array


def map_steps(f: Callable[..., Any], weights: Any, inputs: tuple[Any, ...], chunk: int) -> Any:
    """Maps a function over all steps of all rows, keeping nothing of it for the backward pass.

    `y_bt = f(weights, *inputs_bt)`; the backward pass computes each chunk anew, and adds up the
    gradient of the weights in float32. What f makes on its way exists for one chunk at a time,
    forward and backward: logits of V classes take `4 V chunk` bytes, whatever B and T.

    Under a mesh every device runs through its own steps, with a copy of the weights of its own: the
    gradients of the copies are added after the loop, and nothing travels inside it.

    Args:
      f: maps weights and arrays `[C, ...]` to a pytree of arrays `[C, ...]`, each step by itself.
      weights: a pytree of arrays; f gets them in float32, or wider where they are.
      inputs: pytrees of arrays `[B, T, ...]`.
      chunk: steps at a time on a device, at most; as few are left over as so many chunks allow.

    Returns:
      What f returns, `[B, T, ...]`.

    Raises:
      ValueError: if the chunk is less than 1.

    >>> x, kernel = jnp.ones((2, 5, 3)), jnp.ones((3, 1000))
    >>> map_steps(lambda w, x: jax.nn.logsumexp(x @ w, axis=-1), kernel, (x,), chunk=4).shape
    (2, 5)

    Chen et al., Training deep nets with sublinear memory cost, 2016, arXiv:1604.06174.
    """
    if chunk < 1:
        raise ValueError(f"map_steps: chunk={chunk} must be at least 1")
    batch, length = jax.tree.leaves(inputs)[0].shape[:2]
    parts = partition.parts(batch, length)
    own = batch * length // math.prod(parts)
    chunks = -(-own // chunk)
    size = -(-own // chunks)

    def cut(x: Array) -> Array:
        """`[B, T, ...]` to `[N, P, C, ...]`, of P parts of the mesh; zeros fill the last chunk."""
        x = partition.split(x, parts)
        x = jnp.pad(x, ((0, 0), (0, chunks * size - own)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], chunks, size, *x.shape[2:]), 1, 0)

    def uncut(y: Array) -> Array:
        y = jnp.moveaxis(y, 0, 1)
        y = y.reshape(y.shape[0], chunks * size, *y.shape[3:])[:, :own]
        return partition.join(y, parts, batch)

    # Wide, so that the sum of the chunks' gradients is wide too.
    copies = jax.tree.map(lambda a: partition.copies(a.astype(wide(a.dtype)), parts), weights)

    def run(carry: tuple[()], inputs: Any) -> tuple[tuple[()], Any]:
        return carry, jax.vmap(f)(copies, *inputs)

    # In a loop nothing can be taken for computed already.
    _, y = jax.lax.scan(jax.checkpoint(run, prevent_cse=False), (), jax.tree.map(cut, inputs))
    return jax.tree.map(uncut, y)
