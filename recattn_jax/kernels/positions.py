"""Positions: how a step's place in its document enters attention."""

import jax.numpy as jnp

from recattn_jax.shapes import Array, Heads, Int


def rotary(x: Heads, positions: Int[Array, "B T"], base: float) -> Heads:
    """Rotates pairs of channels by an angle that grows with the position.

    `(a, b) -> (a cos t - b sin t, a sin t + b cos t)` with `t = position * base ** (-2 i / K)` for
    the i-th pair, so that the product of a query and a key depends on their distance only.

    Args:
      x: queries or keys `[B, T, H, K]`, K even; channel i is paired with channel i + K / 2.
      positions: `[B, T]`, in steps.
      base: the longest wavelength is 2 pi times this, in steps.

    Returns:
      The rotated array, in x's dtype; angles are computed in float32.

    Raises:
      ValueError: if K is odd.

    >>> rotary(jnp.ones((1, 3, 2, 4)), jnp.arange(3)[None], 10_000.0).shape
    (1, 3, 2, 4)

    Su et al., RoFormer, 2021, arXiv:2104.09864.
    """
    size = x.shape[-1]
    if size % 2:
        raise ValueError(f"rotary positions need an even head size, got {size}")
    frequency_K = base ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
    angle_BTK = positions[..., None].astype(jnp.float32) * frequency_K[None, None, :]
    cos_BTHK, sin_BTHK = jnp.cos(angle_BTK)[:, :, None], jnp.sin(angle_BTK)[:, :, None]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([a * cos_BTHK - b * sin_BTHK, a * sin_BTHK + b * cos_BTHK], axis=-1)
    return rotated.astype(x.dtype)
