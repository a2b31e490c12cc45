import numpy as np
import pytest
import sentencepiece

from recattn_jax.data import (
    ByteTokenizer,
    CharTokenizer,
    Labels,
    SubwordTokenizer,
    Tokenizer,
    WordTokenizer,
    load_vocabularies,
    save_vocabularies,
)
from recattn_jax.data.vocabularies import from_json
from recattn_jax.errors import StorageError, UserError

TEXTS = ["The cat sat on the mat.", "The dog, the naïve dog, sat.\nIt's late — the cat sleeps."]
WORDS = WordTokenizer.of(TEXTS, 100, lowercase=True)
SUBWORDS = SubwordTokenizer.of(TEXTS * 3, 300, lowercase=False)
HARD = ["naïve 日本語 🎭\n\tend ", " <unk> <separator> <0x41> ", "", " ", "\x00é", TEXTS[1]]


def frequent(size, lowercase=True):
    return WordTokenizer.of(TEXTS, size, lowercase).words


@pytest.mark.parametrize("tokenizer", [WORDS, SUBWORDS])
def test_ids(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    ids = tokenizer.encode(TEXTS[0])
    assert ids.dtype == "int32" and ids.ndim == 1 and tokenizer.encode("").shape == (0,)
    assert ids.min() >= 0 and ids.max() < tokenizer.vocabulary_size
    assert 0 <= tokenizer.separator < tokenizer.vocabulary_size
    assert tokenizer.separator not in tokenizer.encode(" <separator> <s> x")
    for wrong in (-1, tokenizer.vocabulary_size):
        with pytest.raises(ValueError, match="id"):
            tokenizer.decode([wrong])


@pytest.mark.parametrize("tokenizer", [WORDS, SUBWORDS])
def test_separators_decode_to_nothing_and_end_a_text(tokenizer):
    ids = tokenizer.encode("the cat")
    both = [tokenizer.separator, *ids, tokenizer.separator, *ids, tokenizer.separator]
    assert tokenizer.decode(both) == "the catthe cat"


# Words.


def test_the_most_frequent_words_are_kept():
    assert frequent(2) == ("the", ".") and frequent(7)[2:] == (",", "cat", "dog", "sat", "\n")
    assert frequent(3, lowercase=False) == (".", "the", ",")
    assert WORDS.vocabulary_size == len(WORDS.words) + 2


def test_unknown_words():
    tokenizer = WordTokenizer(("a", "b"), lowercase=False)
    np.testing.assert_array_equal(tokenizer.encode("b A zebra a"), [1, 2, 2, 0])
    assert (tokenizer.unknown, tokenizer.separator) == (2, 3)
    assert tokenizer.decode([1, 2, 0]) == "b <unk> a"
    np.testing.assert_array_equal(WordTokenizer(("a",), lowercase=True).encode("A"), [0])


def test_words_come_back_with_their_spaces():
    assert WORDS.decode(WORDS.encode(TEXTS[1])) == TEXTS[1].lower()
    stream = WORDS.decode_stream(WORDS.encode("the dog, late"))
    assert list(stream) == ["the", " dog", ",", " late"]


def test_text_that_comes_in_words():
    tokenizer = WordTokenizer.of_words(["New York", "don't", "don't"], 9, lowercase=True)
    assert tokenizer.words == ("don't", "new york")
    np.testing.assert_array_equal(tokenizer.encode_words(["New York", "Don't", "x"]), [1, 0, 2])


def test_spaced_text_is_cut_at_white_space_alone():
    text = " @-@ don't <unk> \n don't"
    tokenizer = WordTokenizer.of([text], 9, lowercase=False, spaced=True)
    # What the corpus calls unknown is what the tokenizer does.
    assert tokenizer.words == ("don't", "\n", "@-@")
    np.testing.assert_array_equal(tokenizer.encode(text), [2, 0, tokenizer.unknown, 1, 0])
    assert tokenizer.decode(tokenizer.encode(text)) == "@-@ don't <unk>\ndon't"


@pytest.mark.parametrize("words", [(), ("a", "a"), ("a", ""), ("<unk>",)])
def test_bad_words(words):
    with pytest.raises(ValueError, match="distinct"):
        WordTokenizer(words, lowercase=False)


def test_nothing_to_make_words_from():
    with pytest.raises(UserError, match="none"):
        WordTokenizer.of(["  ", ""], 10, lowercase=True)
    with pytest.raises(UserError, match="at least 1 word, found 0"):
        WordTokenizer.of(TEXTS, 0, lowercase=True)


# Subwords.


@pytest.mark.parametrize("text", HARD)
def test_subwords_come_back_exactly(text):
    ids = SUBWORDS.encode(text)
    assert SUBWORDS.decode(ids) == text
    # The library's own decoder is the oracle.
    oracle = sentencepiece.SentencePieceProcessor(model_proto=SUBWORDS.model)
    assert oracle.decode(ids.tolist()) == text
    pieces = list(SUBWORDS.decode_stream(ids))
    assert all(pieces) and "\ufffd" not in "".join(pieces)


def test_subwords_in_lower_case():
    tokenizer = SubwordTokenizer.of([text.upper() for text in TEXTS * 3], 300, lowercase=True)
    assert tokenizer.encode("The CAT").tolist() == tokenizer.encode("the cat").tolist()
    assert tokenizer.decode(tokenizer.encode("The CAT")) == "the cat"
    assert from_json(tokenizer.to_json()) == tokenizer


def test_training_subwords_is_deterministic_and_has_the_size():
    assert SubwordTokenizer.of(TEXTS * 3, 300, lowercase=False) == SUBWORDS
    assert SUBWORDS.vocabulary_size == 300
    assert SubwordTokenizer.of(TEXTS, 290, lowercase=False) != SUBWORDS
    assert len(SUBWORDS.encode("the cat sat")) < len("the cat sat") - 2


def test_long_lines_are_not_left_out():
    long = "zyx" * 3000
    assert len(SubwordTokenizer.of([long, "ab"], 268, lowercase=False).encode("zyx" * 4)) < 12


def test_cut_characters_are_replaced():
    first = SUBWORDS.encode("🎭")[1:3]
    assert SUBWORDS.decode([*first, SUBWORDS.separator]) == "\ufffd"
    assert SUBWORDS.decode([*first, *SUBWORDS.encode("the")]) == "\ufffd the"
    assert SUBWORDS.decode(first) == "\ufffd" and SUBWORDS.decode([0]) == "\ufffd"


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        (["abc"], 100_000, "a vocabulary of 100000 cannot be made: .*<= 26"),
        (["abc"], 5, "a vocabulary of 5 cannot be made: .*5 vs 262"),
        (["", "\n"], 300, "the texts are empty"),
    ],
)
def test_subwords_that_cannot_be_trained(texts, size, message):
    with pytest.raises(UserError, match=message) as error:
        SubwordTokenizer.of(texts, size, lowercase=False)
    assert "\n" not in str(error.value)


