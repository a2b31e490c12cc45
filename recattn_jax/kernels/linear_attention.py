"""Linear attention with gates, in chunks: pure functions on arrays.

A head keeps a matrix S and a vector n instead of its past keys and values,

    S_t = f_t S_{t-1} + i_t k_t v_t^T
    n_t = f_t n_{t-1} + i_t k_t

and answers a query with `q_t^T S_t` and `q_t^T n_t`. Unrolled over the steps of a chunk,

    q_t^T S_t = sum_s w_ts (q_t . k_s) v_s^T + g_t q_t^T S,   w_ts = f_{s+1} ... f_t i_s

with S the state before the chunk and g_t the product of the decays since: products of matrices in
a chunk, and a loop over chunks that only scales states and adds them up.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recattn_jax.kernels.precision import wide
from recattn_jax.shapes import Array, Float, Heads, Mask


class Carry(NamedTuple):
    """The state of every head, scaled down: the true S and n are these times `exp(stabilizer)`.

    Attributes:
      memory: S, `[B, H, K, V]`.
      normalizer: n, `[B, H, K]`.
      stabilizer: m, `[B, H]`, at least 0.

    >>> nothing = Carry(jnp.zeros((1, 2, 4, 3)), jnp.zeros((1, 2, 4)), jnp.zeros((1, 2)))
    """

    memory: Float[Array, "B H K V"]
    normalizer: Float[Array, "B H K"]
    stabilizer: Float[Array, "B H"]


class Answers(NamedTuple):
    """What the state answers to every query: the true sums are these times `exp(stabilizer)`.

    Attributes:
      numerator: `q_t^T S_t`, `[B, T, H, V]`.
      denominator: `q_t^T n_t`, `[B, T, H]`.
      stabilizer: m_t, `[B, T, H]`, at least 0.

    >>> answers = Answers(jnp.ones((1, 5, 2, 3)), jnp.ones((1, 5, 2)), jnp.zeros((1, 5, 2)))
    >>> y_BTHV = answers.numerator / answers.denominator[..., None]
    """

    numerator: Float[Array, "B T H V"]
    denominator: Float[Array, "B T H"]
    stabilizer: Float[Array, "B T H"]


class _Weights(NamedTuple):
    """Logarithms of what a step's past counts for, within its chunk; -inf for nothing."""

    own_BNHTS: Array  # w_ts, of the steps of the chunk
    carried_BNHT: Array  # g_t, of the state before the chunk
    top_BNHT: Array  # the largest of w_ts over s, and of 0


