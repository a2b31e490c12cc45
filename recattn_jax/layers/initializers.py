"""How kernels with an axis of gates start: each gate is a matrix of its own."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from recattn_jax.shapes import Array, Float

per_gate_lecun = nn.initializers.lecun_normal(in_axis=0, out_axis=-1, batch_axis=1)
"""Each gate's `[D, H]` is a matrix of its own; variance 1 / D."""


def per_gate_orthogonal(key: Array, shape: tuple[int, ...]) -> Float[Array, "*N K G H"]:
    """Starts each gate's `[K, H]` as an orthogonal matrix of its own.

    Args:
      key: a random key.
      shape: `(K, G, H)`, or `(N, K, G, H)` for N heads.

    Returns:
      An array of that shape, float32.

    >>> per_gate_orthogonal(jax.random.key(0), (4, 3, 4)).shape
    (4, 3, 4)
    """
    *heads, rows, gates, columns = shape
    # One matrix after the other: of batched QR decompositions, a CPU with few cores runs several
    # beside each other (those of a stack of layers), and they wait for each other for ever.
    if heads:
        return jax.lax.map(
            lambda key: per_gate_orthogonal(key, shape[1:]), jax.random.split(key, heads[0])
        )
    orthogonal = nn.initializers.orthogonal()
    kernel_GKH = jax.lax.map(
        lambda key: orthogonal(key, (rows, columns), jnp.float32), jax.random.split(key, gates)
    )
    return jnp.moveaxis(kernel_GKH, 0, 1)
