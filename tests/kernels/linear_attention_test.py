"""Chunks of linear attention against the recurrence itself, without a stabilizer, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.kernels.linear_attention import Answers, Carry, linear_attention
from tests.oracles import assert_close, assert_gradients_close

B, T, H, K, V = 3, 11, 2, 3, 4
# Documents that start anywhere, the first step included; padding before, between and after them.
STARTS = np.array([[0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0], [1] + [0] * 10, [0] * 4 + [1] + [0] * 6]) > 0
KEEP = (
    np.array([[1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0], [1] * 11, [0, 0, 1, 0, 1, 1, 1, 1, 1, 0, 0]]) > 0
)


def draw(dtype=np.float64):
    """Queries, keys, values, log gates and a state."""
    random = np.random.default_rng(0)
    shapes = [(B, T, H, K), (B, T, H, K), (B, T, H, V), (B, T, H), (B, T, H), (B, H, K, V)]
    q, k, v, f, i, memory = (random.normal(size=shape) for shape in shapes)
    carry = Carry(memory, random.normal(size=(B, H, K)), random.uniform(size=(B, H)))
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), (q, k, v, -np.exp(f), 2.0 * i, carry))


def plain_loop(q, k, v, log_f, log_i, carry, starts, keep):
    """The formulas, unscaled."""
    scale = jnp.exp(carry.stabilizer)
    memory, normalizer = carry.memory * scale[..., None, None], carry.normalizer * scale[..., None]
    numerators, denominators = [], []
    for t in range(T):
        decay = jnp.exp(log_f[:, t])
        if starts is not None:
            decay = jnp.where(starts[:, t, None], 0.0, decay)
        weighed = jnp.exp(log_i[:, t])[..., None] * k[:, t]
        real = jnp.ones((B, 1)) if keep is None else keep[:, t, None]
        new = decay[..., None, None] * memory + weighed[..., None] * v[:, t][:, :, None]
        memory = jnp.where(real[..., None, None] > 0, new, memory)
        new = decay[..., None] * normalizer + weighed
        normalizer = jnp.where(real[..., None] > 0, new, normalizer)
        numerators.append(jnp.einsum("bhk,bhkv->bhv", q[:, t], memory))
        denominators.append(jnp.einsum("bhk,bhk->bh", q[:, t], normalizer))
    return jnp.stack(numerators, 1), jnp.stack(denominators, 1), memory, normalizer


def unscaled(answers: Answers, carry: Carry):
    """The true sums and the true state: these do not depend on the stabilizers."""
    top, last = jnp.exp(answers.stabilizer), jnp.exp(carry.stabilizer)
    return (
        answers.numerator * top[..., None],
        answers.denominator * top,
        carry.memory * last[..., None, None],
        carry.normalizer * last[..., None],
    )


def masks(masked: bool):
    return (jnp.asarray(STARTS), jnp.asarray(KEEP)) if masked else (None, None)


def differentiate(run, arrays, masked: bool):
    """The results at real steps, and the gradients of all arrays but the stabilizer's."""

    def loss(arrays, stabilizer):
        *rest, carry = arrays
        out = run(*rest, Carry(*carry, stabilizer), *masks(masked))
        real = jnp.asarray(KEEP)[..., None] if masked else True
        out = jnp.where(real[..., None] if masked else True, out[0], 0.0), *out[1:]
        out = out[0], jnp.where(real, out[1], 0.0), *out[2:]
        return sum(jnp.sum(jnp.sin(a)) for a in out), out

    *rest, carry = arrays
    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, out), gradients = gradient((*rest, tuple(carry[:2])), carry.stabilizer)
    return out, gradients


@functools.cache
def wanted(masked: bool):
    return differentiate(plain_loop, draw(), masked)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("chunk", [1, 4, 5, 64])
def test_every_chunk_size_equals_the_recurrence(chunk: int, masked: bool) -> None:
    """Sums, last state and all gradients, in float64."""
    with jax.enable_x64(True):
        got = differentiate(
            lambda *args: unscaled(*linear_attention(*args, chunk=chunk)), draw(), masked
        )
        out, gradients = wanted(masked)
        assert got[0][0].dtype == jnp.float64
        assert_close(got[0], out, 1e-12)
        assert_gradients_close(got[1], gradients, 1e-12)


