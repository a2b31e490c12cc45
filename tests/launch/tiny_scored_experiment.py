"""Classify, tag with intents or translate made-up text: seconds on one core."""

import functools

import numpy as np
import optax
from ml_collections import config_dict

from recattn_jax.data import (
    PAIRS,
    TAGGED_AND_LABELLED,
    TEXT,
    ByteTokenizer,
    Labels,
    WordTokenizer,
    bucketed,
    pair_examples,
    record_data,
    tagged_examples,
    text_examples,
)
from recattn_jax.decoding import Sampler, Translator
from recattn_jax.errors import choose
from recattn_jax.layers import RNN, CrossAttention, Embed, Residual, Serial
from recattn_jax.models import EncoderDecoder, Joint, Max, PerStep, SequenceModel
from recattn_jax.tasks import Classification, ExactMatch, SequenceToSequence, Tagging, losses
from recattn_jax.training.experiment import Cadence, Experiment, Layout, MeshShape, Optimization
from recattn_jax.training.sharding import DEFAULT_RULES

WORDS = ("the", "cat", "sat", "on", "Mat", "Rome")
TARGETS = ("le", "chat", "assis", "sur", "tapis", "rome")
LOSS = functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)


def get_config():
    """Numbers and short strings."""
    config = config_dict.ConfigDict()
    config.task = "classify"  # or tag, or translate
    config.length = 24
    config.steps = 100
    config.peak_lr = 0.05
    return config.lock()


def sentence(number):
    random = np.random.default_rng(number)
    return [WORDS[i] for i in random.integers(0, len(WORDS), random.integers(1, 5))]


def answer(words):
    """The label, the tags and the translation of a text."""
    tags = ["B-place" if word[0].isupper() else "O" for word in words]
    return {
        "tokens": words,
        "text": " ".join(words),
        "source": " ".join(words),
        "label": "about a cat" if "cat" in words else "other",
        "tags": tags,
        "targets": [" ".join(TARGETS[WORDS.index(word)] for word in words)],
    }


def records(first, count):
    return [answer(sentence(number)) for number in range(first, first + count)]


def classify(c):
    vocabularies = {
        "text": WordTokenizer(WORDS, lowercase=False),
        "label": Labels(("about a cat", "other")),
    }
    examples = functools.partial(text_examples, length=c.length)
    model = SequenceModel(Embed(8, 6), RNN(6), Max(2))
    return model, Classification(2, LOSS), vocabularies, examples, TEXT


def tag(c):
    vocabularies = {
        "text": ByteTokenizer(),
        "tag": Labels(("O", "B-place")),
        "label": Labels(("about a cat", "other")),
    }
    examples = functools.partial(tagged_examples, length=c.length)
    model = SequenceModel(Embed(257, 8), RNN(8), Joint((PerStep(2), Max(2))))
    return model, Tagging(2, LOSS, intents=2), vocabularies, examples, TAGGED_AND_LABELLED


def translate(c):
    source, target = (WordTokenizer(w, lowercase=False, spaced=True) for w in (WORDS, TARGETS))
    examples = functools.partial(pair_examples, lengths=(c.length, c.length))
    model = EncoderDecoder(
        Serial((Embed(8, 8), RNN(8))),
        SequenceModel(Embed(8, 8), Serial((RNN(8), Residual(CrossAttention(heads=1)))), PerStep(8)),
    )
    greedy = Sampler(0.0, None, None)
    decoder = Translator(target.separator, target.separator, 8, greedy, seed=0)
    task = SequenceToSequence(target.separator, decoder, LOSS, (ExactMatch(),))
    return model, task, {"source": source, "target": target}, examples, PAIRS


def build(c):
    """The experiment; opens nothing."""
    make = choose({"classify": classify, "tag": tag, "translate": translate}, c.task, "task")
    model, task, vocabularies, examples, kind = make(c)

    def data():
        splits = {"train": records(300, 200), "validation": records(100, 13)}
        return record_data(
            splits,
            "made-up text",
            vocabularies,
            examples,
            lambda some, *host: bucketed(some, 8, (c.length,), 0, *host),
        )

    return Experiment(
        model=model,
        task=task,
        data=data,
        batch=kind.batch(8, c.length),
        optimization=Optimization(
            optimizer=optax.adam(c.peak_lr),
            learning_rate=lambda step: c.peak_lr,
            accumulate=1,
            ema_decay=None,
            carry_state=False,
        ),
        cadence=Cadence(
            steps=c.steps,
            log_every=c.steps,
            evaluate_every=c.steps,
            save_every=c.steps,
            keep=1,
            patience=None,
            score_every=c.steps,
        ),
        layout=Layout(mesh=MeshShape(data=1), rules=DEFAULT_RULES, storage=()),
        seed=0,
    )
