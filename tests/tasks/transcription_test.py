"""Transcription: all ways to say a text against torch, best paths and edits by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.data import (
    CharTokenizer,
    Measurements,
    bucketed,
    transcribed_examples,
)
from recattn_jax.errors import UserError
from recattn_jax.layers import LSTM, Bidirectional
from recattn_jax.models import PerStep, SequenceModel
from recattn_jax.tasks import Transcription
from recattn_jax.tasks.text_scores import distance
from tests.oracles import oracle

RANDOM = np.random.default_rng(0)
TEXTS = ("aab", "ba", "b")
LENGTHS = (9, 4, 1)
RECORDS = [
    {"series": RANDOM.normal(size=(steps, 2)), "text": text}
    for steps, text in zip(LENGTHS, TEXTS, strict=True)
]
VOCABULARIES = {
    "series": Measurements((0.0, 0.0), (1.0, 1.0)),
    "text": CharTokenizer.of(TEXTS),
}
TASK = Transcription(symbols=3)


def examples(records=RECORDS, lengths=(10, 4)):
    return transcribed_examples("train", records, VOCABULARIES, lengths)


def batch():
    """Three rows and one that only fills it."""
    (found,) = bucketed(examples(), 4, [(10, 4)], seed=0).epoch()
    return {name: jnp.asarray(array) for name, array in found.items()}


def test_the_loss_and_its_gradient_equal_torch():
    torch = oracle("torch")
    logits = RANDOM.normal(0, 2, (4, 10, 3)).astype(np.float32)
    given = torch.tensor(logits[:3], requires_grad=True)
    wanted = torch.nn.functional.ctc_loss(
        given.log_softmax(-1).transpose(0, 1),
        torch.tensor([[0, 0, 1], [1, 0, 0], [1, 0, 0]]),
        torch.tensor(LENGTHS),
        torch.tensor([len(text) for text in TEXTS]),
        blank=2,
        reduction="sum",
    )
    wanted.backward()

    def total(logits):
        def apply(inputs, state, context):
            np.testing.assert_array_equal(context.segments, batch()["segments"])
            return logits, state

        metrics, _ = TASK(apply, batch(), None)
        assert float(jax.lax.stop_gradient(metrics["loss"].weight)) == 6
        return metrics["loss"].total

    value, gradient = jax.value_and_grad(total)(jnp.asarray(logits))
    np.testing.assert_allclose(value, wanted.item(), rtol=1e-4)
    np.testing.assert_allclose(gradient[:3], given.grad.numpy(), atol=1e-4)
    assert not np.any(gradient[3]), "a row that only fills the batch counts"


def test_a_path_says_what_is_left_of_it():
    paths = [[0, 0, 2, 0, 1, 1, 2, 2, -1, -1], [2, 1, 1, 1, 2, -1], [2, -1]]
    said = [TASK.write(np.array(path), "", VOCABULARIES) for path in paths]
    assert said == ["aab", "b", ""]
    scores = TASK.score([np.array(path) for path in paths], RECORDS, VOCABULARIES)
    assert scores == pytest.approx(
        {"symbol_error_rate": 2 / 6, "word_error_rate": 2 / 3, "exact": 1 / 3}
    )
    told = TASK.explain([np.array(path) for path in paths], RECORDS, VOCABULARIES)
    assert told.splitlines() == ["'ba' was read as 'b'", "'b' was read as ''"]


def test_predictions_do_not_depend_on_padding():
    model = SequenceModel(LSTM(4), Bidirectional(LSTM(2), LSTM(2)), PerStep(3))
    given = batch()
    variables = model.init(jax.random.key(0), given["inputs"])
    paths = TASK.predict(model, variables, given)
    np.testing.assert_array_equal(np.sum(paths >= 0, axis=1), (*LENGTHS, 0))
    louder = given | {"inputs": given["inputs"] + 9.0 * (given["segments"] == 0)[..., None]}
    np.testing.assert_array_equal(paths, TASK.predict(model, variables, louder))


def test_another_number_of_symbols_is_refused():
    model = SequenceModel(LSTM(4), LSTM(4), PerStep(5))
    given = batch()
    variables = model.init(jax.random.key(0), given["inputs"])
    with pytest.raises(ValueError, match=r"predicts \[4, 10, 5\], expected \[4, 10, 3\]"):
        TASK(lambda x, s, c: model.apply(variables, x, s, c), given, None)


FAULTS = {
    "no place": ({"text": "aaa"}, (10, 4), r"record 0: 'aaa' needs 5 steps, and there are 4"),
    "long": ({"text": "ab"}, (3, 4), r"'ab' has 4 steps, at most 3 fit"),
    "wordy": ({"text": "ababa"}, (10, 4), r"'ababa' has 5 symbols, at most 4 fit"),
    "empty": ({"text": ""}, (10, 4), r"'' has no symbol"),
    "a letter": ({"text": "abc"}, (10, 4), r"record 0: .*'c'"),
}


@pytest.mark.parametrize(("changed", "lengths", "message"), FAULTS.values(), ids=FAULTS)
def test_texts_that_cannot_be_said_are_refused(changed, lengths, message):
    with pytest.raises(UserError, match=message):
        examples([RECORDS[1] | changed], lengths)


@pytest.mark.parametrize(
    ("one", "two", "edits"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("ab", "ba", 2)],
)
def test_the_distance_is_the_fewest_edits(one, two, edits):
    assert distance(one, two) == distance(two, one) == edits
