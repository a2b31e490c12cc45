"""Self-attention on a GPU by cuDNN, which never builds the weights."""

from functools import partial

import jax
import jax.numpy as jnp

from recattn_jax.kernels.attention import Marks, Reach, attention_mask
from recattn_jax.shapes import Float, Heads, Segments


def attend(
    queries: Heads,
    keys: Float[jax.Array, "B T G K"],
    values: Float[jax.Array, "B T G K"],
    segments: Segments | None,
    reach: Reach,
) -> Heads:
    """Self-attention by scaled products among the steps of a document.

    cuDNN knows causal masks and causal windows by itself. It is told of documents, and of windows
    to both sides, by an array of T^2 numbers for each row of the batch, the same for all heads.

    Args:
      queries: `[B, T, H, K]`, bfloat16 or float16.
      keys: `[B, T, G, K]`, of the same dtype.
      values: `[B, T, G, K]`, likewise.
      segments: `[B, T]`, 0 for padding; None is one document a row.
      reach: how far a query looks.

    Returns:
      Mixed values `[B, T, H, K]`, zeros at padding.

    >>> attend(queries, keys, values, None, Reach(True, None))  # doctest: +SKIP

    Dao, FlashAttention-2, 2023, arXiv:2307.08691.
    """
    length, window = queries.shape[1], reach.window
    cudnn = partial(jax.nn.dot_product_attention, is_causal=reach.causal, implementation="cudnn")
    if segments is None and (reach.causal or window is None):
        before = None if window is None else (min(window, length) - 1, 0)
        return cudnn(queries, keys, values, local_window_size=before)
    if segments is None:
        segments = jnp.ones(queries.shape[:2], jnp.int32)
    # With a mask, cuDNN has gradients for even T only.
    numbers, q, k, v = (
        jnp.pad(x, [(0, 0), (0, length % 2), *[(0, 0)] * (x.ndim - 2)])
        for x in (segments, queries, keys, values)
    )
    # Padding sees padding, itself at least: no row of the softmax is empty.
    marks = Marks(numbers + 1, jnp.broadcast_to(jnp.arange(numbers.shape[1])[None], numbers.shape))
    mixed = cudnn(q, k, v, mask=attention_mask(marks, marks, *reach)[:, None])[:, :length]
    return jnp.where((segments > 0)[:, :, None, None], mixed, jnp.zeros((), mixed.dtype))
