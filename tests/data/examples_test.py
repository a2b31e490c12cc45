"""From records to examples: one each, in order, cut where they are too long, and said so."""

import functools

import numpy as np
import pytest

from recattn_jax.data import (
    PAIRS,
    TAGGED,
    TAGGED_AND_LABELLED,
    TEXT,
    ByteTokenizer,
    CharTokenizer,
    Labels,
    WordFeatureTokenizer,
    bucketed,
    load_vocabularies,
    pair_examples,
    record_data,
    save_vocabularies,
    spell,
    tagged_examples,
    text_examples,
)
from recattn_jax.errors import StorageError, UserError

LETTERS = CharTokenizer("abcd ")  # the separator is 5
CLASSES = Labels(("bad", "good"))
TAGS = Labels(("B-x", "O"))
TEXTS = [{"text": "abc", "label": "good"}, {"text": "", "label": "bad"}]
TEXTS += [{"text": "dcbabcd", "label": "good"}]
FOR_TEXTS = {"text": LETTERS, "label": CLASSES}
WORDS = [{"tokens": ["ab", "c"], "tags": ["O", "B-x"], "label": "good"}]
WORDS += [{"tokens": ["d", "abc", "a"], "tags": ["B-x", "O", "O"], "label": "bad"}]
PAIR_RECORDS = [{"source": "ab", "targets": ["d", "c"]}, {"source": "", "targets": ["abcd"]}]


def of(examples, name, number):
    """An array of one example."""
    parts = [part for part in examples.kind.parts if name in part.leaves]
    offsets = examples.offsets[examples.kind.parts.index(parts[0])]
    return list(examples.arrays[name][offsets[number] : offsets[number + 1]])


def test_texts_are_inputs_with_a_label():
    examples = text_examples("train", TEXTS, FOR_TEXTS, length=5)
    assert examples.kind is TEXT and examples.records is TEXTS and len(examples) == 3
    assert [of(examples, "inputs", i) for i in range(3)] == [[0, 1, 2], [5], [3, 2, 1, 0, 1]]
    assert list(examples.labels) == [1, 0, 1]
    assert examples.lengths.tolist() == [[3], [1], [5]]
    summary = examples.summary()
    assert "train: 3 examples; inputs 3.0 steps on average, at most 5" in summary
    assert "cut at 5 steps: 1 texts, 2 steps" in summary
    assert "empty, so a separator alone: 1" in summary
    whole = text_examples("train", TEXTS[:1], FOR_TEXTS, length=5).summary()
    assert "cut" not in whole and "empty" not in whole


def test_a_tag_stands_at_the_last_piece_of_its_word():
    vocabularies = {"text": LETTERS, "tag": TAGS}
    examples = tagged_examples("train", WORDS, vocabularies, length=6)
    assert examples.kind is TAGGED and examples.labels is None
    assert of(examples, "inputs", 0) == [0, 1, 4, 2] and of(examples, "tags", 0) == [-1, 1, -1, 0]
    assert of(examples, "inputs", 1) == [3, 4, 0, 1, 2, 4]
    assert of(examples, "tags", 1) == [0, -1, -1, -1, 1, -1]
    assert "cut at 6 steps: 1 texts, 1 steps, 1 words" in examples.summary()
    both = tagged_examples("train", WORDS, {**vocabularies, "label": CLASSES}, length=6)
    assert both.kind is TAGGED_AND_LABELLED and list(both.labels) == [1, 0]


class Whole(CharTokenizer):
    """Has an id for words, and would cut them in `encode`."""

    symbol = "word"

    def encode_words(self, words):
        return np.array([len(word) for word in words], np.int32)


class Lettered(CharTokenizer):
    symbol = "subword"


def test_words_are_spelled_as_their_tokenizer_does():
    ids, last = spell(["naïve", "x"], ByteTokenizer())
    assert bytes(ids.tolist()).decode() == "naïve x" and list(last) == [5, 7]
    ids, last = spell(["ab", "cab"], Whole("abc"))
    assert list(ids) == [2, 3] and list(last) == [0, 1]
    ids, last = spell(["ab", "", "c"], Lettered("abc"))
    assert list(ids) == [0, 1, 3, 2] and list(last) == [1, 2, 3]


def test_pairs_begin_and_end_with_a_separator():
    vocabularies = {"source": LETTERS, "target": CharTokenizer("abcd")}
    examples = pair_examples("train", PAIR_RECORDS, vocabularies, (1, 4))
    assert examples.kind is PAIRS and examples.labels is None
    assert [of(examples, "source", i) for i in range(2)] == [[0], [5]]
    assert [of(examples, "inputs", i) for i in range(2)] == [[4, 3], [4, 0, 1, 2]]
    assert [of(examples, "targets", i) for i in range(2)] == [[3, 4], [0, 1, 2, 3]]
    assert examples.lengths.tolist() == [[1, 2], [1, 4]]
    summary = examples.summary()
    assert "cut at 1 steps: 1 sources, 1 steps" in summary
    assert "cut at 4 steps: 1 targets, 1 steps" in summary