def test_half_a_surrogate_pair_is_named():
    with pytest.raises(UserError, match="character 1"):
        SUBWORDS.encode("a\udc80")


def test_a_model_that_is_none_of_ours():
    with pytest.raises(ValueError, match="cannot read"):
        SubwordTokenizer(b"junk", lowercase=False)


# Labels.


def test_labels():
    labels = Labels.of(["b", "a", "b"])
    assert labels.names == ("a", "b") and labels.vocabulary_size == 2 and labels.index("b") == 1
    with pytest.raises(UserError, match="'c' was not in training; known are: a, b"):
        labels.index("c")
    with pytest.raises(UserError, match="none"):
        Labels.of([])
    for wrong in ((), ("a", "a")):
        with pytest.raises(ValueError, match="distinct"):
            Labels(wrong)


# Saving.


def test_save_and_load(tmp_path):
    vocabularies = {
        "text": WORDS,
        "source": SUBWORDS,
        "tag": Labels(("O", "B-ß")),
        "byte": ByteTokenizer(),
        "char": CharTokenizer("ab"),
        "spaced": WordTokenizer(("\n", "\u2028"), lowercase=False, spaced=True),
    }
    save_vocabularies(vocabularies, tmp_path / "vocabularies.json")
    assert load_vocabularies(tmp_path / "vocabularies.json") == vocabularies
    assert [path.name for path in tmp_path.iterdir()] == ["vocabularies.json"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        save_vocabularies({"text": WORDS}, tmp_path / "file" / "vocabularies.json")


@pytest.mark.parametrize(
    "content",
    [
        None,
        "{",
        "[]",
        '{"text": {"kind": "other"}}',
        '{"text": {"kind": "labels", "names": []}}',
        '{"text": {"kind": "word", "words": ["a"], "lowercase": 1, "spaced": false}}',
        '{"text": {"kind": "subword", "model": "anVuaw=="}}',
        '{"text": {"kind": "subword", "model": "?"}}',
    ],
)
def test_what_is_no_vocabulary_is_named(content, tmp_path):
    path = tmp_path / "vocabularies.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StorageError, match="vocabularies.json"):
        load_vocabularies(path)
