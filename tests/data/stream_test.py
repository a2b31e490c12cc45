import dataclasses

import numpy as np
import pytest

from recattn_jax.data import ByteTokenizer, CharTokenizer, Source, tokenize
from recattn_jax.errors import StorageError, UserError

TEXTS = {"train": ["ab", "", "cab"], "validation": ["b"], "test": []}
SOURCE = Source("fake", "0123", {s: [{"text": t} for t in texts] for s, texts in TEXTS.items()})


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_layout(tmp_path):
    stream = tokenize(SOURCE, "train", CharTokenizer("abc"), tmp_path)
    np.testing.assert_array_equal(stream.tokens, [3, 0, 1, 3, 3, 2, 0, 1])
    np.testing.assert_array_equal(stream.starts, [0, 3, 4])
    assert stream.tokens.dtype == np.int32 and stream.starts.dtype == np.int64
    assert (stream.n_symbols, stream.separator, stream.name) == (5, 3, "train")


def test_tokenised_once(tmp_path, monkeypatch):
    first = tokenize(SOURCE, "train", ByteTokenizer(), tmp_path)
    monkeypatch.setattr(ByteTokenizer, "encode", lambda self, text: pytest.fail("encoded again"))
    again = tokenize(SOURCE, "train", ByteTokenizer(), tmp_path)
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert first.digest == again.digest


def test_content_split_and_tokenizer_make_the_name(tmp_path):
    streams = [
        tokenize(SOURCE, "train", ByteTokenizer(), tmp_path),
        tokenize(SOURCE, "validation", ByteTokenizer(), tmp_path),
        tokenize(SOURCE, "train", CharTokenizer("abc"), tmp_path),
        tokenize(SOURCE, "train", CharTokenizer("abcd"), tmp_path),
        tokenize(dataclasses.replace(SOURCE, digest="4567"), "train", ByteTokenizer(), tmp_path),
    ]
    assert len({stream.digest for stream in streams}) == len(streams) == len(files(tmp_path))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:40],
        lambda data: data[:39],
        lambda data: b"",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: bytes([data[0] ^ 1]) + data[1:],
    ],
)
def test_a_damaged_file_is_made_again(damage, tmp_path):
    before = np.array(tokenize(SOURCE, "train", ByteTokenizer(), tmp_path).tokens)
    (path,) = files(tmp_path)
    good = path.read_bytes()
    path.write_bytes(damage(good))
    after = tokenize(SOURCE, "train", ByteTokenizer(), tmp_path).tokens
    np.testing.assert_array_equal(before, after)
    assert files(tmp_path) == [path] and path.read_bytes() == good


def test_unknown_split(tmp_path):
    with pytest.raises(UserError, match="'dev', only train, validation, test"):
        tokenize(SOURCE, "dev", ByteTokenizer(), tmp_path)


def test_unknown_character_names_the_document(tmp_path):
    with pytest.raises(UserError, match="train split, document 2: .*'c'"):
        tokenize(SOURCE, "train", CharTokenizer("ab"), tmp_path)
    assert files(tmp_path) == []


def test_a_split_without_text(tmp_path):
    stream = tokenize(SOURCE, "test", ByteTokenizer(), tmp_path)
    assert len(stream.tokens) == len(stream.starts) == stream.n_symbols == 0


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "occupied").write_text("")
    with pytest.raises(StorageError, match="occupied"):
        tokenize(SOURCE, "train", ByteTokenizer(), tmp_path / "occupied")
