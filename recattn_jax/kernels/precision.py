"""How wide sums are kept."""

import jax.numpy as jnp

from recattn_jax.shapes import DTypeLike


def wide(dtype: DTypeLike) -> DTypeLike:
    """The dtype of sums, scores, gates and carries: float32, or float64 where the inputs are.

    Args:
      dtype: of the inputs.

    Returns:
      A floating dtype.

    >>> wide(jnp.bfloat16)
    dtype('float32')
    """
    return jnp.promote_types(dtype, jnp.float32)
