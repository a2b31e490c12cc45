"""Steps in chunks are the steps at once, in values and gradients, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from recattn_jax import partition
from recattn_jax.kernels.chunks import map_steps
from recattn_jax.training import MeshShape, sharding
from tests.oracles import assert_close
from tests.training import hlo

B, T, D, V = 4, 6, 5, 11
KEYS = jax.random.split(jax.random.key(0), 4)
X = jax.random.normal(KEYS[0], (B, T, D))
LABELS = jax.random.randint(KEYS[1], (B, T), 0, V)
WEIGHTS = {"kernel": jax.random.normal(KEYS[2], (D, V)), "bias": jax.random.normal(KEYS[3], (V,))}


def scores(weights, x, labels):
    """Two results of different shapes and dtypes, of any leading shape."""
    y = jnp.einsum("...d,dv->...v", x, weights["kernel"])
    y = y + weights["bias"].reshape((1,) * (y.ndim - 1) + (-1,))
    log_p = jnp.take_along_axis(jax.nn.log_softmax(y), labels[..., None], axis=-1)
    return {"log_p": log_p, "right": jnp.argmax(y, axis=-1) == labels}


def total(run, weights, x, labels):
    """A number that weighs every step differently, and all that was found."""
    found = run(weights, x, labels)
    toward = jnp.sin(jnp.arange(found["log_p"].size).reshape(found["log_p"].shape))
    return jnp.sum(toward * found["log_p"]), found


def differentiated(run, *given):
    return jax.value_and_grad(lambda w, x: total(run, w, x, given[2]), (0, 1), has_aux=True)(
        *given[:2]
    )


def in_chunks(chunk):
    return lambda weights, x, labels: map_steps(scores, weights, (x, labels), chunk)


@pytest.mark.parametrize("chunk", [1, 7, 12, 1000])
def test_chunks_change_nothing(chunk) -> None:
    given = (WEIGHTS, X, LABELS)
    wanted = differentiated(scores, *given)
    assert_close(differentiated(in_chunks(chunk), *given), wanted, 1e-6)
    jitted = jax.jit(lambda *given: differentiated(in_chunks(chunk), *given))
    assert_close(jitted(*given), wanted, 1e-6)


def test_gradients_of_single_rows() -> None:
    """As privacy wants them: a vmap of a gradient."""

    def rows(run):
        def one(x, labels):
            return differentiated(run, WEIGHTS, x[None], labels[None])

        return jax.vmap(one)(X, LABELS)

    assert_close(rows(in_chunks(4)), rows(scores), 1e-6)


def test_gradients_of_many_chunks_are_added_up_in_float32() -> None:
    x, one = jnp.ones((1, 1024), jnp.bfloat16), jnp.ones((), jnp.bfloat16)

    def loss(weight):
        y = map_steps(lambda w, x: w.astype(x.dtype) * x, weight, (x,), 1)
        return jnp.sum(y, dtype=jnp.float32)

    assert float(jax.grad(loss)(one)) == 1024  # in bfloat16, 256 + 1 is 256


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        (MeshShape(data=2, fsdp=2, sequence=2), (4, 2)),
        (MeshShape(data=2, fsdp=4), (2, 1)),  # of four rows
    ],
)
def test_every_device_runs_through_its_own_steps(shape, parts, monkeypatch) -> None:
    mesh = sharding.make_mesh(shape)
    rows = NamedSharding(mesh, P("data"))

    def compiled():
        def run(*given):
            return differentiated(in_chunks(2), *given)

        placed = (sharding.replicated(mesh), rows, rows)
        return jax.jit(run, in_shardings=placed).lower(WEIGHTS, X, LABELS).compile()

    def travelling(program):
        return hlo.collectives_in_loops(program.as_text(), 1)

    with jax.set_mesh(mesh):
        assert partition.parts(B, T) == parts
        program = compiled()
        assert hlo.loops(program.as_text()) >= 2  # forward and backward
        assert travelling(program) == []
        given = jax.device_put((WEIGHTS, X, LABELS), program.input_shardings[0])
        got = jax.device_get(program(*given))
        monkeypatch.setattr(partition, "parts", lambda rows, steps: (1, 1))
        assert travelling(compiled()) != []  # or this test would see nothing
    assert_close(got, differentiated(scores, WEIGHTS, X, LABELS), 1e-6)


def test_split_is_undone_by_join() -> None:
    x = jnp.arange(8 * 6 * 2).reshape(8, 6, 2)
    for parts in ((1, 1), (4, 1), (2, 3), (8, 6)):
        rows = partition.split(x, parts)
        assert rows.shape == (parts[0] * parts[1], 48 // (parts[0] * parts[1]), 2)
        np.testing.assert_array_equal(partition.join(rows, parts, 8), x)
    # The part of the first rows' later steps.
    np.testing.assert_array_equal(partition.split(x, (4, 2))[1], x[:2, 3:].reshape(6, 2))


def test_a_chunk_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="chunk=0 must be at least 1"):
        map_steps(scores, WEIGHTS, (X, LABELS), 0)
