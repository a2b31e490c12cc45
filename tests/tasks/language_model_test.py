"""The language model's sums against numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.tasks import LanguageModel, Perplexity
from recattn_jax.tasks.base import reported

SEPARATOR = 3


def metrics(logits, targets, segments, symbol="byte"):
    batch = {
        "inputs": jnp.zeros_like(jnp.asarray(targets)),
        "targets": jnp.asarray(targets),
        "segments": jnp.asarray(segments),
    }
    task = LanguageModel(SEPARATOR, symbol)
    assert task.headline == {"byte": "bits_per_byte", "word": "perplexity"}[symbol]
    assert not task.maximise

    def apply(comparison, labels, inputs, state, context, *, method):
        assert method == "compare"
        return comparison(jnp.asarray(logits), labels), "after"

    found, state = task(apply, batch, None)
    assert state == "after"
    return found


def test_sums() -> None:
    p = np.array([[[0.5, 0.25, 0.125, 0.125]] * 4])
    found = metrics(np.log(p), [[0, 1, SEPARATOR, 2]], [[1, 1, 1, 0]])
    assert [float(x) for x in found["loss"]] == pytest.approx([(1 + 2 + 3) * np.log(2), 3])
    assert [float(x) for x in found["accuracy"]] == [1, 3]
    # The nats of the separator count, but it is no byte.
    assert [float(x) for x in found["bits_per_byte"]] == pytest.approx([1 + 2 + 3, 2])


def test_padding_does_not_count_whatever_it_holds() -> None:
    logits = np.zeros((1, 2, 4))
    logits[0, 1] = [1e9, -1e9, 0, 0]
    found = metrics(logits, [[0, 1]], [[1, 0]])
    assert float(found["loss"].total) == pytest.approx(np.log(4))


def test_perplexity_is_of_the_whole_pass() -> None:
    """Two batches, of 3 and of 1 words: 2^((1 + 2 + 3 + 3) / 4), which no mean of the two is."""
    p = np.array([[[0.5, 0.25, 0.125, 0.125]] * 4])
    first = metrics(np.log(p), [[0, 1, SEPARATOR, 2]], [[1, 1, 1, 0]], "word")
    second = metrics(np.log(p), [[2, 0, 0, 0]], [[1, 0, 0, 0]], "word")
    assert "bits_per_word" not in first
    parts = [first["perplexity"], second["perplexity"]]
    assert reported(parts) == pytest.approx(2 ** (9 / 4), rel=1e-6)
    assert reported(parts) == pytest.approx(np.exp(reported([first["loss"], second["loss"]])))


def test_perplexity_beyond_all_numbers() -> None:
    assert reported([Perplexity(1e6, 1.0)]) == np.inf
    assert np.isnan(reported([Perplexity(0.0, 0.0)]))
    assert reported([Perplexity(np.float32(0.0), np.float32(2.0))]) == 1.0
