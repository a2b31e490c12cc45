"""Self-attention in one kernel that never builds the weights: the door to the twins."""

import jax.numpy as jnp

from recattn_jax.kernels import backends
from recattn_jax.kernels.attention import Reach
from recattn_jax.shapes import Array, Float, Heads, Segments

NEEDS = {"cudnn": ("gpu",), "splash": ("tpu",)}
"""The implementations, and the backends that they are made for."""


def fused_attention(
    queries: Heads,
    keys: Float[Array, "B T G K"],
    values: Float[Array, "B T G K"],
    segments: Segments | None,
    reach: Reach,
    implementation: str,
    cap: float | None = None,
) -> Heads:
    """Self-attention by scaled products in one kernel, which never builds the weights.

    The values and gradients of `document_attention` among the same steps, with `scaled_dot_scores`.
    Padding may stand before or after a document, not inside it.

    Args:
      queries: `[B, T, H, K]`; H is a multiple of G.
      keys: `[B, T, G, K]`.
      values: `[B, T, G, K]`.
      segments: `[B, T]`, 0 for padding; None is one document a row.
      reach: how far a query looks.
      implementation: "cudnn" for a GPU, in bfloat16 or float16, or "splash" for a TPU.
      cap: scores are squeezed into (-cap, cap), by "splash" alone; None for not at all.

    Returns:
      Mixed values `[B, T, H, K]` in the dtype of the queries, zeros at padding.

    Raises:
      ValueError: if there is no such implementation here, or it cannot do what is asked.

    >>> fused_attention(q, k, v, None, Reach(True, None), "splash")  # doctest: +SKIP

    Dao, FlashAttention-2, 2023, arXiv:2307.08691.
    """
    backends.check_implementation("attention", implementation, tuple(NEEDS), NEEDS)
    if values.shape[-1] != queries.shape[-1]:
        raise ValueError(
            f"attention: implementation={implementation!r} needs values as wide as keys, "
            f"{queries.shape[-1]} in each head, got {values.shape[-1]}; use None"
        )
    # Imported where they are asked for: who does without them need not wait for Pallas.
    if implementation == "splash":
        from recattn_jax.kernels.tpu import attention as tpu

        return tpu.attend(queries, keys, values, segments, reach, cap)
    from recattn_jax.kernels.gpu import attention as gpu

    if cap is not None:
        raise ValueError(
            f"attention: implementation='cudnn' cannot squeeze scores, cap={cap}; use None"
        )
    if queries.dtype not in (jnp.bfloat16, jnp.float16) or queries.shape[-1] % 8:
        raise ValueError(
            "attention: implementation='cudnn' takes bfloat16 or float16 and heads of a multiple "
            f"of 8, got {queries.dtype} and heads of {queries.shape[-1]}; use None"
        )
    return gpu.attend(queries, keys, values, segments, reach)
