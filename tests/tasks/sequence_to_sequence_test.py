"""Sequence to sequence: an encoder-decoder is called as it is, and what it writes is scored."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.data import ByteTokenizer
from recattn_jax.layers import LSTM, Context, CrossAttention, Embed, Residual, Serial
from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel
from recattn_jax.tasks import Bleu, ExactMatch, Rouge, Scored, SequenceToSequence, losses

STOP = 256
LOSS = functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)
VOCABULARIES = {"source": ByteTokenizer(), "target": ByteTokenizer()}
RECORDS = [{"source": "hi", "targets": ["ciao", "salve"]}, {"source": "no", "targets": ["no"]}]


def echo(model, variables, source_BS, segments_BS):
    """Writes the source, and after its end nonsense."""
    ended_BS = jnp.cumsum(segments_BS == 0, axis=1)
    return jnp.select([ended_BS == 0, ended_BS == 1], [source_BS, STOP], 33)


TASK = SequenceToSequence(STOP, echo, LOSS, (ExactMatch(), Rouge(), Bleu("13a", False)))


def ids(text, length):
    return np.pad(np.array(list(text.encode()), np.int32), (0, length - len(text)))


def test_is_a_scored_task() -> None:
    assert isinstance(TASK, Scored)
    assert not TASK.maximise
    assert SequenceToSequence(STOP, echo, LOSS, (), headline="bleu").maximise


def test_the_model_gets_source_and_target() -> None:
    """The loss of a packed batch is that of the pairs one by one."""
    model = EncoderDecoder(
        encoder=Serial((Embed(9, 8), LSTM(8))),
        decoder=SequenceModel(
            Embed(9, 8), Serial((LSTM(8), Residual(CrossAttention(heads=2)))), PerStep(9)
        ),
    )
    random = np.random.default_rng(0)

    def pair(s, t, number):
        target = random.integers(1, 9, t)
        return {
            "source": random.integers(1, 9, s),
            "source_segments": np.full(s, number),
            "inputs": np.concatenate([[0], target]),
            "targets": np.concatenate([target, [0]]),
            "segments": np.full(t + 1, number),
        }

    def batch(*pairs):
        """The pairs in one row, with padding behind them."""
        return {
            name: jnp.asarray(
                np.pad(np.concatenate([p[name] for p in pairs]), (0, 2))[None], jnp.int32
            )
            for name in pairs[0]
        }

    one, two = pair(3, 2, 1), pair(4, 5, 2)
    variables = model.init(jax.random.key(0), batch(one)["source"], batch(one)["inputs"])
    apply = functools.partial(model.apply, variables)
    both, state = TASK(apply, batch(one, two), None)
    assert state == ()
    each = [TASK(apply, batch(p), None)[0] for p in (one, two)]
    assert float(both["loss"].weight) == 3 + 6
    for name in ("loss", "accuracy"):
        total = sum(float(metrics[name].total) for metrics in each)
        assert float(both[name].total) == pytest.approx(total, rel=1e-5), name
    logits, _ = apply(batch(one)["source"], batch(one)["inputs"],
                      Context(segments=batch(one)["source_segments"]),
                      Context(segments=batch(one)["segments"]))  # fmt: skip
    log_p = np.asarray(jax.nn.log_softmax(logits))[0, np.arange(3), one["targets"]]
    assert float(each[0]["loss"].total) == pytest.approx(-log_p.sum(), rel=1e-5)


def test_a_carried_state_is_refused() -> None:
    with pytest.raises(ValueError, match="do not carry"):
        TASK(lambda *given: None, {}, ())


def test_what_is_written_is_scored_up_to_the_stop() -> None:
    batch = {
        "source": jnp.asarray([ids("salve", 8), ids("yes", 8)]),
        "source_segments": jnp.asarray([[1] * 5 + [0] * 3, [1] * 3 + [0] * 5]),
    }
    predictions = list(np.asarray(TASK.predict(PerStep(1), {}, batch)))
    values = TASK.score(predictions, RECORDS, VOCABULARIES)
    assert values["exact_match"] == 0.5  # the second reference
    assert values["rouge1"] == values["rougeL"] == pytest.approx(50.0)
    assert set(values) == {"exact_match", "rouge1", "rouge2", "rougeL", "bleu"}
    lines = TASK.explain(predictions, RECORDS, VOCABULARIES).splitlines()
    assert len(lines) == 3 and "version:" in lines[2]


def test_a_text_may_be_cut_short_or_empty() -> None:
    full, empty = ids("no", 2), np.array([STOP, 65])
    values = TASK.score([empty, full], RECORDS, VOCABULARIES)
    assert values["exact_match"] == 0.5


def test_lines_in_and_out() -> None:
    row = TASK.read("hi", VOCABULARIES)
    assert row["source"].tolist() == [104, 105] and row["source_segments"].tolist() == [1, 1]
    assert TASK.read("", VOCABULARIES)["source"].tolist() == [256]
    assert TASK.write(ids("a\nb", 4)[:3], "hi", VOCABULARIES) == "a b"
