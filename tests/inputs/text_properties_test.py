"""Tokenizers, vocabularies, words and lines: what holds for every text."""

import functools
import io
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from launch import configs, lines
from launch.space import overrides
from recattn_jax import data as d
from recattn_jax import untrusted
from recattn_jax.data.spelling import spell
from recattn_jax.data.steps import Measurements
from recattn_jax.data.vocabularies import from_json, load_vocabularies, save_vocabularies
from recattn_jax.data.words import split_spaces, split_words
from recattn_jax.errors import UserError
from recattn_jax.training import load_experiment_file
from tests.inputs.properties import ANY_TEXT, TEXT, holds
from tests.launch.commands import TINY

LEARNED = [
    "the cat sat on the mat",
    "Who wrote Hamlet ?",
    "caf\u00e9 \U0001f600 e\u0301 \u05d0",
    "a\nb",
] * 4


@functools.cache
def tokenizers() -> dict[str, d.Tokenizer]:
    words = [word for text in LEARNED for word in split_words(text)]
    return {
        "byte": d.ByteTokenizer(),
        "char": d.CharTokenizer.of(LEARNED),
        "word": d.WordTokenizer.of(LEARNED, 12, lowercase=False),
        "lower": d.WordTokenizer.of(LEARNED, 12, lowercase=True),
        "spaced": d.WordTokenizer.of(LEARNED, 12, lowercase=False, spaced=True),
        "subword": d.SubwordTokenizer.of(LEARNED, 320, lowercase=False),
        "subword, lower": d.SubwordTokenizer.of(LEARNED, 320, lowercase=True),
        "features": d.WordFeatureTokenizer.of_words(words, 40, most=6),
    }


def encoded(tokenizer: d.Tokenizer, text: str) -> np.ndarray | None:
    """The ids; None where the text is refused in one line, which must have a reason."""
    try:
        ids = tokenizer.encode(text)
    except UserError as error:
        assert "\n" not in str(error)
        unicode = text.encode("utf-8", "ignore").decode() == text
        known = isinstance(tokenizer, d.CharTokenizer) and set(text) <= set(tokenizer.characters)
        assert not known and (isinstance(tokenizer, d.CharTokenizer) or not unicode)
        return None
    assert ids.dtype == np.int32 and ids.max(initial=-1) < tokenizer.vocabulary_size
    assert ids.min(initial=0) >= (-1 if ids.ndim > 1 else 0)
    assert not np.any(ids == tokenizer.separator), "a separator inside of a document"
    return ids


@pytest.mark.parametrize("name", tokenizers())
def test_ids_are_those_of_the_vocabulary_and_say_the_text_again(name):
    tokenizer = tokenizers()[name]

    @holds(text=ANY_TEXT)
    def check(text):
        ids = encoded(tokenizer, text)
        if ids is None:
            return
        again = tokenizer.decode(ids)
        assert again == "".join(tokenizer.decode_stream(ids))
        if name in ("byte", "char", "subword", "subword, lower"):
            wanted = text.lower() if "lower" in name else text
            # What stands for a space becomes one.
            assert again == (wanted.replace("\u2581", " ") if "subword" in name else wanted)
        if name in ("word", "lower", "spaced"):
            cut = split_spaces(text) if name == "spaced" else split_words(text)
            assert len(ids) == len(cut)
        if name == "spaced":
            np.testing.assert_array_equal(tokenizer.encode(again), ids)
        assert np.array_equal(tokenizer.encode(text), ids)

    check(60)


@holds(ids=st.lists(st.integers(0, 319), max_size=30))
def test_every_id_has_a_text_and_a_separator_has_none(ids):
    for tokenizer in tokenizers().values():
        if isinstance(tokenizer, d.WordFeatureTokenizer):
            continue
        own = [i % tokenizer.vocabulary_size for i in ids]
        text = tokenizer.decode(own)
        text.encode("utf-8")
        assert "".join(tokenizer.decode_stream(iter(own))) == text
        if set(own) <= {tokenizer.separator}:
            assert text == ""
    with pytest.raises(ValueError, match="is not in 0"):
        tokenizers()["char"].decode([10**30])
    # Bytes that are no text are said to be none, and not left out.
    some = bytes(i % 256 for i in ids)
    assert tokenizers()["byte"].decode(some) == some.decode("utf-8", "replace")


