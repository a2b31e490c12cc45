import pytest

from recattn_jax.data.words import join_spaces, join_words, split_spaces, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't, she said.", ["Don", "'", "t", ",", "she", "said", "."]),
        ("a  naïve\tcafé_1 ", ["a", "naïve", "café_1"]),
        ("cafe\u0301 हिन्दी", ["cafe\u0301", "हिन्दी"]),
        ("日本 🎭!", ["日本", "🎭", "!"]),
        ("for 1,000.50 in the U.S.A. ok.", ["for", "1,000.50", "in", "the", "U.S.A.", "ok", "."]),
        ("one\ntwo\n", ["one", "\n", "two", "\n"]),
        ("", []),
    ],
)
def test_words_of_plain_text(text, words):
    assert split_words(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "Don't, she said: it's 3.5 (or so).",
        'A "T-shirt" in red/blue; l\'homme "a dit" !'.replace(" !", "!"),
        "Er sagt „nein“ und geht. “Yes” and more",
        "Costs $5 [a lot], 20%?\nNext line.",
        "«Bonjour» ¿Qué?",
    ],
)
def test_common_text_comes_back(text):
    assert "".join(join_words(split_words(text))) == text


def test_what_does_not_come_back():
    assert "".join(join_words(split_words("a man - in red"))) == "a man-in red"


def test_documents_do_not_touch():
    assert list(join_words(["a", '"', None, '"', "b"])) == ["a", ' "', "", '"', "b"]
    assert list(join_spaces(["a", "b", None, "c"])) == ["a", " b", "", "c"]


def test_spaced_text():
    words = split_spaces(" = A <unk> = \n don't 1 @-@ 2 \u2028\n")
    assert words == ["=", "A", "<unk>", "=", "\n", "don't", "1", "@-@", "2", "\n"]
    assert "".join(join_spaces(words)) == "= A <unk> =\ndon't 1 @-@ 2\n"
