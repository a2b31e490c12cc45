"""Lines of a stream: as they come, all that are there, and what is wrong with one."""

import io

import pytest

from launch import lines
from recattn_jax.errors import UserError


class Pieces(io.RawIOBase):
    """Gives one piece a read, as a pipe does that is written to slowly."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)

    def readable(self):
        return True

    def readinto(self, buffer):
        piece = self.pieces.pop(0) if self.pieces else b""
        buffer[: len(piece)] = piece
        return len(piece)


def test_lines_are_read_as_they_come():
    raw = Pieces(b"one\ntwo\nth", b"ree\n", b"fo", b"ur")
    found = lines.arriving(io.BufferedReader(raw), str)
    assert (next(found), len(raw.pieces)) == (["one", "two"], 3)
    assert (next(found), len(raw.pieces)) == (["three"], 2)
    assert list(found) == [["four"]]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"a\r\n\r\nb\r\n", ["a", "", "b"]),
        (b"a\rb\x0b\xe2\x80\xa8c\n", ["a\rb\x0b\u2028c"]),
        ("\ufeffna\u00efve\n\ufeff".encode(), ["na\u00efve", "\ufeff"]),
    ],
)
def test_a_line_ends_with_lf_or_cr_lf_and_nothing_else(data, wanted):
    assert [line for some in lines.arriving(io.BytesIO(data), str) for line in some] == wanted


def test_a_file_comes_in_large_pieces():
    data = b"".join(b"%d\n" % i for i in range(30_000))
    pieces = list(lines.arriving(io.BytesIO(data), int))
    assert sum(pieces, []) == list(range(30_000)) and len(pieces) == -(-len(data) // lines.CHUNK)


def test_a_character_may_be_cut_by_the_end_of_a_piece(monkeypatch):
    monkeypatch.setattr(lines, "CHUNK", 2)
    text = "n\u00e4\u00e4n\n\u00e4\n"
    found = [line for some in lines.arriving(io.BytesIO(text.encode()), str) for line in some]
    assert found == ["n\u00e4\u00e4n", "\u00e4"]


def test_a_wrong_line_is_named_after_those_before_it():
    found = lines.arriving(io.BytesIO(b"a\nb\nc\xff\nd\n"), str)
    assert next(found) == ["a", "b"]
    with pytest.raises(UserError, match="stdin, line 3: byte 2 of the line, 0xff, is not UTF-8"):
        next(found)

    def read(line):
        raise UserError(f"cannot read {line!r}")

    with pytest.raises(UserError, match="stdin, line 1: cannot read 'a'"):
        next(lines.arriving(io.BytesIO(b"a\nb\n"), read))