def test_the_digest_is_of_all_arrays_and_their_order():
    def digest(records, length=5):
        return text_examples("train", records, FOR_TEXTS, length).digest

    again = [dict(record) for record in TEXTS]
    assert digest(TEXTS) == digest(again)
    again[0]["label"] = "bad"
    others = [again, TEXTS[::-1], TEXTS[:2]]
    # The same letters in a row, cut at another place.
    moved = [{"text": "ab", "label": "good"}, {"text": "c", "label": "good"}]
    joined = [{"text": "abc"[:1], "label": "good"}, {"text": "bc", "label": "good"}]
    digests = [digest(TEXTS), digest(TEXTS, 4), *map(digest, [*others, moved, joined])]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: text_examples("test", [], FOR_TEXTS, 5), "test split: there are no records"),
        (lambda: text_examples("test", TEXTS, FOR_TEXTS, 0), "length: .* 1 or more, found 0"),
        (lambda: text_examples("test", TEXTS, {"text": LETTERS}, 5), "no 'label', only text"),
        (
            lambda: text_examples("test", TEXTS, {"text": CLASSES, "label": CLASSES}, 5),
            "'text' is a Labels, not a tokenizer",
        ),
        (
            lambda: text_examples("test", TEXTS, {"text": LETTERS, "label": LETTERS}, 5),
            "'label' is a CharTokenizer",
        ),
        (
            lambda: text_examples("test", [TEXTS[0], {"text": "a", "label": "so"}], FOR_TEXTS, 5),
            "test split, record 1: .*'so'.* bad, good",
        ),
        (
            lambda: text_examples("test", [{"text": "axe", "label": "bad"}], FOR_TEXTS, 5),
            "test split, record 0: .*'x'",
        ),
        (
            lambda: text_examples("test", [{"txt": "a", "label": "bad"}], FOR_TEXTS, 5),
            "record 0: no field 'text', only txt, label",
        ),
        (
            lambda: tagged_examples(
                "test", [{"tokens": ["a"], "tags": []}], {"text": LETTERS, "tag": TAGS}, 5
            ),
            "record 0: 1 words and 0 tags",
        ),
        (
            lambda: tagged_examples(
                "test", [{"tokens": [], "tags": []}], {"text": LETTERS, "tag": TAGS}, 5
            ),
            "at least one",
        ),
        (
            lambda: pair_examples(
                "test",
                [{"source": "a", "targets": []}],
                {"source": LETTERS, "target": LETTERS},
                (5, 5),
            ),
            "record 0: no target",
        ),
    ],
)
def test_wrong_use_is_refused_and_the_record_named(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_data_is_made_of_every_split():
    make = functools.partial(text_examples, length=5)

    def rows(examples, host, hosts):
        widths = (3, 5) if examples.split == "train" else (5,)
        return bucketed(examples, 2, widths, 0, host, hosts)

    splits = {"train": TEXTS, "validation": TEXTS[:2]}
    data = record_data(splits, "three texts", FOR_TEXTS, make, rows)
    assert data.vocabularies == FOR_TEXTS and list(data.evaluation) == ["validation"]
    assert len(data.train.specs) == 2 and len(data.evaluation["validation"].specs) == 1
    assert [line.split(":")[0] for line in data.summary.splitlines()] == [
        "three texts", "train", "validation",
    ]  # fmt: skip
    with pytest.raises(UserError, match="three texts: no split train, only test"):
        record_data({"test": TEXTS}, "three texts", FOR_TEXTS, make, rows)


def test_vocabularies_come_back_from_their_file(tmp_path):
    vocabularies = {"text": LETTERS, "other": ByteTokenizer(), "label": CLASSES}
    save_vocabularies(vocabularies, tmp_path / "vocabularies.json")
    assert load_vocabularies(tmp_path / "vocabularies.json") == vocabularies
    (tmp_path / "vocabularies.json").write_text("[1]")
    with pytest.raises(StorageError, match="vocabularies.json"):
        load_vocabularies(tmp_path / "vocabularies.json")


def test_ids_of_features_of_words_are_read_by_taggers_alone():
    features = WordFeatureTokenizer.of_words(["ab", "ab"], 9, most=4)
    with pytest.raises(UserError, match="several ids a word, which only tagging reads"):
        text_examples("train", TEXTS, FOR_TEXTS | {"text": features}, length=5)
    with pytest.raises(ValueError, match="no array is called 'input'"):
        TEXT.holding("input", (3,), np.int32)
    assert TAGGED.holding("tags", (), np.int32) == TAGGED
