"""Kernels with an axis of gates: each gate starts as a matrix of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from recattn_jax.layers.initializers import per_gate_orthogonal

SHAPES = [(6, 4, 6), (6, 3, 5), (2, 4, 3, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_gate_is_orthogonal_and_not_the_same(shape):
    kernel = per_gate_orthogonal(jax.random.key(0), shape)
    assert kernel.shape == shape
    gates = np.moveaxis(kernel, -2, -3).reshape((-1, shape[-3], shape[-1]))
    for gate in gates:
        np.testing.assert_allclose(gate.T @ gate, np.eye(shape[-1]), atol=1e-5)
    assert len({round(float(gate[0, 0]), 6) for gate in gates}) == len(gates)


def decompositions(jaxpr):
    for equation in jaxpr.eqns:
        if "geqrf" in equation.primitive.name or equation.primitive.name == "qr":
            yield equation.invars[0].aval.ndim
        for inner in jaxprs_in_params(equation.params):
            yield from decompositions(inner)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_decomposition_is_a_batch(shape):
    """Several batched ones beside each other never end on a CPU with few cores."""
    start = jax.jit(lambda key: jnp.sum(per_gate_orthogonal(key, shape)))
    found = list(decompositions(jax.make_jaxpr(start)(jax.random.key(0)).jaxpr))
    assert found and set(found) == {2}
