"""Self-attention on a TPU by the splash kernel of JAX, which never builds the weights."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)

from recattn_jax.kernels.attention import Reach
from recattn_jax.kernels.precision import wide
from recattn_jax.shapes import Float, Heads, Segments

LANES = 128
"""The least block of queries and keys: the lanes of a register."""
BLOCK = 512
"""The largest: blocks of scores, 1 MB each, stay on the core."""


def attend(
    queries: Heads,
    keys: Float[jax.Array, "B T G K"],
    values: Float[jax.Array, "B T G V"],
    segments: Segments | None,
    reach: Reach,
    cap: float | None = None,
) -> Float[jax.Array, "B T H V"]:
    """Self-attention by scaled products among the steps of a document.

    T is padded to a multiple of 128. Blocks of scores that the reach hides are not computed.

    Args:
      queries: `[B, T, H, K]`; H is a multiple of G.
      keys: `[B, T, G, K]`.
      values: `[B, T, G, V]`.
      segments: `[B, T]`, 0 for padding; None is one document a row.
      reach: how far a query looks.
      cap: scores are squeezed into (-cap, cap); None for not at all.

    Returns:
      Mixed values `[B, T, H, V]`, zeros at padding.

    >>> attend(queries, keys, values, None, Reach(True, None))  # doctest: +SKIP

    Dao, FlashAttention-2, 2023, arXiv:2307.08691.
    """
    batch, length, heads, size = queries.shape
    if segments is None:
        segments = jnp.ones((batch, length), jnp.int32)
    tiles = -(-length // LANES)
    padding = tiles * LANES - length

    def head_first(x: jax.Array) -> jax.Array:
        return jnp.swapaxes(jnp.pad(x, [(0, 0), (0, padding), (0, 0), (0, 0)]), 1, 2)

    kernel = _kernel(tiles * LANES, heads, LANES * math.gcd(tiles, BLOCK // LANES), reach, cap)
    scaled = (queries.astype(wide(queries.dtype)) * size**-0.5).astype(queries.dtype)
    # Padding sees padding, itself at least: no row of the softmax is empty.
    numbers = jnp.pad(segments, [(0, 0), (0, padding)])
    mixed_BHTV = jax.vmap(kernel)(
        head_first(scaled),
        head_first(keys),
        head_first(values),
        splash.SegmentIds(numbers, numbers),
    )
    mixed_BTHV = jnp.swapaxes(mixed_BHTV, 1, 2)[:, :length]
    return jnp.where((segments > 0)[:, :, None, None], mixed_BTHV, jnp.zeros((), queries.dtype))


def _kernel(length: int, heads: int, block: int, reach: Reach, cap: float | None) -> Any:
    shape = (length, length)
    mask: masks.Mask
    if reach.window is not None:
        before = reach.window - 1
        mask = masks.LocalMask(shape, (before, 0 if reach.causal else before), offset=0)
    else:
        mask = masks.CausalMask(shape) if reach.causal else masks.FullMask(shape)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    return splash.make_splash_mha_single_device(
        masks.MultiHeadMask([mask] * heads), block_sizes=sizes, attn_logits_soft_cap=cap
    )
