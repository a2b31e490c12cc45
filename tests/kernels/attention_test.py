"""Attention kernels against plain formulas and torch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.kernels import attention, positions, scores, segments
from recattn_jax.kernels.attention import Marks, Reach, Scoring
from tests.oracles import assert_close, assert_gradients_close, oracle

B, T, H, K = 2, 13, 4, 4


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def differentiated(how, arrays):
    """Values, and the gradients of the sum of their sines."""

    def loss(arrays):
        y = how(*arrays)
        return jnp.sum(jnp.sin(y)), y

    (_, y), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays)
    return y, grads


@pytest.mark.parametrize(("causal", "groups"), [(False, H), (True, 2), (True, 1)])
def test_equals_torch(causal: bool, groups: int) -> None:
    """With heads in groups, and values of another size than keys."""
    torch = oracle("torch")
    arrays = [draw(B, T, H, K), draw(B, T, groups, K, seed=1), draw(B, T, groups, 3, seed=2)]
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((T, T), bool)) if causal else True, (B, T, T))
    y, grads = differentiated(lambda *a: attention.attend(*a, mask).mixed, arrays)
    tensors = [torch.tensor(np.asarray(a), requires_grad=True) for a in arrays]
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(1, 2) for t in tensors), is_causal=causal, enable_gqa=True
    ).transpose(1, 2)
    wanted.sin().sum().backward()
    assert_close(y, wanted.detach().numpy())
    assert_gradients_close(grads, [t.grad.numpy() for t in tensors])


def packed_marks() -> Marks:
    numbers = jnp.array([[1] * 6 + [2] * 7, [0, 0] + [3] * 9 + [0, 4]])
    starts, _ = segments.document_starts(numbers, jnp.zeros((B,), jnp.int32))
    return Marks(numbers, segments.document_positions(numbers, starts, jnp.zeros((B,), jnp.int32)))


def table_bias(distance: jax.Array) -> jax.Array:
    """A bias of many values, one a head."""
    return jnp.sin(draw(H, seed=7)[None, :, None, None] * distance[:, None])


SCORINGS = {
    "capped dot, bias, sinks": Scoring(
        partial(scores.dot_scores, cap=0.7), table_bias, draw(H, seed=5)
    ),
    "additive, bias": Scoring(
        lambda q, k: scores.additive_scores(q, k, draw(H, K, seed=6)), table_bias
    ),
}


@pytest.mark.parametrize(
    ("causal", "window", "what"),
    [
        *((causal, window, "") for causal in (False, True) for window in (1, 3, 12, 13, 50)),
        *((causal, 4, what) for causal in (False, True) for what in SCORINGS),
    ],
)
def test_windowed_equals_masked(causal: bool, window: int, what: str) -> None:
    """The blocked form has the values and gradients of the plain one, packed rows included."""
    arrays = [draw(B, T, H, K), draw(B, T, 2, K, seed=1), draw(B, T, 2, 3, seed=2)]
    marks, reach, scoring = packed_marks(), Reach(causal, window), SCORINGS.get(what, Scoring())
    y, grads = differentiated(
        lambda *a: attention.windowed_attention(*a, marks, reach, scoring).mixed, arrays
    )
    wanted, wanted_grads = differentiated(
        lambda *a: attention.document_attention(*a, marks, marks, reach, scoring).mixed, arrays
    )
    assert_close(y, wanted, 1e-6)
    assert_gradients_close(grads, wanted_grads, 1e-6)


@pytest.mark.parametrize("window", [None, 5, 50])
@pytest.mark.parametrize("what", ["", *SCORINGS])
def test_blocks_of_queries_equal_the_whole_sequence(monkeypatch, window, what: str) -> None:
    """Values, weights and gradients; and later keys are not compared at all."""
    monkeypatch.setattr(attention, "LEAST_BLOCK", 4)
    arrays = [draw(B, T, H, K), draw(B, T, 2, K, seed=1), draw(B, T, 2, 3, seed=2)]
    marks, reach, scoring = packed_marks(), Reach(True, window), SCORINGS.get(what, Scoring())
    compared = []

    def compare(queries, keys):
        compared.append((queries.shape[1], keys.shape[1]))
        return scoring.compare(queries, keys)

    def both(how, *arrays):
        mixed, weights = how(*arrays, reach=reach, scoring=scoring._replace(compare=compare))
        return jnp.concatenate([mixed.reshape((B, -1)), weights.reshape((B, -1))], axis=1)

    y, grads = differentiated(
        partial(both, partial(attention.sequence_attention, marks=marks)), arrays
    )
    assert compared == [(4, 4), (4, 8), (4, 12), (1, 13)]
    whole = partial(attention.document_attention, query_marks=marks, key_marks=marks)
    wanted, wanted_grads = differentiated(partial(both, whole), arrays)
    assert_close(y, wanted, 1e-6)
    assert_gradients_close(grads, wanted_grads, 1e-6)


def largest_array(how, *arrays: jax.Array) -> int:
    """The largest array that a program makes, its inner programs included."""

    def largest(jaxpr) -> int:
        sizes = [v.aval.size for e in jaxpr.eqns for v in e.outvars]
        params = [list(e.params.values()) for e in jaxpr.eqns]
        found = jax.tree.leaves(params, is_leaf=lambda p: hasattr(p, "eqns"))
        return max([0, *sizes, *(largest(p) for p in found if hasattr(p, "eqns"))])

    return largest(jax.make_jaxpr(how)(*arrays))


def test_softmax_over_nothing_is_zero_with_zero_gradient() -> None:
    mask = jnp.array([[True, False], [False, False]])
    value, pull = jax.vjp(
        lambda s: attention.safe_softmax(s, mask), jnp.array([[3.0, 9.0], [1.0, 2.0]])
    )
    assert value.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert pull(jnp.array([[1.0, 2.0], [3.0, 4.0]]))[0].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_windowed_never_builds_a_square() -> None:
    length, window = 512, 16
    marks = Marks(jnp.ones((1, length), jnp.int32), jnp.arange(length)[None])
    for causal, neighbours in ((True, 2), (False, 3)):
        size = largest_array(
            lambda x, causal=causal: (
                attention.windowed_attention(x, x, x, marks, Reach(causal, window)).mixed
            ),
            jnp.ones((1, length, 1, 2)),
        )
        assert size <= neighbours * length * max(window, 2)


def test_additive_scores_never_build_all_units() -> None:
    """Neither forward nor backward: units exist for a block of queries."""
    length, units = 256, 32
    x = jnp.ones((1, length, 1, units))

    def program(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(scores.additive_scores(x, x, x[0, 0])))

    assert largest_array(jax.grad(program), x) <= scores.BLOCK * length * units


def test_sinks_stand_in_the_denominator_only() -> None:
    e, sink = np.array([[0.3, -1.0, 2.0]]), 0.7
    seen = jnp.array([[True, False, True]])
    got = attention.safe_softmax(jnp.asarray(e, jnp.float32), seen, jnp.full((1, 1), sink))
    power = np.exp(e) * np.asarray(seen)
    assert_close(got, power / (power.sum() + np.exp(sink)), 1e-6)
    nothing = attention.safe_softmax(jnp.ones((1, 3)), jnp.zeros((1, 3), bool), jnp.ones((1, 1)))
    assert not nothing.any()


def test_float64_stays_float64() -> None:
    with jax.enable_x64(True):
        q = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 2, 4)))
        mixed, weights = attention.attend(q, q, q, None)
        rotated = positions.rotary(q, jnp.arange(3)[None], 9.0)
        assert mixed.dtype == weights.dtype == rotated.dtype == jnp.float64
        e = np.einsum("bthk,bshk->bhts", q, q) / 2
        wanted = np.exp(e) / np.exp(e).sum(-1, keepdims=True)
        np.testing.assert_allclose(weights, wanted, rtol=1e-12)


def test_rotary_products_depend_on_distance_only() -> None:
    q, k = draw(1, 1, 1, 8), draw(1, 1, 1, 8, seed=1)

    def product(i: int, j: int) -> float:
        at = [positions.rotary(a, jnp.array([[p]]), 100.0) for a, p in ((q, i), (k, j))]
        return float(jnp.sum(at[0] * at[1]))

    assert product(7, 3) == pytest.approx(product(104, 100), abs=1e-5)
    assert product(7, 3) != pytest.approx(product(7, 4), abs=1e-3)
    with pytest.raises(ValueError, match="even head size, got 3"):
        positions.rotary(draw(1, 1, 1, 3), jnp.array([[0]]), 100.0)
