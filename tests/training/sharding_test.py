"""Eight devices do what one does, each with its own part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from recattn_jax import partition
from recattn_jax.analysis import costs
from recattn_jax.analysis import hlo as analysis
from recattn_jax.errors import UserError
from recattn_jax.layers import (
    LSTM,
    SLSTM,
    BlockRecurrent,
    CrossAttention,
    Embed,
    Feedback,
    FeedbackMemory,
    Residual,
    SelfAttention,
    add,
)
from recattn_jax.models import PerStep, SequenceModel
from recattn_jax.tasks.language_model import LanguageModel
from recattn_jax.training import DEFAULT_RULES, MeshShape, optimizers, sharding
from recattn_jax.training.checks import check
from recattn_jax.training.precision import path_name
from recattn_jax.training.state import abstract_state, create_state, state_shardings
from tests.training import hlo
from tests.training.toy import Counting, hybrid, prepared, toy

SPREAD = MeshShape(data=2, fsdp=2, model=2)
HYBRID = {
    "model": hybrid(64),
    "task": LanguageModel(separator=15, symbol="char"),
    "optimizer": optimizers.sgd(optimizers.constant(1.0, 0), None),
}


# Longer than a block of time, or there would be no loop.
LONG = {**HYBRID, "model": hybrid(64, depth=0), "train": Counting(8, 48, 16, seed=3)}


def test_a_step_of_the_hybrid_on_eight_devices_is_the_step_on_one():
    batch = Counting(8, 12, 16, seed=3).batch(0)
    results = []
    for mesh in (MeshShape(data=1), SPREAD):
        fresh, step, place = prepared(**HYBRID, mesh=mesh)
        before = fresh()
        state, (metrics, numbers) = step(fresh(), place(batch))
        grads = jax.tree.map(
            lambda a, b: np.asarray(a) - np.asarray(b), before.params, state.params
        )
        results.append(jax.device_get((before.params, grads, state.params, metrics, numbers)))
    (start, grads, params, metrics, numbers), other = results
    np.testing.assert_allclose(
        metrics["loss"].total / metrics["loss"].weight,
        other[3]["loss"].total / other[3]["loss"].weight,
        rtol=1e-6,
    )
    np.testing.assert_allclose(numbers["grad_norm"], other[4]["grad_norm"], rtol=1e-5)
    near = 1e-5 * float(numbers["grad_norm"])
    for one, eight, atol in (
        (start, other[0], 0.0),
        (grads, other[1], near),
        (params, other[2], 1e-5),
    ):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def test_no_weight_travels_inside_a_loop_over_time(monkeypatch):
    """Without `gather` the partitioner does just that, and this test must see it.

    No `Repeat` here, whose loop is one over layers and rightly gathers each layer's weights.
    """

    def collectives(at_least, **changes):
        prepared.cache_clear()
        text = prepared(**changes, mesh=SPREAD)[1].as_text()
        assert hlo.loops(text) >= 2  # forward and backward
        return hlo.collectives_in_loops(text, at_least)

    # A kernel's share of one device; no activation is that large.
    assert collectives(64 * 4 * 64 // 4, **LONG) == []
    # The toy sums the gradient of its weights inside the backward loop.
    assert collectives(64 * 64 // 4) != []
    monkeypatch.setattr(partition, "gather", lambda kernel, split=-1: kernel)
    assert collectives(64 * 4 * 64 // 4, **LONG) != []
    prepared.cache_clear()


def test_a_row_of_carried_attention_needs_no_other_row():
    model = SequenceModel(Embed(16, 64), SelfAttention(2, window=8), PerStep(16))
    prepared.cache_clear()
    changes = {**LONG, "model": model, "carry_state": True}
    text = prepared(**changes, mesh=MeshShape(data=8))[1].as_text()
    assert hlo.loops(text) >= 2
    assert hlo.collectives_in_loops(text, 2) == []
    prepared.cache_clear()


@pytest.mark.slow
def test_muon_gathers_each_matrix_once(monkeypatch):
    """Left in parts, a matrix would be gathered for each of fifteen products."""
    muon = optimizers.muon(optimizers.constant(1e-2, 0), 0.9, 0.9, 0.99, 0.0, None)

    def gathered():
        prepared.cache_clear()
        changes = {**LONG, "optimizer": muon}
        text = prepared(**changes, mesh=MeshShape(fsdp=8, data=1))[1].as_text()
        sent = [c for c in costs.collectives(analysis.parse(text)) if c.kind != "all-reduce"]
        return sum(map(costs.ring_bytes, sent))

    once = gathered()
    monkeypatch.setattr(partition, "whole", lambda x: x)
    assert gathered() > 2 * once
    prepared.cache_clear()


def test_heads_that_do_not_see_each_other_are_split_by_heads():
    model = SequenceModel(Embed(16, 64), SLSTM(64, heads=4), PerStep(16))
    changes = {**LONG, "model": model}
    prepared.cache_clear()
    text = prepared(**changes, mesh=MeshShape(data=1, model=4))[1].as_text()
    # Each device steps its own head: not even the hidden state travels.
    assert hlo.loops(text) >= 2
    assert hlo.collectives_in_loops(text, 1) == []
    prepared.cache_clear()


@pytest.mark.parametrize(
    "body",
    [
        Feedback(LSTM(64), features=64),
        pytest.param(
            BlockRecurrent(CrossAttention(heads=2), CrossAttention(heads=2), add, slots=2, block=4),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            FeedbackMemory(Residual(CrossAttention(heads=2)), window=4), marks=pytest.mark.slow
        ),
    ],
    ids=lambda body: type(body).__name__,
)
def test_layers_that_step_through_time_gather_their_weights_before(body, monkeypatch):
    """Not so the sums of gradients: they travel in every step of the loop that autodiff makes."""
    model = SequenceModel(Embed(16, 64), body, PerStep(16))
    changes = {**LONG, "model": model}

    def gathers():
        prepared.cache_clear()
        text = prepared(**changes, mesh=SPREAD)[1].as_text()
        assert hlo.loops(text) >= 2
        return [c for c in hlo.collectives_in_loops(text, 64 * 64 // 4) if "all-gather" in c]

    assert gathers() == []
    monkeypatch.setattr(partition, "gather", lambda kernel, split=-1: kernel)
    assert gathers() != []
    prepared.cache_clear()


def test_parameters_and_moments_are_really_split():
    adam = optimizers.adam(optimizers.constant(1e-2, 0), 0.9, 0.999, 1e-8, 1.0)
    experiment, data = toy(**{**HYBRID, "optimizer": adam}, mesh=SPREAD, ema_decay=0.9)
    mesh = check(experiment, data)
    with jax.set_mesh(mesh):
        shardings = state_shardings(experiment, abstract_state(experiment), mesh)
        state = create_state(experiment, shardings)
    found = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = path_name(path)
        parts = {shard.data.shape for shard in leaf.addressable_shards}
        if "layers_0/layer/layers_0/recurrent_kernel" in name:  # [D, G, H]
            assert parts == {(32, 4, 32)}, name
            found.add(name.split("/")[0] + ("mu" if "/mu/" in name else ""))
        elif "stacked" in name and name.endswith("recurrent_kernel"):  # [layers, D, G, H]
            assert parts == {(2, 32, 4, 32)}, name
        elif name.endswith(("query/kernel", "key/kernel", "value/kernel")):  # [D, H, K]
            assert parts == {(32, 2, 16)}, name
        elif name.endswith("/out/kernel"):  # [H, K, D]
            assert parts == {(2, 8, 64)}, name
        elif name.endswith("embedding"):  # [V, D]
            assert parts == {(8, 64)}, name
        elif name.endswith("readout/kernel"):  # [D, V]
            assert parts == {(64, 8)}, name
    assert found == {"params", "opt_state", "opt_statemu", "ema"}


def test_carried_state_is_split_by_rows_wherever_they_stand():
    experiment, data = toy(**HYBRID, mesh=SPREAD, carry_state=True)
    mesh = check(experiment, data)
    with jax.set_mesh(mesh):
        abstract = abstract_state(experiment)
        shardings = state_shardings(experiment, abstract, mesh)
    rows = ("data", "fsdp")
    for leaf, where in zip(
        jax.tree.leaves(abstract.carry), jax.tree.leaves(shardings.carry), strict=True
    ):
        stacked = leaf.shape[0] == 2
        assert where.spec == (P(None, rows) if stacked else P(rows)), leaf
    assert any(leaf.shape[0] == 2 for leaf in jax.tree.leaves(abstract.carry))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (MeshShape(data=-1, fsdp=3), "8 devices cannot be divided by 3"),
        (MeshShape(data=16), "needs 16 devices, there are 8"),
        (MeshShape(data=-1, fsdp=-1), "at most one is -1"),
        (MeshShape(data=0), "at most one is -1"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(shape, words):
    with pytest.raises(UserError, match=words):
        sharding.make_mesh(shape)


def test_a_batch_that_the_mesh_does_not_divide_is_refused():
    mesh = sharding.make_mesh(MeshShape(data=4, fsdp=2))
    batch = {"inputs": jax.ShapeDtypeStruct((12, 6), jnp.int32)}
    with pytest.raises(UserError, match=r"batch of 12 rows .* divisible by 8: data=4 x fsdp=2"):
        sharding.check_batch(batch, mesh, 1)
    batch = {"inputs": jax.ShapeDtypeStruct((8, 6), jnp.int32)}
    sharding.check_batch(batch, mesh, 1)
    with pytest.raises(UserError, match="divisible by 16"):
        sharding.check_batch(batch, mesh, 2)


def test_the_first_rule_wins_and_layer_axes_are_hidden_from_rules():
    mesh = sharding.make_mesh(SPREAD)
    kernel = jnp.zeros((2, 64, 4, 64))
    params = {"stacked": {"recurrent_kernel": kernel}, "scale": jnp.zeros(64)}
    specs = sharding.parameter_specs(params, DEFAULT_RULES, mesh)
    assert specs["stacked/recurrent_kernel"] == P(None, "fsdp", None, "model")
    assert specs["scale"] == P(None)
    seen = []

    def note(shape, mesh):
        seen.append(shape)
        return P("data")

    specs = sharding.parameter_specs(params, ((r"kernel$", note), *DEFAULT_RULES), mesh)
    assert specs["stacked/recurrent_kernel"] == P(None, "data") and seen == [(64, 4, 64)]
