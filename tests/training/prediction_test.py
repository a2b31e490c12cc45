"""Lines and their answers: what fills a batch up changes none, and words keep their tags."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from recattn_jax import layers
from recattn_jax.data import (
    PAIRS,
    TAGGED,
    TEXT,
    ByteTokenizer,
    CharTokenizer,
    Labels,
    Measurements,
    SubwordTokenizer,
    WordFeatureTokenizer,
    WordTokenizer,
)
from recattn_jax.decoding import Beam, Translator
from recattn_jax.errors import UserError
from recattn_jax.layers import (
    RNN,
    Bidirectional,
    Context,
    CrossAttention,
    Embed,
    SelfAttention,
    Serial,
)
from recattn_jax.models import EncoderDecoder, Mean, PerStep, SequenceModel
from recattn_jax.tasks import Classification, SequenceToSequence, Tagging, losses
from recattn_jax.training.prediction import LinePredictor
from tests.training.toy import toy

LOSS = functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)
LENGTH = 24
STOP = 256


class Plain(nn.Module):
    """At every step, the number that stands there, as logits; remembers the shapes it saw."""

    outputs: int

    @nn.compact
    def __call__(self, inputs, state=None, context=Context()):
        shapes.append(inputs.shape)
        logits = jax.nn.one_hot(inputs % self.outputs, self.outputs)
        return logits, ()


shapes: list[tuple[int, ...]] = []


def predictor(model, task, kind, vocabularies, params=None):
    experiment = dataclasses.replace(toy()[0], model=model, task=task, batch=kind.batch(32, LENGTH))
    return LinePredictor(experiment, params or {}, vocabularies)


def answers(predictor, lines):
    return list(predictor.answers([predictor.read(line) for line in lines]))


def lines_of(lengths):
    random = np.random.default_rng(0)
    return ["".join(map(chr, random.integers(97, 123, length))) for length in lengths]


def shown(model, *inputs):
    """Parameters large enough that predictions depend on what is read."""
    variables = jax.jit(model.init)(jax.random.key(0), *inputs)
    return jax.tree.map(lambda leaf: 3.0 * leaf, variables)


@functools.cache
def classifier():
    body = Serial((Bidirectional(RNN(4), RNN(4)), SelfAttention(heads=2)))
    model = SequenceModel(Embed(257, 8), body, Mean(5))
    variables = shown(model, jnp.ones((1, 2), jnp.int32))
    names = Labels(tuple("abcde"))
    task = Classification(5, LOSS)
    made = predictor(
        model, task, TEXT, {"text": ByteTokenizer(), "label": names}, variables["params"]
    )

    @jax.jit
    def alone(ids):
        return jnp.argmax(model.apply(variables, ids[None])[0][0])

    return made, lambda line: names.names[int(alone(np.array(list(line.encode()), np.int32)))]


@functools.cache
def translator():
    decoder = SequenceModel(Embed(257, 6), Serial((RNN(6), CrossAttention(heads=1))), PerStep(257))
    model = EncoderDecoder(Serial((Embed(257, 6), RNN(6))), decoder)
    one = jnp.ones((1, 2), jnp.int32)
    variables = shown(model, one, one)
    translator = Translator(STOP, STOP, 4, Beam(2, 0.0, 0.0), seed=0)
    task = SequenceToSequence(STOP, translator, LOSS, ())
    both = {"source": ByteTokenizer(), "target": ByteTokenizer()}

    def alone(line):
        source = jnp.array([list(line.encode())], jnp.int32)
        ids = translator(model, variables, source, None)[0].tolist()
        return bytes(ids[: (ids + [STOP]).index(STOP)]).decode(errors="replace")

    return predictor(model, task, PAIRS, both, variables["params"]), alone


@pytest.mark.parametrize("made", [classifier, translator])
def test_an_answer_is_that_of_the_line_alone_without_padding(made):
    """The oracle gets one line, as long as it is, and neither segments nor a batch."""
    predictor, alone = made()
    lines = lines_of([3, 20, 3, 20, 20, 3, 3])
    wanted = [" ".join(alone(line).splitlines()) for line in lines]
    assert len(set(wanted)) > 2
    assert answers(predictor, lines) == wanted
    assert answers(predictor, lines[:3]) == wanted[:3]
    assert answers(predictor, lines[:1]) == wanted[:1]


NAMES = ("O", "B-a", "I-a", "B-b", "I-b")
SENTENCES = (
    "the caf\u00e9 in New-York , wasn't open",
    "  two   spaces\tand a tab\u3000 \u2028 ",
    "\u200b \u00e9 \U0001f600 a",
    "unbelievably",
)
TOKENIZERS = {
    "byte": ByteTokenizer(),
    "char": CharTokenizer.of([" ".join(SENTENCES)]),
    "word": WordTokenizer.of_words(SENTENCES[0].split(), 5, lowercase=True),
}


@pytest.mark.parametrize("name", [*TOKENIZERS, "subword"])
def test_words_keep_their_tags(name):
    """The model tags a word by its last piece, and so can we, word by word."""
    tokenizer = TOKENIZERS.get(name) or SubwordTokenizer.of(SENTENCES, 300, lowercase=False)
    task = Tagging(len(NAMES), LOSS)
    made = predictor(Plain(5), task, TAGGED, {"text": tokenizer, "tag": Labels(NAMES)})

    def tagged(word):
        return f"{word}/{NAMES[int(tokenizer.encode(word)[-1]) % 5]}"

    lines = [" ".join(s.split()[:3]) for s in SENTENCES]  # all of them fit into a row
    if name == "word":  # a hyphen would cut a word of text
        lines = [line.replace("-", "") for line in lines]
    wanted = [" ".join(map(tagged, line.split())) for line in lines]
    assert answers(made, lines) == wanted
    assert [answers(made, [line]) for line in lines] == [[one] for one in wanted]


def test_intents_stand_before_the_tags():
    class Both(Plain):
        def __call__(self, inputs, state=None, context=Context()):
            return (jax.nn.one_hot(inputs % 5, 5), jax.nn.one_hot(inputs[:, 0] % 2, 2)), ()

    task = Tagging(5, LOSS, intents=2)
    names = {"text": ByteTokenizer(), "tag": Labels(NAMES), "label": Labels(("ask", "tell"))}
    made = predictor(Both(5), task, TAGGED, names)
    assert answers(made, ["d b", "", "c"]) == ["ask\td/O b/B-b", "", "tell\tc/I-b"]


def test_words_are_tagged_by_their_features():
    words = ["the", "old", "man", "and", "the", "old", "dog", "and", "Rome", "and", "Roma"]
    tokenizer = WordFeatureTokenizer.of_words(words, 40, most=6)
    vocabulary = tokenizer.vocabulary_size
    model = SequenceModel(layers.EmbedBag(vocabulary, 8, stddev=1.0), RNN(8), PerStep(5))
    ids = jnp.array(tokenizer.encode_words(words))[None]
    variables = shown(model, ids)
    kind = TAGGED.holding("inputs", (6,), np.int32)
    names = {"text": tokenizer, "tag": Labels(NAMES)}
    made = predictor(model, Tagging(len(NAMES), LOSS), kind, names, variables["params"])

    def alone(line):
        words = line.split()
        logits, _ = model.apply(variables, jnp.array(tokenizer.encode_words(words))[None])
        tags = [NAMES[int(tag)] for tag in jnp.argmax(logits[0], axis=-1)]
        return " ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True))

    lines = ["the man", "Romulus and Rome", " ".join(words)]
    wanted = [alone(line) for line in lines]
    assert len({part.split("/")[1] for line in wanted for part in line.split()}) > 1
    assert answers(made, [*lines, "  "]) == [*wanted, ""]


def test_series_are_classified_as_lines():
    steps = Measurements((0.0, 1.0), (1.0, 2.0))
    model = SequenceModel(layers.Dense(4), Bidirectional(RNN(4), RNN(4)), Mean(3))
    variables = shown(model, jnp.ones((1, 2, 2)))
    names = {"series": steps, "label": Labels(("a", "b", "c"))}
    kind = TEXT.holding("inputs", (2,), np.float32)
    made = predictor(model, Classification(3, LOSS), kind, names, variables["params"])
    lines = ["1,2,3:4,5,6", "-9:9", "0,0.5:-3,-2"]
    wanted = [
        "abc"[int(jnp.argmax(model.apply(variables, jnp.array(steps.of_line(line))[None])[0]))]
        for line in lines
    ]
    assert answers(made, lines) == wanted
    with pytest.raises(UserError, match="equal length"):
        made.read("1,2:3")


def bytes_tagger():
    task = Tagging(len(NAMES), LOSS)
    return predictor(Plain(5), task, TAGGED, {"text": ByteTokenizer(), "tag": Labels(NAMES)})


def test_few_shapes_serve_all_lines():
    made = bytes_tagger()
    shapes.clear()
    lines = lines_of([*range(1, LENGTH + 9)] * 5)
    together = answers(made, lines)
    for count in range(1, 20):
        assert answers(made, lines[:count]) == together[:count]
    assert len(together) == len(lines)
    assert set(shapes) <= {(rows, width) for rows in (1, 8, 64) for width in (16, LENGTH)}
    assert len(shapes) == len(set(shapes))


def test_a_line_longer_than_the_rows_of_training_is_cut_there():
    made = bytes_tagger()
    line = "f" * 20 + " f g " + "f" * 1000
    [question] = [made.read(line)]
    assert question.left_out == len(" ".join(line.split())) - LENGTH
    # The last words have no step, and so no tag.
    assert answers(made, [line]) == [f"{'f' * 20}/I-a f/I-a g/B-b {'f' * 1000}/O"]
    assert made.read("f" * LENGTH).left_out == 0
    assert answers(made, ["f" * 1000]) == [f"{'f' * 1000}/O"]


def test_lines_of_white_space_are_answered_by_empty_lines():
    made = bytes_tagger()
    shapes.clear()
    assert answers(made, ["", " \t", "\u2028"]) == ["", "", ""] and not shapes
    assert answers(made, ["", "f", "", "g", ""]) == ["", "f/I-a", "", "g/B-b", ""]
    assert answers(made, []) == []


def test_what_no_vocabulary_covers_is_refused():
    made = predictor(
        Plain(5),
        Tagging(5, LOSS),
        TAGGED,
        {"text": CharTokenizer("ab"), "tag": Labels(NAMES)},
    )
    with pytest.raises(UserError, match="unknown character 'c'"):
        made.read("abc")
