"""The step: exact however the batch is cut, spread or carried."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.layers import CrossAttention, Embed
from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel
from recattn_jax.tasks import SequenceToSequence, losses
from recattn_jax.training import MeshShape, optimizers
from recattn_jax.training.precision import path_name
from recattn_jax.training.state import abstract_state
from recattn_jax.training.step import make_train_step
from tests.training.toy import Counting, Recurrence, prepared, toy

SHORT = Counting(8, 6, 16, seed=3)
PLAIN = {
    "optimizer": optimizers.sgd(optimizers.constant(1.0, 0), None),
    "model": Recurrence(vocabulary=16, width=64, dropout=0.0),
}


def batch_of(index, rows=8):
    return Counting(rows, 12, 16, seed=3).batch(index)


def one_step(batch, **changes):
    """(parameters before, after, loss pair, numbers) of a step of gradient descent at rate 1."""
    fresh, step, place = prepared(**{**PLAIN, **changes})
    before = jax.device_get(fresh().params)
    state, (metrics, numbers) = step(fresh(), place(batch))
    return before, jax.device_get(state.params), *jax.device_get((metrics["loss"], numbers))


def assert_same_step(one, other):
    before, after, loss, numbers = one
    before_2, after_2, loss_2, numbers_2 = other
    jax.tree.map(np.testing.assert_array_equal, before, before_2)
    np.testing.assert_allclose(loss.total / loss.weight, loss_2.total / loss_2.weight, rtol=1e-6)
    np.testing.assert_allclose(numbers["grad_norm"], numbers_2["grad_norm"], rtol=1e-5)
    near = 1e-5 * numbers["grad_norm"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
        here = {path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(after_2)}
        np.testing.assert_allclose(leaf, here[path_name(path)], rtol=0, atol=near, err_msg=path)
        assert np.abs(leaf - here[path_name(path)]).max() <= 1e-5


def test_a_step_in_micro_batches_is_the_step_in_one():
    """The weights of micro-batches differ, so a mean of their means would be wrong."""
    batch = batch_of(0)
    weights = (batch["segments"] > 0).sum(1)
    assert len({weights[i::4].sum() for i in range(4)}) > 1
    whole = one_step(batch)
    assert_same_step(whole, one_step(batch, accumulate=4))
    assert_same_step(whole, one_step(batch_of(0), accumulate=2, mesh=MeshShape(data=2, fsdp=2)))


def halves(batch):
    return [{name: x[:, part] for name, x in batch.items()} for part in (slice(6), slice(6, 12))]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_carried_state_goes_on_and_is_reset_at_document_ends(accumulate):
    """Two halves with a carried state lose what the whole row loses; a fresh document forgets."""
    whole = batch_of(0)
    whole["segments"] = 1 + (np.arange(12)[None] >= np.arange(3, 11)[:, None]).astype(np.int32)
    still = optimizers.sgd(optimizers.constant(0.0, 0), None)
    _, _, expected, _ = one_step(whole, optimizer=still)
    changes = {"train": SHORT, "carry_state": True, "optimizer": still, "accumulate": accumulate}
    fresh, step, place = prepared(**{**PLAIN, **changes})
    state = fresh()
    totals = []
    for half in halves(whole):
        state, (metrics, _) = step(state, place(half))
        totals.append(float(metrics["loss"].total))
    np.testing.assert_allclose(sum(totals), expected.total, rtol=1e-6)
    np.testing.assert_array_equal(state.carry[0], whole["segments"][:, -1])
    # The same second half without the first loses something else, but not if a document starts it.
    first, second = halves(whole)
    for starts, same in ((False, False), (True, True)):
        second["segments"][:] = 7 if starts else first["segments"][:, -1:]
        losses = []
        for batch in (first, {**first, "inputs": first["inputs"][:, ::-1].copy()}):
            state, _ = step(fresh(), place(batch))
            _, (metrics, _) = step(state, place(second))
            losses.append(float(metrics["loss"].total))
        assert (losses[0] == losses[1]) is same


def test_storage_dtype_holds_and_moments_stay_float32():
    adam = optimizers.adam(optimizers.constant(1e-2, 0), 0.9, 0.999, 1e-8, 1.0)
    storage = ((r"embedding", jnp.bfloat16), (r"readout", jnp.bfloat16))
    fresh, step, place = prepared(optimizer=adam, storage=storage, ema_decay=0.5)
    state = fresh()
    for index in range(2):
        state, _ = step(state, place(batch_of(index)))
    assert state.params["embed"]["embedding"].dtype == jnp.bfloat16
    assert state.params["recurrent_kernel"].dtype == jnp.float32
    rest = jax.tree.leaves((state.opt_state, state.ema))
    assert {x.dtype for x in rest} <= {jnp.dtype("float32"), jnp.dtype("int32")}


def test_the_average_follows_the_parameters():
    fresh, step, place = prepared(**PLAIN, ema_decay=0.5)
    state = fresh()
    params = [jax.device_get(state.params)]
    for index in range(2):
        state, _ = step(state, place(batch_of(index)))
        params.append(jax.device_get(state.params))
    first = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, params[0], params[1])
    second = jax.tree.map(lambda a, b: a * 2 / 11 + b * 9 / 11, first, params[2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.ema, second)


def test_noise_depends_on_seed_and_step_alone():
    fresh, step, place = prepared(model=Recurrence(vocabulary=16, width=64, dropout=0.5))

    def loss(state):
        return float(step(state, place(batch_of(0)))[1][0]["loss"].total)

    assert loss(fresh()) == loss(fresh())
    assert loss(fresh()) != loss(fresh().replace(step=fresh().step + 1))


def test_a_task_may_call_its_model_in_another_way():
    """A source and a target, not inputs and a state."""
    nats = functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)
    experiment, _ = toy()
    experiment = dataclasses.replace(
        experiment,
        model=EncoderDecoder(
            encoder=Embed(5, 4),
            decoder=SequenceModel(Embed(6, 4), CrossAttention(heads=2), PerStep(6)),
        ),
        task=SequenceToSequence(0, lambda *given: None, nats, ()),
        batch={
            name: jax.ShapeDtypeStruct((8, steps), jnp.int32)
            for steps, names in (
                (7, ("source", "source_segments")),
                (3, ("inputs", "targets", "segments")),
            )
            for name in names
        },
    )
    state = abstract_state(experiment)
    assert set(state.params) == {"encoder", "decoder"}
    new, (metrics, _) = jax.eval_shape(make_train_step(experiment), state, experiment.batch)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert set(metrics) == {"loss", "accuracy"}
