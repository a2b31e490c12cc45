"""What is exported gives what the run gives, at every length and number of rows, or is refused."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from launch.generate import texts
from recattn_jax.data import (
    TEXT,
    ByteTokenizer,
    CharTokenizer,
    Labels,
    WordTokenizer,
    save_vocabularies,
)
from recattn_jax.decoding import Sampler, generate
from recattn_jax.errors import StorageError, UserError
from recattn_jax.layers import (
    LSTM,
    Bidirectional,
    Embed,
    Residual,
    SelfAttention,
    Serial,
)
from recattn_jax.layers.base import Context
from recattn_jax.models import Joint, Max, PerStep, SequenceModel
from recattn_jax.tasks import Answers, Classification, LanguageModel, Tagging, losses
from recattn_jax.training import exporting
from recattn_jax.training.exporting import export_run
from recattn_jax.training.loading import Run
from tests.oracles import assert_close, oracle
from tests.training.toy import toy

LOSS = functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)
MIXED = "abc\u00e4 "


@pytest.fixture(autouse=True)
def packages(any_shape):
    for name in ("flatbuffers", "safetensors"):
        oracle(name)


@pytest.fixture
def made(tmp_path):
    """Makes a run of a model that was not trained, with weights that make it say much."""

    def make(model, task, vocabularies, dtype=None):
        path = tmp_path / "run"
        path.mkdir(exist_ok=True)
        (path / "run.json").write_text(json.dumps({"config_file": "some/file.py", "commit": "c"}))
        save_vocabularies(vocabularies, path / "vocabularies.json")
        experiment = dataclasses.replace(toy()[0], model=model, task=task, batch=TEXT.batch(2, 24))
        params = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 2), jnp.int32))["params"]
        params = jax.tree.map(lambda leaf: 2.0 * leaf, params)
        if dtype is not None:
            params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        return Run(path, {}, experiment, params, vocabularies, 7)

    return make


def language_model(tokenizer, causal=True):
    size = tokenizer.vocabulary_size
    attention = SelfAttention(heads=2, window=24 if causal else None, causal=causal)
    body = Serial((LSTM(16), Residual(attention))) if causal else attention
    task = LanguageModel(tokenizer.separator, tokenizer.symbol)
    return SequenceModel(Embed(size, 16), body, PerStep(size)), task


def loaded(folder):
    from recattn_jax.training.export_loader import Exported

    return Exported(folder)


def rows(batch, length, size, padded=0):
    random = np.random.default_rng(length)
    segments = np.ones((batch, length), np.int32)
    segments[0, length // 2 :] = 2
    segments[:, length - padded :] = 0
    return random.integers(0, size, (batch, length)).astype(np.int32), segments


def wanted(run, inputs, segments):
    context = Context(segments=jnp.asarray(segments))
    y, _ = jax.jit(run.experiment.model.apply)({"params": run.params}, inputs, None, context)
    return jax.tree.leaves(y)


def test_a_language_model_is_the_same_whole_and_by_steps(made, tmp_path):
    tokenizer = CharTokenizer(MIXED)
    model, task = language_model(tokenizer)
    run = made(model, task, {"text": tokenizer})
    described = export_run(run, tmp_path / "a" / "out", ())
    assert described == json.loads((tmp_path / "a/out/model.json").read_text())
    (whole,), step = described["functions"]["whole"], described["functions"]["step"]
    assert (whole["multiple"], whole["most"]) == (16, None)
    size = tokenizer.vocabulary_size
    assert whole["results"] == [
        {"name": "logits", "of": "text", "each_step": True, "shape": ["b", "16*t", size],
         "dtype": "float32"}
    ]  # fmt: skip
    assert step["results"][0]["shape"] == ["b", size]

    exported = loaded(tmp_path / "a/out")
    # Shorter than the window, and of several; one row, and more.
    for batch, length in ((1, 5), (3, 53)):
        inputs, segments = rows(batch, length, size, padded=2)
        (got,) = exported.whole(inputs, segments)
        assert got.shape == (batch, length, size)
        assert_close([got], wanted(run, inputs, segments))

    prompt = tokenizer.encode("abc").tolist()
    greedy = Sampler(0.0, None, None)
    ids = generate(
        model, run.params, prompt, separator=tokenizer.separator, n_tokens=40, sampler=greedy,
        seed=0, stop_at_separator=False,
    )  # fmt: skip
    ids = list(ids)
    assert len(set(ids)) > 3, "nothing to compare"
    assert list(exported.generate(prompt, 40)) == ids
    assert list(exported.generate(prompt, 0)) == []


@pytest.mark.slow
def test_what_does_not_stream_has_no_step(made, tmp_path):
    tokenizer = ByteTokenizer()
    model, task = language_model(tokenizer, causal=False)
    run = made(model, task, {"text": tokenizer})
    assert "step" not in export_run(run, tmp_path / "out", ())["functions"]
    exported = loaded(tmp_path / "out")
    inputs, segments = rows(2, 19, 257)
    assert_close(exported.whole(inputs, segments), wanted(run, inputs, segments))
    with pytest.raises(ValueError, match="no step"):
        exported.zero_state(1)


@pytest.mark.slow
def test_a_tagger_with_intents_gives_both(made, tmp_path):
    body = Bidirectional(LSTM(4), LSTM(4))
    model = SequenceModel(Embed(257, 8), body, Joint((PerStep(2), Max(3))))
    text = WordTokenizer(tuple("abcdefg"), lowercase=False)
    words = {"text": text, "tag": Labels(("O", "B-x")), "label": Labels(tuple("abc"))}
    run = made(model, Tagging(2, LOSS, intents=3), words)
    (whole,) = export_run(run, tmp_path / "out", ())["functions"]["whole"]
    assert [(r["of"], r["each_step"]) for r in whole["results"]] == [
        ("tag", True),
        ("label", False),
    ]
    inputs, _ = rows(3, 21, 257)
    segments = np.ones((3, 21), np.int32)
    exported = loaded(tmp_path / "out")
    with pytest.raises(ValueError, match="is a Tagging, and classifies nothing"):
        exported.classify("a cat")
    with pytest.raises(ValueError, match="kind word, a word at a time, .* by vocabularies.json"):
        exported.encode("a cat")
    tags, intents = exported.whole(inputs)
    assert tags.shape == (3, 21, 2) and intents.shape == (3, 3)
    assert_close([tags, intents], wanted(run, inputs, segments))


@pytest.mark.parametrize("spaced", [False, True])
def test_a_classifier_of_words_answers_texts(made, tmp_path, monkeypatch, spaced):
    monkeypatch.syspath_prepend(tmp_path / "out")  # as it is for who runs load.py
    text = WordTokenizer(("how", "many", "?", "don", "'", "t"), lowercase=True, spaced=spaced)
    words = {"text": text, "label": Labels(("number", "person", "place"))}
    model = SequenceModel(Embed(text.vocabulary_size, 4), LSTM(4), Max(3))
    run = made(model, Classification(3, LOSS), words)
    export_run(run, tmp_path / "out", (16,))
    exported = loaded(tmp_path / "out")
    for question in ("How many ?", "Don't!", ""):
        ids = text.encode(question).tolist()
        assert exported.encode(question) == ids
        inputs = np.array([ids or [text.separator]], np.int32)
        (logits,) = wanted(run, inputs, np.ones_like(inputs))
        shares = np.asarray(jax.nn.softmax(logits[0]))
        found = exported.classify(question)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert_close([np.array([found[name] for name in words["label"].names])], [shares])


@pytest.mark.parametrize("spaced", [False, True])
def test_words_go_on_from_a_prompt(made, tmp_path, monkeypatch, spaced):
    monkeypatch.syspath_prepend(tmp_path / "out")
    text = WordTokenizer(("a", "cat", ",", "\n"), lowercase=False, spaced=spaced)
    model, task = language_model(text)
    export_run(made(model, task, {"text": text}), tmp_path / "out", (16,))
    exported = loaded(tmp_path / "out")
    ids = [1, text.separator, 0, 2, text.unknown, 3, 0]
    prompt = text.encode("a cat").tolist()
    pieces = "".join(exported.decode(iter(ids), prompt))
    assert pieces == "".join(texts(text, iter(ids), prompt))
    assert pieces == (" cat\n\na , <unk>\na" if spaced else " cat\n\na, <unk>\na")


class Choosy(nn.Module):
    """A classifier that must know how long its rows are."""

    streams = False

    @nn.compact
    def __call__(self, inputs, state=None, context=Context()):
        scale = 2.0 if inputs.shape[1] > 5000 else 1.0
        real = (context.segments > 0)[..., None] if context.segments is not None else 1.0
        return jnp.sum(scale * real * nn.Embed(257, 2)(inputs), axis=1), ()


@pytest.mark.slow
def test_a_model_that_must_know_its_length_is_exported_by_lengths(made, tmp_path):
    words = {"text": ByteTokenizer(), "label": Labels(("a", "b"))}
    run = made(Choosy(), Classification(2, LOSS), words, jnp.bfloat16)
    with pytest.raises(UserError, match=r"Choosy.*--lengths=64,512.*1024\*t.*5000"):
        export_run(run, tmp_path / "out", ())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    described = export_run(run, tmp_path / "out", (32, 8, 32))
    assert {weight["dtype"] for weight in described["weights"]} == {"bfloat16"}
    wholes = described["functions"]["whole"]
    assert [(w["file"], w["multiple"], w["most"]) for w in wholes] == [
        ("whole_8.bin", 8, 8),
        ("whole_32.bin", 32, 32),
    ]
    exported = loaded(tmp_path / "out")
    for length in (3, 8, 9, 32):
        inputs, segments = rows(2, length, 257)
        assert_close(exported.whole(inputs, segments), wanted(run, inputs, segments))
    with pytest.raises(ValueError, match="33 steps; 32 is the longest"):
        exported.whole(*rows(2, 33, 257))


def test_what_cannot_be_exported_is_refused(made, tmp_path, monkeypatch):
    words = {"text": ByteTokenizer(), "label": Labels(("a", "b"))}
    run = made(Choosy(), Answers(LOSS), words)
    with pytest.raises(UserError, match="run of Answers.*language models, classifiers and taggers"):
        export_run(run, tmp_path / "out", ())
    body = LSTM(4, implementation="cudnn")
    run = made(SequenceModel(Embed(257, 8), LSTM(4), Max(2)), Classification(2, LOSS), words)
    model = SequenceModel(Embed(257, 8), body, Max(2))
    run = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, model=model))
    with pytest.raises(UserError, match="cannot be exported.*'cudnn' needs a GPU"):
        export_run(run, tmp_path / "out", (8,))
    with monkeypatch.context() as context:
        context.setitem(__import__("sys").modules, "flatbuffers", None)
        with pytest.raises(UserError, match=r"pip install -e '\.\[export\]'"):
            export_run(run, tmp_path / "out", (8,))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
def test_what_differs_from_the_run_is_not_written(made, tmp_path, monkeypatch):
    words = {"text": ByteTokenizer(), "label": Labels(("a", "b"))}
    run = made(Choosy(), Classification(2, LOSS), words)
    save = exporting._save

    def wrong(weights, file):
        save(weights._replace(leaves=[1.01 * leaf for leaf in weights.leaves]), file)

    monkeypatch.setattr(exporting, "_save", wrong)
    with pytest.raises(RuntimeError, match="differs from the run by 1.0e-02"):
        export_run(run, tmp_path / "out", (8,))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
def test_a_disk_that_is_full_is_said_and_leaves_nothing(made, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    words = {"text": ByteTokenizer(), "label": Labels(("a", "b"))}
    run = made(Choosy(), Classification(2, LOSS), words)

    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(StorageError, match="cannot write .*weights.safetensors: .*No space left"):
        export_run(run, tmp_path / "out", (8,))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
