"""Words as features: the same word gives the same ids, and an unknown one those of its parts."""

import numpy as np
import pytest

from recattn_jax.data import ByteTokenizer, Labels, WordFeatureTokenizer, bucketed, tagged_examples
from recattn_jax.data.vocabularies import from_json
from recattn_jax.errors import UserError

WORDS = ["in", "Rome", "Rome", "in", "roman", "Roma", "7", "42"]
TOKENIZER = WordFeatureTokenizer.of_words(WORDS, 100, most=12)


def names(word, tokenizer=TOKENIZER):
    """The features whose ids a word has, None where there is none."""
    (row,) = tokenizer.encode_words([word])
    return [tokenizer.names[i] if i >= 0 else None for i in row]


def test_shapes_come_first_then_the_word_then_its_parts_from_the_ends():
    assert names("Rome")[:4] == ["S:Xxxx", "s:Xx", "w:rome", "p:<r"]
    known = [name for name in names("Rome") if name]
    ends = [name for name in known[3:] if "<" in name or ">" in name]
    assert known[3 : 3 + len(ends)] == ends and len(ends) < len(known[3:])


def test_an_unknown_word_has_the_features_that_it_shares():
    found = names("Romulus")
    assert found[:3] == [None, "s:Xx", None]  # the long shape and the word are new
    assert {"p:<r", "p:ro", "p:<ro", "p:rom", "p:<rom"} <= set(found)
    assert names("Ωé9-") == [None] * 12  # Xxd-, which no word of training looks like


def test_what_is_rare_has_no_id_and_what_is_frequent_comes_first():
    assert "w:roman" not in TOKENIZER.names and "w:rome" in TOKENIZER.names
    assert "s:d" in TOKENIZER.names and "S:d" not in TOKENIZER.names  # 7 and 42; 7 alone
    assert WordFeatureTokenizer.of_words(WORDS, 3, most=8).names == ("S:Xxxx", "p:<r", "p:<ro")


def test_words_without_features_are_decoded_as_unknown():
    assert TOKENIZER.decode(TOKENIZER.encode("in Rome")) == "in rome"
    assert TOKENIZER.decode(TOKENIZER.encode("Xyz in")) == "<unk> in"
    assert from_json(TOKENIZER.to_json()) == TOKENIZER


def test_too_little_is_refused():
    with pytest.raises(UserError, match="give more text"):
        WordFeatureTokenizer.of_words(["a"], 10, most=8)
    with pytest.raises(ValueError, match="must be 3 or more"):
        WordFeatureTokenizer(("w:a",), 2)
    with pytest.raises(ValueError, match="distinct"):
        WordFeatureTokenizer(("w:a", "w:a"), 4)


def test_tagged_words_become_rows_of_ids():
    records = [{"tokens": ["in", "Rome"], "tags": ["O", "B-x"]}, {"tokens": ["7"], "tags": ["O"]}]
    vocabularies = {"text": TOKENIZER, "tag": Labels(("B-x", "O"))}
    examples = tagged_examples("train", records, vocabularies, length=4)
    pipeline = bucketed(examples, 2, (4,), seed=0)
    assert pipeline.spec["inputs"].shape == (2, 4, 12) and pipeline.spec["tags"].shape == (2, 4)
    (batch,) = pipeline.epoch()
    assert batch["tags"].tolist() == [[1, 0, -1, -1], [1, -1, -1, -1]]
    assert np.array_equal(batch["inputs"][0, :2], TOKENIZER.encode_words(["in", "Rome"]))
    assert batch["segments"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    plain = tagged_examples("train", records, vocabularies | {"text": ByteTokenizer()}, length=9)
    assert plain.digest != examples.digest
