"""Positions: how a step's place in its document enters attention."""

import jax.numpy as jnp
import numpy as np

from recattn_jax.kernels.precision import wide
from recattn_jax.shapes import Array, DTypeLike, Float, Heads, Int


def rotary(x: Heads, positions: Int[Array, "B T"], base: float) -> Heads:
    """Rotates pairs of channels by an angle that grows with the position.

    `(a, b) -> (a cos t - b sin t, a sin t + b cos t)` with `t = position * base ** (-2 i / K)` for
    the i-th pair, so that the product of a query and a key depends on their distance only.

    Args:
      x: queries or keys `[B, T, H, K]`, K even; channel i is paired with channel i + K / 2.
      positions: `[B, T]`, in steps.
      base: wavelengths grow geometrically from 2 pi to nearly 2 pi times this, in steps.

    Returns:
      `[B, T, H, K]`, rotated, in x's dtype; angles are computed in float32 (in float64 for such an
      x).

    Raises:
      ValueError: if K is odd.

    >>> rotary(jnp.ones((1, 3, 2, 4)), jnp.arange(3)[None], 10_000.0).shape
    (1, 3, 2, 4)

    Su et al., RoFormer, 2021, arXiv:2104.09864.
    """
    size = x.shape[-1]
    if size % 2:
        raise ValueError(f"rotary positions need an even head size, got {size}")
    dtype = wide(x.dtype)
    angle_BTK = _angles(positions, size, base, dtype)
    cos_BTK, sin_BTK = jnp.cos(angle_BTK), jnp.sin(angle_BTK)
    # The other half rolled into place: joining two rotated halves costs a CPU more.
    cos_BT1K = jnp.concatenate([cos_BTK, cos_BTK], axis=-1)[:, :, None]
    sin_BT1K = jnp.concatenate([-sin_BTK, sin_BTK], axis=-1)[:, :, None]
    x_BTHK = x.astype(dtype)
    rotated_BTHK = x_BTHK * cos_BT1K + jnp.roll(x_BTHK, size // 2, axis=-1) * sin_BT1K
    return rotated_BTHK.astype(x.dtype)


def sinusoids(
    positions: Int[Array, "B T"], width: int, base: float = 10_000.0
) -> Float[Array, "B T D"]:
    """Codes a position by sines and cosines of many wavelengths.

    Channels `2 i` and `2 i + 1` are `sin` and `cos` of `position * base ** (-2 i / D)`.

    Args:
      positions: `[B, T]`, in steps.
      width: D.
      base: wavelengths grow geometrically from 2 pi to nearly 2 pi times this, in steps.

    Returns:
      `[B, T, D]`, float32.

    >>> sinusoids(jnp.array([[0, 1]]), 4).shape
    (1, 2, 4)

    Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """
    angle_BTK = _angles(positions, width, base, jnp.float32)
    pairs_BTK2 = jnp.stack([jnp.sin(angle_BTK), jnp.cos(angle_BTK)], axis=-1)
    return pairs_BTK2.reshape((*positions.shape, -1))[:, :, :width]


def alibi_slopes(heads: int) -> Float[np.ndarray, " H"]:
    """How steeply each head's scores fall with distance.

    `2 ** (-8 h / H)` for h = 1 ... H where H is a power of two; for another H, those of the next
    lower power of two, then every second one of the next higher.

    Args:
      heads: H.

    Returns:
      `[H]`, positive, a constant.

    >>> alibi_slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]

    Press et al., Train short, test long, 2021, arXiv:2108.12409.
    """

    def geometric(count: int) -> list[float]:
        return [2.0 ** (-8.0 * head / count) for head in range(1, count + 1)]

    power = 2 ** (heads.bit_length() - 1)
    return np.array(geometric(power) + geometric(2 * power)[::2][: heads - power], np.float32)


def relative_buckets(
    distance: Int[Array, "*shape"], buckets: int, longest: int, causal: bool
) -> Int[Array, "*shape"]:
    """Sorts distances into buckets: one for each short distance, wider ones for longer ones.

    Half of the buckets hold one distance each; the others grow logarithmically up to `longest`,
    and the last holds everything beyond. Where attention looks both ways, the first half of all
    buckets is for keys at or before the query and the second half for keys after it.

    Args:
      distance: `[...]`, the position of the query less that of the key, in steps.
      buckets: how many there are; even where attention looks both ways.
      longest: all distances from here on share the last bucket.
      causal: whether keys after the query are never seen; they share the bucket of distance 0.

    Returns:
      `[...]`, numbers from 0 to `buckets - 1`.

    >>> relative_buckets(jnp.array([-9, 0, 3, 9, 999]), 8, 16, causal=True).tolist()
    [0, 0, 3, 6, 7]

    Raffel et al., Exploring the limits of transfer learning (T5), 2019, arXiv:1910.10683.
    """
    ways = 1 if causal else 2
    count = buckets // ways
    exact = count // 2
    # Where each wider bucket begins, in float64: log in float32 errs at exact powers.
    ratio = np.arange(count - exact) / (count - exact)
    wider = np.ceil(exact * (longest / exact) ** ratio - 1e-9).astype(int)
    begins = np.concatenate([np.arange(exact), wider])
    bucket_of = np.searchsorted(begins, np.arange(longest + 1), side="right") - 1
    away = jnp.maximum(distance, 0) if causal else jnp.abs(distance)
    bucket = jnp.asarray(bucket_of, jnp.int32)[jnp.minimum(away, longest)]
    return bucket if causal else bucket + jnp.where(distance < 0, count, 0)


def _angles(
    positions: Int[Array, "B T"], size: int, base: float, dtype: DTypeLike
) -> Float[Array, "B T K"]:
    frequency_K = base ** (-jnp.arange(0, size, 2, dtype=dtype) / size)
    return positions[..., None].astype(dtype) * frequency_K[None, None, :]