def linear_attention(
    queries: Heads,
    keys: Heads,
    values: Float[Array, "B T H V"],
    log_decay: Float[Array, "B T H"] | None,
    log_input: Float[Array, "B T H"] | None,
    carry: Carry,
    starts: Mask | None = None,
    keep: Mask | None = None,
    chunk: int = 64,
) -> tuple[Answers, Carry]:
    """Runs gated linear attention over whole sequences; see the module's docstring.

    Everything is scaled by `exp(-m_t)`, with m_t the running maximum of the logarithms of all
    weights, and of 0, so that nothing overflows; weights of less than `exp(-80)` may count as
    nothing. Ratios of the answers, and of an answer to `exp(-m_t)`, do not depend on m, so it is a
    constant to differentiation. Time and memory are `B T H (chunk (K + V) + K V)` and
    `B T H (chunk + K V / chunk)`.

    Args:
      queries: `[B, T, H, K]`.
      keys: `[B, T, H, K]`.
      values: `[B, T, H, V]`.
      log_decay: logarithm of f, `[B, T, H]`, finite and at most 0; None for 0 everywhere. What
        stands at starts and padding is not used.
      log_input: logarithm of i, `[B, T, H]`, finite; None for 0 everywhere.
      carry: the state before the first step; zeros for nothing.
      starts: `[B, T]`, true where the state is set to zeros before the step.
      keep: `[B, T]`, false where the step is padding: the state stays as it is.
      chunk: steps of a chunk; 1 is the recurrence itself. It changes no result.

    Returns:
      The answers (unspecified at padding) and the last state, float32 at least. Products of
      queries, keys and values are taken in their own dtype and summed in float32.

    >>> q, zeros = jnp.ones((1, 3, 1, 2)), jnp.zeros((1, 1, 2, 2))
    >>> answers, carry = linear_attention(
    ...     q, q, q, None, None, Carry(zeros, zeros[..., 0], zeros[..., 0, 0])
    ... )
    >>> answers.denominator.ravel().tolist()
    [2.0, 4.0, 6.0]

    Yang et al., Gated linear attention transformers with hardware-efficient training, 2023,
    arXiv:2312.06635; the stabilizer: Beck et al., xLSTM, 2024, arXiv:2405.04517.
    """
    dtype = wide(queries.dtype)
    batch, length = queries.shape[:2]
    size = min(chunk, length)
    chunks = -(-length // size)
    carry = Carry(*(x.astype(dtype) for x in carry))
    if chunks * size > length and keep is None:
        keep = jnp.ones((batch, length), bool)

    def cut(x: Array) -> Array:
        """`[B, T, ...] -> [B, N, C, ...]`; what fills the last chunk is padding."""
        x = jnp.pad(x, [(0, 0), (0, chunks * size - length), *[(0, 0)] * (x.ndim - 2)])
        return x.reshape((batch, chunks, size, *x.shape[2:]))

    def join(x: Array) -> Array:
        return x.reshape((batch, chunks * size, *x.shape[3:]))[:, :length]

    q, k, v, log_f, log_i, starts, keep = jax.tree.map(
        cut, (queries, keys, values, log_decay, log_input, starts, keep)
    )
    shape_BNHC = (batch, chunks, queries.shape[2], size)
    weights = _log_weights(log_f, log_i, starts, keep, shape_BNHC, dtype)
    before, last = _scan_states(k, v, weights, carry)
    return Answers(*map(join, _answer(q, k, v, weights, before))), last


def trace_norms(
    keys: Heads,
    values: Float[Array, "B T H V"],
    log_decay: Float[Array, "B T H"] | None,
    log_input: Float[Array, "B T H"] | None,
    carry: Carry,
    starts: Mask | None = None,
    keep: Mask | None = None,
) -> tuple[Float[Array, "B T H"], Float[Array, "B T H"]]:
    """How large the state is after each step, step by step, for looking inside.

    Args:
      keys: `[B, T, H, K]`, as in `linear_attention`, like all that follow.
      values: `[B, T, H, V]`.
      log_decay: `[B, T, H]`; None for 0 everywhere.
      log_input: `[B, T, H]`; None for 0 everywhere.
      carry: the state before the first step.
      starts: `[B, T]`, true where the state is set to zeros before the step.
      keep: `[B, T]`, false where the step is padding.

    Returns:
      The Frobenius norms of the true S and the norms of the true n, `[B, T, H]`.

    >>> k, zeros = jnp.ones((1, 3, 1, 4)), jnp.zeros((1, 1, 4, 4))
    >>> carry = Carry(zeros, zeros[..., 0], zeros[..., 0, 0])
    >>> trace_norms(k, k, None, None, carry)[0].ravel().tolist()
    [4.0, 8.0, 12.0]
    """

    def step(carry: Carry, now: Any) -> tuple[Carry, tuple[Array, Array]]:
        keys, values, decay, given, starts, keep = jax.tree.map(lambda x: x[:, None], now)
        _, carry = linear_attention(keys, keys, values, decay, given, carry, starts, keep)
        scale_BH = jnp.exp(carry.stabilizer)
        memory_BH = jnp.sqrt(jnp.sum(jnp.square(carry.memory), axis=(2, 3)))
        normalizer_BH = jnp.sqrt(jnp.sum(jnp.square(carry.normalizer), axis=2))
        return carry, (scale_BH * memory_BH, scale_BH * normalizer_BH)

    carry = jax.tree.map(lambda x: x.astype(wide(keys.dtype)), carry)
    over_time = jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1), (keys, values, log_decay, log_input, starts, keep)
    )
    memory_TBH, normalizer_TBH = jax.lax.scan(step, carry, over_time)[1]
    return jnp.swapaxes(memory_TBH, 0, 1), jnp.swapaxes(normalizer_TBH, 0, 1)


