"""Optimizers see our kernels as what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recattn_jax.training import optimizers
from recattn_jax.training.precision import path_name
from tests.training.toy import hybrid


@pytest.fixture(scope="module")
def params():
    tokens = jnp.zeros((1, 3), jnp.int32)
    shapes = jax.eval_shape(hybrid(8).init, jax.random.key(0), tokens)["params"]
    keys = iter(jax.random.split(jax.random.key(0), 100))
    return jax.tree.map(lambda s: jax.random.normal(next(keys), s.shape), shapes)


def by_name(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: x is None)
    return {path_name(path): leaf for path, leaf in leaves}


def test_only_kernels_decay(params):
    decays = by_name(optimizers.decay_mask(params))
    assert decays["body/layers_0/layer/layers_0/recurrent_kernel"]
    assert decays["body/layers_0/layer/layers_1/out/kernel"] and decays["readout/kernel"]
    kept = {name for name, decay in decays.items() if not decay}
    assert kept == {n for n in decays if n.endswith(("bias", "scale", "embedding"))}
    assert len(kept) == 5
    # Two axes, of which one counts layers: a vector.
    assert optimizers.decay_mask({"stacked": {"gain": jnp.ones((2, 8))}}) == {
        "stacked": {"gain": False}
    }


def muon_step(params):
    muon = optimizers.muon(optimizers.constant(1.0, 0), 0.9, 0.9, 0.99, 0.0, None)
    grads = jax.tree.map(lambda x: x * 0.01, params)
    updates, _ = muon.update(grads, muon.init(params), params)
    return by_name(updates)


def test_muon_takes_each_gate_and_each_layer_for_a_matrix_of_its_own(params):
    updates, given = muon_step(params), by_name(params)

    def assert_alone(update, matrix):
        """The update is what the matrix gets when there is nothing else."""
        alone = muon_step({"kernel": matrix})["kernel"]
        np.testing.assert_allclose(update.reshape(alone.shape), alone, atol=1e-5)

    name = "body/layers_1/stacked/layer/layers_1/recurrent_kernel"  # [layers, D, G, H]
    assert given[name].shape == (2, 8, 4, 8)
    assert_alone(updates[name][1, :, 2], given[name][1, :, 2])
    name = "body/layers_0/layer/layers_1/key/kernel"  # [D, H, K]
    assert_alone(updates[name], given[name].reshape(8, 8))
    name = "body/layers_0/layer/layers_1/out/kernel"  # [H, K, D]
    assert_alone(updates[name], given[name].reshape(8, 8))
    # Adam's first step has the same size everywhere.
    for name in ("readout/kernel", "frontend/embed/embedding", "readout/bias"):
        assert np.ptp(np.abs(updates[name])) < 1e-2


def test_muon_is_optaxs_own_over_several_steps(params):
    rate = optimizers.cosine(0.1, 2, 8, 0.0)
    ours = optimizers.muon(rate, 0.9, 0.8, 0.99, 0.01, None)
    theirs = optax.contrib.muon(
        rate,
        beta=0.9,
        adam_b1=0.8,
        adam_b2=0.99,
        weight_decay=0.01,
        weight_decay_mask=optimizers.decay_mask,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=optimizers.muon_axes,
    )

    def steps(optimizer):
        @jax.jit
        def step(params, state):
            grads = jax.tree.map(jnp.sin, params)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        now, state = params, optimizer.init(params)
        for _ in range(3):
            now, state = step(now, state)
        return now, state

    got, wanted = steps(ours), steps(theirs)
    for a, b in zip(*map(jax.tree.leaves, (got, wanted)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_clipping_bounds_the_whole_gradient():
    grads = {"a": jnp.full((4,), 3.0), "b": jnp.full((9,), 4.0)}
    sgd = optimizers.sgd(optimizers.constant(1.0, 0), 0.5)
    updates, _ = sgd.update(grads, sgd.init(grads), grads)
    np.testing.assert_allclose(optax.tree.norm(updates), 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (optimizers.constant(1.0, 4), {0: 0.25, 3: 1.0, 4: 1.0, 90: 1.0}),
        (optimizers.constant(1.0, 0), {0: 1.0}),
        (optimizers.constant(1.0, 1), {0: 1.0, 1: 1.0}),
        (optimizers.linear(1.0, 4, 14, 0.5), {1: 0.5, 4: 1.0, 9: 0.75, 14: 0.5, 99: 0.5}),
        (optimizers.cosine(1.0, 4, 14, 0.2), {3: 1.0, 4: 1.0, 9: 0.6, 14: 0.2, 99: 0.2}),
        (optimizers.exponential(1.0, 2, 10, 0.25), {1: 1.0, 2: 1.0, 7: 0.5, 12: 0.25}),
        (optimizers.step(1.0, 2, 10, 0.1), {2: 1.0, 11: 1.0, 12: 0.1, 22: 0.01}),
    ],
)
def test_schedules_rise_and_fall(schedule, expected):
    for step, value in expected.items():
        np.testing.assert_allclose(schedule(step), value, rtol=1e-5, err_msg=f"step {step}")
