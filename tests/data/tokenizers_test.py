import pytest

from recattn_jax.data import ByteTokenizer, CharTokenizer, load_vocabularies, save_vocabularies
from recattn_jax.errors import UserError

TEXT = "naïve café, 日本語, 🎭\nend"
TOKENIZERS = [ByteTokenizer(), CharTokenizer.of([TEXT])]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_round_trip(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert ids.dtype == "int32" and ids.ndim == 1
    assert ids.min() >= 0 and ids.max() < tokenizer.vocabulary_size
    assert tokenizer.separator not in ids
    assert 0 <= tokenizer.separator < tokenizer.vocabulary_size
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.decode(tokenizer.encode("")) == ""


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_stream_yields_only_whole_characters(tokenizer):
    pieces = list(tokenizer.decode_stream(int(i) for i in tokenizer.encode(TEXT)))
    assert pieces == list(TEXT)


def test_bytes_come_out_with_the_byte_that_completes_them():
    seen = []

    def ids():
        for value in "é🎭".encode():
            seen.append(value)
            yield value

    stream = ByteTokenizer().decode_stream(ids())
    assert next(stream) == "é" and len(seen) == 2
    assert next(stream) == "🎭" and len(seen) == 6


def test_incomplete_bytes_end_at_a_separator_and_at_the_end():
    tokenizer = ByteTokenizer()
    first = "é".encode()[0]
    assert tokenizer.decode([first, 256, 65]) == "\ufffdA"
    assert tokenizer.decode([first, 256, *"é".encode()[1:]]) == "\ufffd\ufffd"
    assert tokenizer.decode([65, first]) == "A\ufffd"


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_separators_decode_to_nothing(tokenizer):
    ids = [tokenizer.separator, *tokenizer.encode("a"), tokenizer.separator]
    assert tokenizer.decode(ids) == "a"


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("shift", [-1, 1000])
def test_ids_outside_the_vocabulary_are_refused(tokenizer, shift):
    with pytest.raises(ValueError, match="in"):
        tokenizer.decode([shift])


def test_unknown_character_is_named_with_its_place():
    with pytest.raises(UserError, match=r"'z' at line 2, column 3"):
        CharTokenizer("ab\n").encode("a\nabz")


def test_half_a_surrogate_pair_is_named():
    with pytest.raises(UserError, match="character 1"):
        ByteTokenizer().encode("a\udc80")


@pytest.mark.parametrize("characters", ["", "aba"])
def test_bad_alphabets(characters):
    with pytest.raises(ValueError, match="distinct"):
        CharTokenizer(characters)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_save_and_load(tokenizer, tmp_path):
    save_vocabularies({"text": tokenizer}, tmp_path / "vocabularies.json")
    assert load_vocabularies(tmp_path / "vocabularies.json") == {"text": tokenizer}
