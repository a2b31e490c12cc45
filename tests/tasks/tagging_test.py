"""Tagging: sums by hand, scores of records with words that did not fit, lines in and out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.data import ByteTokenizer
from recattn_jax.data.vocabularies import Labels
from recattn_jax.layers import LSTM, Embed
from recattn_jax.models import Joint, Mean, PerStep, SequenceModel
from recattn_jax.tasks import Scored, Tagging, losses
from recattn_jax.tasks.base import reported

LOSS = functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)
TAGS = ("O", "B-place", "I-place")
VOCABULARIES = {
    "text": ByteTokenizer(),
    "tag": Labels(TAGS),
    "label": Labels(("ask", "tell")),
}
PLAIN = Tagging(tags=3, loss=LOSS)
JOINT = Tagging(tags=3, loss=LOSS, intents=2)
RECORDS = [
    {"tokens": ["in", "New", "York"], "tags": ["O", "B-place", "I-place"], "label": "tell"},
    {"tokens": ["Rome", "?"], "tags": ["B-place", "O"], "label": "ask"},
    {"tokens": ["hm"], "tags": ["O"], "label": "ask"},
]
P_TAGS = jnp.log(jnp.array([[[0.5, 0.25, 0.25]] * 3, [[0.25, 0.5, 0.25]] * 3]))
P_INTENTS = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
BATCH = {
    "inputs": jnp.ones((2, 3), jnp.int32),
    "segments": jnp.array([[1, 1, 1], [0, 0, 0]]),
    "tags": jnp.array([[0, -1, 1], [-1, -1, -1]]),
    "label": jnp.array([0, 0]),
    "weight": jnp.array([1.0, 0.0]),
}


def test_is_a_scored_task() -> None:
    assert isinstance(PLAIN, Scored) and PLAIN.maximise


def test_only_steps_with_a_tag_count() -> None:
    metrics, state = PLAIN(lambda *given: (P_TAGS, "after"), BATCH, None)
    assert state == "after"
    assert [float(x) for x in metrics["loss"]] == pytest.approx([3 * np.log(2), 2])
    assert [float(x) for x in metrics["accuracy"]] == [1, 2]


def test_an_intent_is_one_decision_more() -> None:
    metrics, _ = JOINT(lambda *given: ((P_TAGS, P_INTENTS), ()), BATCH, None)
    assert [float(x) for x in metrics["loss"]] == pytest.approx([4 * np.log(2), 3])
    assert [float(x) for x in metrics["accuracy"]] == [1, 2]
    assert [float(x) for x in metrics["intent_accuracy"]] == [1, 1]


@pytest.mark.parametrize(
    ("task", "predictions"),
    [
        (PLAIN, (P_TAGS, P_INTENTS)),
        (JOINT, P_TAGS),
        (JOINT, (P_INTENTS, P_TAGS)),
        (PLAIN, P_INTENTS),
        (JOINT, (P_TAGS, P_INTENTS[:, :1])),
    ],
)
def test_another_model_is_refused(task, predictions) -> None:
    with pytest.raises(ValueError, match=r"expected \[B, T, 3\]"):
        task(lambda *given: (predictions, ()), BATCH, None)


def test_scores_of_records() -> None:
    """The first has a wrong end, the second one tag too few, since its last word did not fit."""
    tags = [[0, -1, 1, 0, -1], [-1, 1, -1, -1, -1], [0, -1, -1, -1, -1]]
    predictions = [np.array(row, np.int32) for row in tags]
    values = PLAIN.score(predictions, RECORDS, VOCABULARIES)
    assert values == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "token_accuracy": 5 / 6}
    pairs = [(row, np.int32(i)) for row, i in zip(predictions, (1, 0, 1), strict=True)]
    values = JOINT.score(pairs, RECORDS, VOCABULARIES)
    assert values["f1"] == 0.5 and values["token_accuracy"] == 5 / 6
    assert values["intent_accuracy"] == 2 / 3
    assert values["sentence_accuracy"] == 1 / 3  # the second: tags and intent are right
    assert "place" in JOINT.explain(pairs, RECORDS, VOCABULARIES)


def test_too_many_tags_are_refused() -> None:
    with pytest.raises(ValueError, match="2 predicted tags for 1 words"):
        PLAIN.score([np.array([0, 0])], RECORDS[2:], VOCABULARIES)


def test_lines_in_and_out() -> None:
    row = PLAIN.read("in  Rome", VOCABULARIES)
    assert bytes(row["inputs"].tolist()) == b"in Rome"
    assert np.flatnonzero(row["tags"] >= 0).tolist() == [1, 6]
    tags = np.where(row["tags"] >= 0, [0, 0, 0, 0, 0, 0, 1], -1)
    assert PLAIN.write(tags, "in  Rome", VOCABULARIES) == "in/O Rome/B-place"
    assert JOINT.write((tags, 1), "in  Rome", VOCABULARIES) == "tell\tin/O Rome/B-place"
    empty = PLAIN.read(" ", VOCABULARIES)
    assert PLAIN.write(empty["tags"], " ", VOCABULARIES) == ""


def test_it_learns_with_a_joint_model() -> None:
    """The tag of a letter is its number, the intent whether the first letter is there."""
    model = SequenceModel(Embed(4, 8), LSTM(8), Joint((PerStep(3), Mean(2))))
    assert not model.streams
    inputs = np.random.default_rng(0).integers(1, 4, (24, 4))
    batch = {
        "inputs": jnp.asarray(inputs, jnp.int32),
        "segments": jnp.ones((24, 4), jnp.int32).at[:, 3].set(0),
        "tags": jnp.asarray(inputs - 1, jnp.int32).at[:, 3].set(-1),
        "label": jnp.asarray((inputs[:, :3] == 1).any(1), jnp.int32),
        "weight": jnp.ones(24),
    }
    params = model.init(jax.random.key(0), batch["inputs"])["params"]

    def loss(params):
        metrics, _ = JOINT(functools.partial(model.apply, {"params": params}), batch, None)
        return metrics["loss"].total / metrics["loss"].weight, metrics

    @jax.jit
    def step(params):
        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 2.0 * g, params, grads), metrics

    for _ in range(150):
        params, metrics = step(params)
    assert reported([metrics["accuracy"]]) == reported([metrics["intent_accuracy"]]) == 1.0
    tags, intents = jax.jit(functools.partial(JOINT.predict, model))({"params": params}, batch)
    np.testing.assert_array_equal(tags, batch["tags"])
    np.testing.assert_array_equal(intents, batch["label"])