def test_no_gates_are_gates_of_one() -> None:
    q, k, v, f, _, carry = draw(np.float32)
    zeros, with_masks = jnp.zeros_like(f), masks(True)
    assert_close(
        linear_attention(q, k, v, None, None, carry, *with_masks, chunk=4),
        linear_attention(q, k, v, zeros, zeros, carry, *with_masks, chunk=4),
        1e-6,
    )


def ratio(answers: Answers) -> jax.Array:
    bound = jnp.exp(-answers.stabilizer)
    return answers.numerator / jnp.maximum(jnp.abs(answers.denominator), bound)[..., None]


def test_extreme_gates_stay_exact_and_finite() -> None:
    """Decays and inputs of e^-50 and e^50 in float32, against the loop in float64."""
    random = np.random.default_rng(2)
    log_f, log_i = -50.0 * random.integers(0, 2, (B, T, H)), random.choice([-50, 0, 50], (B, T, H))

    def loss(q, k, v, f, i, carry):
        h = ratio(linear_attention(q, k, v, f, i, carry, *masks(True), chunk=4)[0])
        h = jnp.where(jnp.asarray(KEEP)[..., None, None], h, 0.0)
        return jnp.sum(jnp.sin(h)), h

    q, k, v, _, _, carry = draw(np.float32)
    arrays = q, k, v, jnp.asarray(log_f, jnp.float32), jnp.asarray(log_i, jnp.float32), carry
    gradients, h = jax.jit(jax.grad(loss, (0, 1, 2, 3, 4, 5), has_aux=True))(*arrays)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), arrays)
        numerator, denominator, *_ = plain_loop(*wide, *masks(True))
        exact = numerator / jnp.maximum(jnp.abs(denominator), 1.0)[..., None]
        assert_close(h, jnp.where(jnp.asarray(KEEP)[..., None, None], exact, 0.0), 1e-4)


def test_a_decay_of_nearly_nothing_does_not_blur_the_steps_after_it() -> None:
    """Sums of log decays are exact where a difference of cumulative sums has lost its digits."""
    q, k, v, f, i, carry = draw(np.float32)
    f = f.at[:, 1].set(-1e6)
    answers, _ = linear_attention(q, k, v, f, i, carry, chunk=64)
    wanted, _ = linear_attention(q, k, v, f, i, carry, chunk=1)
    assert_close(ratio(answers), ratio(wanted), 1e-6)


@pytest.mark.parametrize("altered", [slice(2, 4), slice(4, 6), slice(6, 10)])
def test_altering_a_document_leaves_the_others_bit_identical(altered: slice) -> None:
    """Documents that end at a chunk's edge, inside a chunk and beyond one; chunks of 4."""
    starts = jnp.zeros((B, T), bool).at[:, jnp.array([2, 4, 6, 10])].set(True)
    keep = jnp.ones((B, T), bool).at[:, 7].set(False)
    inside = np.zeros((B, T, 1, 1), bool)
    inside[:, altered] = True

    @jax.jit
    def run(q, k, v, f, i, carry):
        def loss(*arrays):
            answers, last = linear_attention(*arrays, carry, starts, keep, chunk=4)
            h = ratio(answers)
            return jnp.sum(jnp.where(inside, 0.0, jnp.sin(h))), (h, last)

        gradients, (h, last) = jax.grad(loss, (0, 1, 2, 3, 4), has_aux=True)(q, k, v, f, i)
        return h, gradients, last

    *arrays, carry = draw(np.float32)

    def alter(a: jax.Array) -> jax.Array:
        return jnp.where(inside.reshape((B, T) + (1,) * (a.ndim - 2)), 7.0 * a - 1.0, a)

    before, after = run(*arrays, carry), run(*map(alter, arrays), carry)
    np.testing.assert_array_equal(
        np.where(inside, 0.0, before[0]), np.where(inside, 0.0, after[0]), strict=True
    )
    for one, other in zip(jax.tree.leaves(before[1:]), jax.tree.leaves(after[1:]), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
