"""How queries and keys are compared: pure functions on arrays.

There are H query heads and G key heads, H a multiple of G: query head h looks at key head
`h G // H`, and no key is ever repeated in memory.
"""

import jax
import jax.numpy as jnp

from recattn_jax.kernels.precision import wide
from recattn_jax.shapes import Array, Float, Heads

BLOCK = 16
"""Queries that additive attention compares at a time: its hidden units exist for no more."""


def heads_product(
    x_BGRTN: Float[Array, "B G R T N"], y_BGSM: Float[Array, "B G S M"], contract: int
) -> Float[Array, "B G R T _"]:
    """Multiplies matrices head by head, R of them by the same one; sums are float32 or wider.

    With heads before steps in both, the products and their gradients are plain batches of matrices;
    otherwise a CPU copies every `[B, H, T, S]` into another order.

    Args:
      x_BGRTN: `[B, G, R, T, N]`.
      y_BGSM: `[B, G, S, M]`.
      contract: which axis of y is summed over: -1, `x y^T`, or -2, `x y`.

    Returns:
      `[B, G, R, T, S]`, or `[B, G, R, T, M]`.

    >>> heads_product(jnp.ones((1, 2, 3, 4, 5)), jnp.ones((1, 2, 6, 5)), contract=-1).shape
    (1, 2, 3, 4, 6)
    """
    batch, groups, repeats, length, width = x_BGRTN.shape
    y = jax.lax.dot_general(
        x_BGRTN.reshape((batch, groups, repeats * length, width)),
        y_BGSM,
        (((3,), (4 + contract,)), ((0, 1), (0, 1))),
        preferred_element_type=wide(x_BGRTN.dtype),
    )
    return y.reshape((batch, groups, repeats, length, y.shape[-1]))


def dot_scores(
    queries: Heads,
    keys: Float[Array, "B S G K"],
    scale: float = 1.0,
    cap: float | None = None,
) -> Float[Array, "B H T S"]:
    """Compares queries and keys by their product, `e_ts = scale q_t . k_s`.

    Args:
      queries: `[B, T, H, K]`; H is a multiple of G.
      keys: `[B, S, G, K]`.
      scale: a factor.
      cap: scores are squeezed into (-cap, cap), `cap tanh(e / cap)`; None for not at all.

    Returns:
      `[B, H, T, S]`, float32 or wider.

    >>> dot_scores(jnp.ones((1, 3, 4, 2)), jnp.ones((1, 5, 2, 2))).shape
    (1, 4, 3, 5)

    Groups of heads: Ainslie et al., GQA, 2023, arXiv:2305.13245; cap: Gemma 2, arXiv:2408.00118.
    """
    queries_BGRTK = jnp.moveaxis(_grouped(queries, keys.shape[2]), 1, 3)
    scores_BGRTS = heads_product(queries_BGRTK, jnp.swapaxes(keys, 1, 2), contract=-1)
    scores = scale * _ungrouped(scores_BGRTS)
    return scores if cap is None else cap * jnp.tanh(scores / cap)


def scaled_dot_scores(queries: Heads, keys: Float[Array, "B S G K"]) -> Float[Array, "B H T S"]:
    """Compares queries and keys by `q_t . k_s / sqrt(K)`; see `dot_scores`.

    Args:
      queries: `[B, T, H, K]`; H is a multiple of G.
      keys: `[B, S, G, K]`.

    Returns:
      `[B, H, T, S]`, float32 or wider.

    >>> scaled_dot_scores(jnp.ones((1, 1, 1, 4)), jnp.ones((1, 1, 1, 4))).tolist()
    [[[[2.0]]]]

    Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """
    return dot_scores(queries, keys, queries.shape[-1] ** -0.5)


@jax.jit  # the loop's body is a closure: without a cache of its own every eager call would compile
def additive_scores(
    queries: Float[Array, "B T H N"], keys: Float[Array, "B S G N"], weights: Float[Array, "H N"]
) -> Float[Array, "B H T S"]:
    """Compares queries and keys by a layer of tanh units, `e_ts = v . tanh(q_t + k_s)`.

    The N units of a pair exist for `BLOCK` queries at a time, and again in the backward pass:
    memory for them grows with S, not with T S.

    Args:
      queries: `[B, T, H, N]`, already mapped to the units; H is a multiple of G.
      keys: `[B, S, G, N]`, likewise.
      weights: v, `[H, N]`.

    Returns:
      `[B, H, T, S]`, float32 or wider.

    >>> additive_scores(jnp.ones((1, 3, 2, 4)), jnp.ones((1, 5, 2, 4)), jnp.ones((2, 4))).shape
    (1, 2, 3, 5)

    Bahdanau et al., Neural machine translation by jointly learning to align and translate, 2014,
    arXiv:1409.0473.
    """
    groups, dtype = keys.shape[2], wide(queries.dtype)
    weights_GRN = weights.astype(dtype).reshape((groups, -1, weights.shape[-1]))
    keys_BSGRN = keys[:, :, :, None].astype(dtype)

    @jax.checkpoint
    def compare(queries_BGRN: Array) -> Array:
        units_BSGRN = jnp.tanh(queries_BGRN[:, None].astype(dtype) + keys_BSGRN)
        return jnp.einsum("bsgrn,grn->bgrs", units_BSGRN, weights_GRN)

    queries_TBGRN = jnp.moveaxis(_grouped(queries, groups), 1, 0)
    scores_TBGRS = jax.lax.map(compare, queries_TBGRN, batch_size=BLOCK)
    return _ungrouped(jnp.moveaxis(scores_TBGRS, 0, 3))


def _grouped(queries: Array, groups: int) -> Array:
    """`[B, T, H, K]` to `[B, T, G, R, K]`: the R query heads that look at one key head."""
    batch, length, heads, size = queries.shape
    return queries.reshape((batch, length, groups, heads // groups, size))


def _ungrouped(scores: Array) -> Array:
    """`[B, G, R, T, S]` to `[B, H, T, S]`."""
    batch, groups, ways, *rest = scores.shape
    return scores.reshape((batch, groups * ways, *rest))
