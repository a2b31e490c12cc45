"""Attention kernels against plain formulas and torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.kernels import attention, positions, segments
from recattn_jax.kernels.attention import Marks
from tests.oracles import assert_close, assert_gradients_close, oracle

B, T, H, K = 2, 13, 3, 4


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("causal", [False, True])
def test_equals_torch(causal: bool) -> None:
    torch = oracle("torch")
    arrays = [draw(B, T, H, K, seed=seed) for seed in range(3)]
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((T, T), bool)) if causal else True, (B, T, T))

    def loss(arrays):
        y = attention.dot_product_attention(*arrays, mask)
        return jnp.sum(jnp.sin(y)), y

    (_, y), grads = jax.value_and_grad(loss, has_aux=True)(arrays)
    tensors = [torch.tensor(np.asarray(a), requires_grad=True) for a in arrays]
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(1, 2) for t in tensors), is_causal=causal
    ).transpose(1, 2)
    wanted.sin().sum().backward()
    assert_close(y, wanted.detach().numpy())
    assert_gradients_close(grads, [t.grad.numpy() for t in tensors])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [1, 3, 4, 12, 13, 50])
def test_windowed_equals_masked(causal: bool, window: int) -> None:
    """The blocked form has the values and gradients of the plain one, packed rows included."""
    arrays = [draw(B, T, H, K, seed=seed) for seed in range(3)]
    numbers = jnp.array([[1] * 6 + [2] * 7, [0, 0] + [3] * 9 + [0, 4]])
    starts, _ = segments.document_starts(numbers, jnp.zeros((B,), jnp.int32))
    marks = Marks(numbers, segments.document_positions(numbers, starts, jnp.zeros((B,), jnp.int32)))

    def blocked(arrays):
        return attention.windowed_attention(*arrays, marks, causal, window)

    def masked(arrays):
        mask = attention.attention_mask(marks, marks, causal, window)
        return attention.dot_product_attention(*arrays, mask)

    def run(how):
        loss = lambda arrays: (jnp.sum(jnp.sin(how(arrays))), how(arrays))  # noqa: E731
        (_, y), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays)
        return y, grads

    (y, grads), (wanted, wanted_grads) = run(blocked), run(masked)
    assert_close(y, wanted, 1e-6)
    assert_gradients_close(grads, wanted_grads, 1e-6)


def test_windowed_never_builds_a_square() -> None:
    x, length, window = jnp.ones((1, 512, 1, 2)), 512, 16
    marks = Marks(jnp.ones((1, length), jnp.int32), jnp.arange(length)[None])
    jaxpr = jax.make_jaxpr(lambda x: attention.windowed_attention(x, x, x, marks, True, window))(x)
    largest = max(v.aval.size for e in jaxpr.jaxpr.eqns for v in e.outvars)
    assert largest <= 4 * length * window


def test_softmax_over_nothing_is_zero_with_zero_gradient() -> None:
    mask = jnp.array([[True, False], [False, False]])
    value, pull = jax.vjp(
        lambda s: attention.safe_softmax(s, mask), jnp.array([[3.0, 9.0], [1.0, 2.0]])
    )
    assert value.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert pull(jnp.array([[1.0, 2.0], [3.0, 4.0]]))[0].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_rotary_products_depend_on_distance_only() -> None:
    q, k = draw(1, 1, 1, 8), draw(1, 1, 1, 8, seed=1)

    def product(i: int, j: int) -> float:
        at = [positions.rotary(a, jnp.array([[p]]), 100.0) for a, p in ((q, i), (k, j))]
        return float(jnp.sum(at[0] * at[1]))

    assert product(7, 3) == pytest.approx(product(104, 100), abs=1e-5)
    assert product(7, 3) != pytest.approx(product(7, 4), abs=1e-3)
    with pytest.raises(ValueError, match="even head size, got 3"):
        positions.rotary(draw(1, 1, 1, 3), jnp.array([[0]]), 100.0)
