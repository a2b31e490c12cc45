"""Classification: sums by hand, scores of records, lines in and out; and it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.data import ByteTokenizer
from recattn_jax.data.vocabularies import Labels
from recattn_jax.layers import LSTM, Context, Embed
from recattn_jax.models import Mean, SequenceModel
from recattn_jax.tasks import Classification, Scored, losses
from recattn_jax.tasks.base import Labelled, reported

LOSS = functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)
TASK = Classification(classes=3, loss=LOSS)
VOCABULARIES = {"text": ByteTokenizer(), "label": Labels(("bad", "fair", "good"))}
RECORDS = [{"text": "a", "label": name} for name in ("good", "good", "bad", "good")]


def test_is_a_scored_task() -> None:
    assert isinstance(TASK, Scored) and isinstance(TASK, Labelled)
    assert TASK.maximise and not Classification(3, LOSS, headline="loss").maximise


def test_rows_count_by_their_weights() -> None:
    p = jnp.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    batch = {
        "inputs": jnp.ones((3, 2), jnp.int32),
        "segments": jnp.array([[1, 1], [1, 0], [0, 0]]),
        "label": jnp.array([0, 1, 0]),
        "weight": jnp.array([1.0, 2.0, 0.0]),
    }

    def apply(inputs, state, context):
        assert context.segments is batch["segments"]
        return jnp.log(p), ()

    metrics, state = TASK(apply, batch, None)
    assert state == ()
    assert [float(x) for x in metrics["loss"]] == pytest.approx([5 * np.log(2), 3])
    assert [float(x) for x in metrics["accuracy"]] == [1, 3]


def test_scores_of_records() -> None:
    """One of three good ones is found, and the bad one taken for good; nothing is fair."""
    predictions = [np.int32(0), np.int32(2), np.int32(2), np.int32(0)]
    values = TASK.score(predictions, RECORDS, VOCABULARIES)
    assert values == {
        "accuracy": 0.25,
        "macro_f1": pytest.approx((0 + 2 / 5) / 2),
        "f1/bad": 0.0,
        "f1/good": pytest.approx(2 / 5),
    }
    counts, names = TASK.confusion(predictions, RECORDS, VOCABULARIES)
    assert counts.tolist() == [[0, 0, 1], [0, 0, 0], [2, 0, 1]]
    assert tuple(names) == ("bad", "fair", "good")
    text = TASK.explain(predictions, RECORDS, VOCABULARIES)
    assert "2 good" in text and "no record is labelled 'fair'" in text


def test_a_model_with_a_prediction_a_step_is_refused() -> None:
    batch = {"inputs": jnp.ones((2, 5), jnp.int32), "segments": jnp.ones((2, 5), jnp.int32)}
    with pytest.raises(ValueError, match="readout that pools"):
        TASK(lambda *given: (jnp.zeros((2, 5, 3)), ()), batch, None)


def test_lines_in_and_out() -> None:
    row = TASK.read("hé", VOCABULARIES)
    assert row["inputs"].tolist() == [104, 0xC3, 0xA9] and row["segments"].tolist() == [1, 1, 1]
    assert TASK.read("", VOCABULARIES)["inputs"].tolist() == [256]
    assert TASK.write(np.int32(2), "hé", VOCABULARIES) == "good"


def test_it_learns_with_a_real_model() -> None:
    """Which of three letters stands in the text, whatever is padded behind it."""
    model = SequenceModel(Embed(4, 8), LSTM(8), Mean(3))
    rows = np.random.default_rng(0).integers(0, 3, 24)
    batch = {
        "inputs": jnp.asarray(np.stack([rows + 1, rows + 1, np.full(24, 0)], axis=1), jnp.int32),
        "segments": jnp.asarray([[1, 1, 0]] * 24, jnp.int32),
        "label": jnp.asarray(rows, jnp.int32),
        "weight": jnp.ones(24),
    }
    params = model.init(jax.random.key(0), batch["inputs"])["params"]

    def loss(params):
        apply = functools.partial(model.apply, {"params": params})
        metrics, _ = TASK(apply, batch, None)
        return metrics["loss"].total / metrics["loss"].weight, metrics

    @jax.jit
    def step(params):
        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 1.0 * g, params, grads), metrics

    for _ in range(60):
        params, metrics = step(params)
    assert reported([metrics["accuracy"]]) == 1.0
    predicted = TASK.predict(model, {"params": params}, batch)
    np.testing.assert_array_equal(predicted, rows)
    alone = model.apply({"params": params}, batch["inputs"][:, :2], None, Context())[0]
    np.testing.assert_array_equal(jnp.argmax(alone, -1), rows)
