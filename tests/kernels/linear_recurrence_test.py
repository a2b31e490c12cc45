"""Both forms of the linear recurrence against a plain loop in float64, and against leaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.kernels.linear_recurrence import linear_recurrence
from tests.oracles import assert_close, assert_gradients_close

B, H = 3, 4
# Documents that start anywhere, the first step included; padding before, between and after them.
STARTS = np.array([[0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0], [1] + [0] * 10, [0] * 4 + [1] + [0] * 6]) > 0
KEEP = (
    np.array([[1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0], [1] * 11, [0, 0, 1, 0, 1, 1, 1, 1, 1, 0, 0]]) > 0
)
FORMS = ["associative", "sequential"]


def draw(length: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Decays, some of them 0 and 1, inputs and a carry."""
    random = np.random.default_rng(0)
    decay = random.uniform(size=(B, length, H))
    decay[:, ::5, 0], decay[:, ::3, 1] = 0.0, 1.0
    inputs, carry = random.normal(size=(B, length, H)), random.normal(size=(B, H))
    return jnp.asarray(decay), jnp.asarray(inputs), jnp.asarray(carry)


def plain_loop(decay, inputs, carry, starts, keep):
    hidden = []
    for t in range(inputs.shape[1]):
        before = carry if starts is None else jnp.where(starts[:, t, None], 0.0, carry)
        after = decay[:, t] * before + inputs[:, t]
        carry = after if keep is None else jnp.where(keep[:, t, None], after, carry)
        hidden.append(carry)
    return jnp.stack(hidden, axis=1), carry


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("length", "masked"), [(1, True), (1, False), (11, True), (11, False)])
def test_equals_a_plain_loop(form: str, length: int, masked: bool) -> None:
    """Outputs, last carry and all gradients, in float64."""
    starts, keep = None, None
    if masked:
        starts, keep = jnp.asarray(STARTS[:, :length]), jnp.asarray(KEEP[:, :length])

    def run(scan, arrays):
        def loss(arrays):
            hidden, last = scan(*arrays, starts, keep)
            return jnp.sum(jnp.sin(hidden)) + jnp.sum(jnp.cos(last)), (hidden, last)

        (_, out), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays)
        return out, gradients

    with jax.enable_x64(True):
        arrays = draw(length)
        got = run(lambda *args: linear_recurrence(*args, implementation=form), arrays)
        wanted = run(plain_loop, arrays)
        assert got[0][0].dtype == jnp.float64
        assert_close(got[0], wanted[0], 1e-13)
        assert_gradients_close(got[1], wanted[1], 1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_altering_a_document_leaves_the_others_bit_identical(form: str) -> None:
    length = 37
    random = np.random.default_rng(1)
    starts = jnp.zeros((B, length), bool).at[:, jnp.array([9, 16, 17])].set(True)
    keep = jnp.ones((B, length), bool).at[:, 12:14].set(False)
    inside = np.zeros((B, length, 1), bool)
    inside[:, 9:16] = True
    decay, inputs = (jnp.asarray(random.uniform(size=(B, length, H)), jnp.float32) for _ in "ab")

    @jax.jit
    def run(decay, inputs):
        def loss(decay, inputs):
            hidden, _ = linear_recurrence(
                decay, inputs, jnp.ones((B, H)), starts, keep, implementation=form
            )
            return jnp.sum(jnp.where(inside, 0.0, jnp.sin(hidden))), hidden

        gradients, hidden = jax.grad(loss, (0, 1), has_aux=True)(decay, inputs)
        return hidden, *gradients

    others = jnp.where(inside, 1.0 - decay, decay), jnp.where(inside, -1e3 * inputs, inputs)
    for before, after in zip(run(decay, inputs), run(*others), strict=True):
        np.testing.assert_array_equal(
            np.where(inside, 0.0, before), np.where(inside, 0.0, after), strict=True
        )


def test_the_carry_is_float32_at_least() -> None:
    half = jnp.ones((1, 2, 3), jnp.bfloat16)
    hidden, last = linear_recurrence(half, half, jnp.zeros((1, 3)))
    assert hidden.dtype == last.dtype == jnp.float32


def test_an_unknown_form_is_refused() -> None:
    x = jnp.ones((1, 2, 3))
    with pytest.raises(ValueError, match="'blocked' must be None or one of 'associative', "):
        linear_recurrence(x, x, x[:, 0], implementation="blocked")
