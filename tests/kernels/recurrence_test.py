"""The recurrence kernel against autodiff through a plain loop."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from recattn_jax.kernels import recurrence
from recattn_jax.kernels.recurrence import Cell, affine
from tests.oracles import assert_close, assert_gradients_close

B, D, H = 3, 5, 4


def keep_apart(projected: jax.Array, recurrent: jax.Array) -> jax.Array:
    """Gates of a cell that does not add its two products, as a GRU that resets late."""
    return jnp.concatenate([projected + 2.0 * recurrent, projected], axis=-2)


def advance_apart(carry: tuple, gates: jax.Array) -> tuple:
    (hidden,) = carry
    return (0.5 * hidden + jnp.tanh(gates[:, 0]) * jax.nn.sigmoid(gates[:, 1]),)


CELLS = {
    "lstm": (Cell(affine, operator.add, recurrence.advance_lstm), 4, 2),
    "elman": (Cell(affine, operator.add, recurrence.advance_elman), 1, 1),
    "apart": (Cell(affine, keep_apart, advance_apart), 1, 1),
}


def plain_loop(cell, weights, kernel, x, carry, starts, keep):
    hidden = []
    for t in range(x.shape[1]):
        before = carry
        if starts is not None:
            before = tuple(jnp.where(starts[:, t, None], 0.0, leaf) for leaf in carry)
        recurrent = jnp.einsum("bk,kgh->bgh", before[0], kernel)
        after = cell.advance(before, cell.merge(cell.project(weights, x[:, t]), recurrent))
        if keep is not None:
            after = tuple(
                jnp.where(keep[:, t, None], n, o) for n, o in zip(after, carry, strict=True)
            )
        carry = after
        hidden.append(carry[0])
    return jnp.stack(hidden, axis=1), carry


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("length", "block"), [(1, 4), (4, 4), (7, 4), (8, 4)])
def test_equals_autodiff_of_a_plain_loop(name: str, masked: bool, length: int, block: int) -> None:
    """Outputs, last carry and all gradients, with resets, padding, initial carry, ragged blocks."""
    cell, gates, leaves = CELLS[name]
    draw = np.random.default_rng(0).normal
    x = jnp.asarray(draw(size=(B, length, D)), jnp.float32)
    weights = jnp.asarray(draw(size=(D, gates, H)), jnp.float32), jnp.ones((gates, H))
    kernel = jnp.asarray(draw(size=(H, gates, H)), jnp.float32) / 2
    carry = tuple(jnp.asarray(draw(size=(B, H)), jnp.float32) for _ in range(leaves))
    segments = np.random.default_rng(1).integers(0, 3, size=(B, length))
    starts, keep = None, None
    if masked:
        keep = jnp.asarray(segments > 0)
        starts = jnp.asarray(segments == 2)

    def loss(run, weights, kernel, x, carry):
        hidden, last = run(cell, weights, kernel, x, carry, starts, keep)
        terms = jax.tree.map(
            lambda a: jnp.sum(jnp.sin(a + jnp.arange(H).reshape((1,) * (a.ndim - 1) + (H,)))),
            (hidden, last),
        )
        return sum(jax.tree.leaves(terms)), (hidden, last)

    def run(how):
        gradient = jax.value_and_grad(functools.partial(loss, how), (0, 1, 2, 3), has_aux=True)
        (_, out), grads = jax.jit(gradient)(weights, kernel, x, carry)
        return out, grads

    out, grads = run(functools.partial(recurrence.scan_cell, block=block))
    wanted_out, wanted = run(plain_loop)
    assert_close(out, wanted_out, 1e-6)
    assert_gradients_close(grads, wanted, 2e-6)


def test_vmap_and_checkpoint_agree_and_jvp_is_refused() -> None:
    cell, gates, _ = CELLS["elman"]
    x, carry = jnp.ones((B, 3, D)), (jnp.zeros((B, H)),)
    weights, kernel = (jnp.full((D, gates, H), 0.1), jnp.zeros((gates, H))), jnp.eye(H)[:, None]

    def total(x):
        return recurrence.scan_cell(cell, weights, kernel, x, carry)[0].sum()

    wanted = jax.grad(total)(x)
    np.testing.assert_allclose(jax.grad(jax.checkpoint(total))(x), wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(total))(x[None])[0], wanted, rtol=1e-6)
    with pytest.raises(TypeError, match="jvp"):
        jax.jvp(total, (x,), (x,))


def test_gradient_scans_carry_no_weight() -> None:
    """The backward loop must not accumulate weight gradients: they are products outside it."""
    cell, gates, _ = CELLS["elman"]
    weights, kernel = (jnp.ones((D, gates, H)), jnp.zeros((gates, H))), jnp.ones((H, gates, H))

    def total(kernel):
        x, carry = jnp.ones((B, 33, D)), (jnp.zeros((B, H)),)
        return recurrence.scan_cell(cell, weights, kernel, x, carry)[0].sum()

    loops = [
        e
        for e in _equations(jax.make_jaxpr(jax.grad(total))(kernel).jaxpr)
        if e.primitive.name == "scan"
    ]
    assert loops
    for loop in loops:
        first = loop.params["num_consts"]
        carried = loop.invars[first : first + loop.params["num_carry"]]
        assert all(v.aval.shape == (B, H) for v in carried), [v.aval for v in carried]


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)
