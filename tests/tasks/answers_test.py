"""Answers at some steps: what counts, and that there are no logits of the others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.layers import LSTM, Embed
from recattn_jax.layers.base import Context
from recattn_jax.models import Asked, PerStep, SequenceModel
from recattn_jax.tasks import Answers, losses

TASK = Answers(functools.partial(losses.cross_entropy, smoothing=0.0, weights=None))
BATCH = {
    "inputs": jnp.array([[1, 2, 3, 0], [2, 2, 0, 0], [0, 0, 0, 0]]),
    "segments": jnp.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]),
    "asked": jnp.array([[1, 3], [1, 0], [0, 0]]),
    "answers": jnp.array([[2, 0], [1, -1], [-1, -1]]),
}


def test_questions_count_alike_and_answers_make_the_loss():
    p = jnp.array([[[1, 1, 2], [1, 2, 1]], [[1, 2, 1], [9, 1, 1]], [[1, 1, 1], [1, 1, 1]]]) / 4.0
    metrics, _ = TASK(lambda x, state, context: (jnp.log(p), ()), BATCH, None)
    value = {name: float(m.total / m.weight) for name, m in metrics.items()}
    expected = -(np.log(2 / 4) + np.log(1 / 4) + np.log(2 / 4)) / 3
    np.testing.assert_allclose(value["loss"], expected, rtol=1e-6)
    # Of the first question one of two answers is right, of the second the only one.
    assert (value["accuracy"], value["exact"]) == (0.75, 0.5)
    assert metrics["accuracy"].weight == 2.0 and metrics["loss"].weight == 3.0


def test_asked_steps_are_those_of_all_steps():
    model = SequenceModel(Embed(5, 6), LSTM(6), Asked(PerStep(3)))
    everywhere = SequenceModel(Embed(5, 6), LSTM(6), PerStep(3))
    context = Context(segments=BATCH["segments"], asked=BATCH["asked"])
    variables = model.init(jax.random.key(0), BATCH["inputs"], None, context)
    logits, state = model.apply(variables, BATCH["inputs"], None, context)
    params = variables["params"]
    params = {**params, "readout": params["readout"]["readout"]}
    whole, _ = everywhere.apply({"params": params}, BATCH["inputs"], None, context)
    expected = np.take_along_axis(np.asarray(whole), np.asarray(BATCH["asked"])[..., None], axis=1)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)
    assert state == () and not model.streams
    with pytest.raises(ValueError, match="say at which steps to predict"):
        model.apply(variables, BATCH["inputs"], None, Context())


def test_there_are_no_logits_of_steps_that_are_not_asked():
    batch, steps, asked, vocabulary = 4, 32, 2, 512
    model = SequenceModel(Embed(vocabulary, 8), LSTM(8), Asked(PerStep(vocabulary)))
    rows = {
        "inputs": jnp.ones((batch, steps), jnp.int32),
        "segments": jnp.ones((batch, steps), jnp.int32),
        "asked": jnp.ones((batch, asked), jnp.int32),
        "answers": jnp.ones((batch, asked), jnp.int32),
    }
    context = Context(asked=rows["asked"])
    params = model.init(jax.random.key(0), rows["inputs"], None, context)

    def loss(params, rows):
        metrics, _ = TASK(functools.partial(model.apply, params), rows, None)
        return metrics["loss"].total

    compiled = jax.jit(jax.grad(loss)).lower(params, rows).compile().as_text()
    assert f"f32[{batch},{asked},{vocabulary}]" in compiled
    assert f"[{batch},{steps},{vocabulary}]" not in compiled
    assert f"[{batch * steps},{vocabulary}]" not in compiled
