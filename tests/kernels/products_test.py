"""Dense products as one product of two matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.kernels.products import dense_product

CASES = {
    "one axis": ((5, 7, 2), (2, 3), 1),
    "to heads": ((5, 7, 2), (2, 4, 3), 1),
    "from heads": ((5, 7, 4, 3), (4, 3, 2), 2),
    "a row": ((2,), (2, 3), 1),
}


def _operands(name):
    x_shape, kernel_shape, count = CASES[name]
    keys = jax.random.split(jax.random.key(0), 2)
    x, kernel = (
        jax.random.normal(k, s) for k, s in zip(keys, (x_shape, kernel_shape), strict=True)
    )
    axes = (tuple(range(x.ndim - count, x.ndim)), tuple(range(count)))
    return x, kernel, (axes, ((), ()))


@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives_are_those_of_dot_general(name):
    x, kernel, numbers = _operands(name)

    def ours(x, kernel):
        return dense_product(x, kernel, numbers)

    def theirs(x, kernel):
        return jax.lax.dot_general(x, kernel, numbers)

    for derive in (lambda f: f, jax.jacrev, jax.jacfwd, jax.hessian):
        got, want = (derive(lambda *a, f=f: jnp.sin(f(*a)))(x, kernel) for f in (ours, theirs))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_a_kernel_of_heads_is_one_matrix_backward_too():
    x, kernel, numbers = _operands("to heads")
    gradient = jax.grad(lambda kernel: jnp.sum(jnp.sin(dense_product(x, kernel, numbers))))
    products = [
        e for e in jax.make_jaxpr(gradient)(kernel).eqns if e.primitive.name == "dot_general"
    ]
    assert [product.outvars[0].aval.shape for product in products] == [(35, 12), (12, 2)]


def test_sums_are_wide_where_asked():
    x, kernel, numbers = _operands("to heads")
    y = dense_product(
        x.astype(jnp.bfloat16),
        kernel.astype(jnp.bfloat16),
        numbers,
        preferred_element_type=jnp.float32,
    )
    assert y.dtype == jnp.float32


def test_arrays_that_a_mesh_has_cut_keep_their_axes():
    x, kernel, numbers = _operands("to heads")
    mesh = jax.make_mesh((2,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        text = str(jax.make_jaxpr(lambda k: dense_product(x, k, numbers))(kernel))
    assert "reshape" not in text