def _log_weights(
    log_decay_BNCH: Array | None,
    log_input_BNCH: Array | None,
    starts_BNC: Array | None,
    keep_BNC: Array | None,
    shape_BNHC: tuple[int, int, int, int],
    dtype: Any,
) -> _Weights:
    """The logarithms of all weights: sums of log decays within a chunk and a document.

    Each sum runs over its own steps alone. Differences of one cumulative sum would be cheaper, but
    carry the rounding errors of what came before, of other documents too, and lose all digits after
    a decay of nearly 0.
    """
    *_, size = shape_BNHC
    later_TS = jnp.tril(jnp.ones((size, size), bool), -1)[None, None]
    seen_BNTS = later_TS | jnp.eye(size, dtype=bool)[None, None]
    if starts_BNC is not None:
        document_BNC = jnp.cumsum(starts_BNC, axis=-1)
        seen_BNTS &= document_BNC[..., :, None] == document_BNC[..., None, :]
    if keep_BNC is not None:
        seen_BNTS &= keep_BNC[..., None, :]

    own_BNHTS = jnp.zeros((*shape_BNHC, size), dtype)
    carried_BNHT = jnp.zeros(shape_BNHC, dtype)
    if log_decay_BNCH is not None:
        f_BNHC = jnp.swapaxes(log_decay_BNCH.astype(dtype), 2, 3)
        if keep_BNC is not None:
            f_BNHC = jnp.where(keep_BNC[:, :, None], f_BNHC, 0)
        own_BNHTS = jnp.cumsum(jnp.where(later_TS[None], f_BNHC[..., None], 0), axis=-2)
        carried_BNHT = jnp.cumsum(f_BNHC, axis=-1)
    if log_input_BNCH is not None:
        own_BNHTS += jnp.swapaxes(log_input_BNCH.astype(dtype), 2, 3)[..., None, :]

    own_BNHTS = jnp.where(seen_BNTS[:, :, None], own_BNHTS, -jnp.inf)
    if starts_BNC is not None:
        carried_BNHT = jnp.where((document_BNC == 0)[:, :, None], carried_BNHT, -jnp.inf)
    top_BNHT = jax.lax.stop_gradient(jnp.max(own_BNHTS, axis=-1, initial=0.0))
    return _Weights(own_BNHTS, carried_BNHT, top_BNHT)


def _scan_states(
    k_BNCHK: Array, v_BNCHV: Array, weights: _Weights, carry: Carry
) -> tuple[Carry, Carry]:
    """The state before every chunk, `[B, N, ...]`, and after the last."""
    dtype = weights.own_BNHTS.dtype
    # What the chunk adds is what its last step sees of it.
    top_BNH = weights.top_BNHT[..., -1]
    added_BNHC = jnp.exp(weights.own_BNHTS[..., -1, :] - top_BNH[..., None])
    weighed_BNCHK = k_BNCHK.astype(dtype) * jnp.swapaxes(added_BNHC, 2, 3)[..., None]
    memory_BNHKV = jnp.einsum(
        "bnchk,bnchv->bnhkv",
        weighed_BNCHK.astype(k_BNCHK.dtype),
        v_BNCHV,
        preferred_element_type=dtype,
    )
    added = Carry(memory_BNHKV, jnp.sum(weighed_BNCHK, axis=2), top_BNH)
    chunks = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (weights.carried_BNHT[..., -1], added))
    carry = carry._replace(stabilizer=jax.lax.stop_gradient(carry.stabilizer))
    last, before = jax.lax.scan(_add_chunk, carry, chunks)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), before), last


def _add_chunk(carry: Carry, chunk: tuple[Array, Carry]) -> tuple[Carry, Carry]:
    decay_BH, added = chunk
    decayed_BH = decay_BH + carry.stabilizer
    top_BH = jax.lax.stop_gradient(jnp.maximum(decayed_BH, added.stabilizer))
    old_BH, new_BH = jnp.exp(decayed_BH - top_BH), jnp.exp(added.stabilizer - top_BH)
    memory_BHKV = old_BH[..., None, None] * carry.memory + new_BH[..., None, None] * added.memory
    normalizer_BHK = old_BH[..., None] * carry.normalizer + new_BH[..., None] * added.normalizer
    return Carry(memory_BHKV, normalizer_BHK, top_BH), carry


def _answer(q: Array, k: Array, v: Array, weights: _Weights, before: Carry) -> Answers:
    """Answers from the steps of the chunk and from the state before it, `[B, N, C, H, ...]`."""
    dtype = weights.own_BNHTS.dtype
    carried_BNHT = weights.carried_BNHT + before.stabilizer[..., None]
    top_BNHT = jax.lax.stop_gradient(jnp.maximum(weights.top_BNHT, carried_BNHT))
    carried_BNTH = jnp.swapaxes(jnp.exp(carried_BNHT - top_BNHT), 2, 3)

    scores_BNHTS = jnp.einsum("bnthk,bnshk->bnhts", q, k, preferred_element_type=dtype)
    scores_BNHTS *= jnp.exp(weights.own_BNHTS - top_BNHT[..., None])
    numerator_BNTHV = jnp.einsum(
        "bnhts,bnshv->bnthv", scores_BNHTS.astype(v.dtype), v, preferred_element_type=dtype
    )
    numerator_BNTHV += carried_BNTH[..., None] * jnp.einsum(
        "bnthk,bnhkv->bnthv", q, before.memory.astype(q.dtype), preferred_element_type=dtype
    )
    denominator_BNTH = jnp.swapaxes(jnp.sum(scores_BNHTS, axis=-1), 2, 3)
    denominator_BNTH += carried_BNTH * jnp.einsum(
        "bnthk,bnhk->bnth", q.astype(dtype), before.normalizer
    )
    return Answers(numerator_BNTHV, denominator_BNTH, jnp.swapaxes(top_BNHT, 2, 3))