@holds(characters=st.sets(st.characters(), min_size=1, max_size=40), data=st.data())
def test_an_alphabet_of_any_characters_says_its_texts_again(characters, data):
    tokenizer = d.CharTokenizer("".join(sorted(characters)))
    text = data.draw(st.text(st.sampled_from(sorted(characters)), max_size=20))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert from_json(json.loads(json.dumps(tokenizer.to_json()))) == tokenizer


@holds(
    texts=st.lists(TEXT, min_size=1, max_size=4), size=st.integers(1, 9), lowercase=st.booleans()
)
def test_vocabularies_come_back_from_disk_as_they_were(texts, size, lowercase):
    made: dict[str, d.Vocabulary] = dict(tokenizers())
    names = [text for text in texts if text] or ["a"]
    made["label"] = d.Labels.of(names)
    made["scale"] = Measurements((0.5, -3.0), (1e-30, 2.0))
    for key, make in {
        "made word": lambda: d.WordTokenizer.of(texts, size, lowercase),
        "made spaced": lambda: d.WordTokenizer.of(texts, size, lowercase, spaced=True),
        "made char": lambda: d.CharTokenizer.of(texts),
    }.items():
        try:
            made[key] = make()
        except UserError as error:
            assert "give some text" in str(error)
    with tempfile.TemporaryDirectory() as folder:
        save_vocabularies(made, Path(folder) / "v.json")
        assert load_vocabularies(Path(folder) / "v.json") == made
    labels = made["label"]
    assert [labels.names[labels.index(name)] for name in names] == names


@holds(text=ANY_TEXT)
def test_words_lose_nothing_but_white_space(text):
    for cut in (split_words, split_spaces):
        words = cut(text)
        assert "".join(words).replace("\n", "") == re.sub(r"\s", "", text)
        assert words.count("\n") == text.count("\n") and "" not in words


@holds(words=st.lists(TEXT, min_size=1, max_size=6))
def test_every_word_has_a_last_piece(words):
    for name, tokenizer in tokenizers().items():
        if name == "char":
            continue  # which knows few characters
        ids, last = spell(words, tokenizer)
        assert len(last) == len(words) and last[-1] == len(ids) - 1
        assert np.all(np.diff(last) >= 1) and last[0] >= 0


@holds(pieces=st.lists(st.binary(max_size=12), max_size=8), end=st.sampled_from((b"\n", b"\r\n")))
def test_lines_are_the_same_however_they_come(pieces, end):
    class Stream(io.BytesIO):
        def __init__(self, left):
            super().__init__()
            self.left = left

        def read1(self, size=-1):
            return self.left.pop(0) if self.left else b""

    def read(left):
        got: list[str] = []
        try:
            for some in lines.arriving(Stream(left), str):
                got += some
        except UserError as error:
            got.append(str(error))
        return got

    whole = end.join(pieces)
    assert read([whole[i : i + 1] for i in range(len(whole))]) == read([whole] if whole else [])


@holds(data=st.one_of(st.binary(max_size=60), ANY_TEXT.map(lambda t: t.encode("utf-8", "replace"))))
def test_json_of_anybody_is_read_or_refused(data):
    try:
        found = untrusted.parse_json(data)
    except untrusted.Unreadable as error:
        assert "\n" not in str(error)
    else:
        json.dumps(found, ensure_ascii=False).encode("utf-8")


@holds(text=ANY_TEXT)
def test_what_is_shown_steers_nothing(text):
    for made in (untrusted.shown(text), untrusted.one_line(text), untrusted.markdown(text)):
        made.encode("utf-8")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]", made)
        assert made == "" or text != ""
    assert len(untrusted.one_line(text).splitlines()) <= 1
    assert (
        untrusted.shown("plain text, \u05d0 caf\u00e9 \U0001f600\n")
        == "plain text, \u05d0 caf\u00e9 \U0001f600\n"
    )


@holds(
    text=TEXT.filter(lambda text: "\x00" not in text),
    number=st.floats(allow_nan=False),
    width=st.integers(-(10**30), 10**30),
    held_out=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    streams=st.booleans(),
)
def test_a_config_comes_through_the_command_line_as_it_is(text, number, width, held_out, streams):
    file = load_experiment_file(TINY)
    wanted = {
        "text": text,
        "peak_lr": number,
        "width": width,
        "streams": streams,
        "held_out": held_out,
    }
    words = overrides(wanted)
    if "\n" in text:  # is no word of a job, and the file's own check refuses it elsewhere
        return
    found = configs.parse(file, TINY, words)
    assert {key: found[key] for key in wanted} == wanted
