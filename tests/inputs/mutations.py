"""What people and machines do to files: each mutation is seeded, and says what it did."""

import gzip
import io
import json
import os
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Files = Mapping[str, bytes]

NUMBERS = (
    "", "nan", "inf", "-1", "0", "1e999", "1_000", "9" * 400, "9" * 5000, "1e-400", "0x10",
)  # fmt: skip
WORDS = (
    "", " ", "\x1b[31mred\x07", "e\u0301\u0301", "\u202eabc", "\U0001f600", "a" * 5000, "$x^{",
    "a|b", "<b>", "\\", "\t", "=1+1", "%s{}", "\u2028", "\x00", "--", "~nobody/x", "None", "(1,",
    "[[[", "null", "\u05d0\u05d1", "\ufeffx", "\r\n",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**30, 10**400, 1e308, float("nan"), float("-inf"), "", "x", "\x1b[2J",
    "\ud800", "a" * 3000, "\x00", [], {}, [[]], [1, "a", None], {"kind": "byte"},
    "../../../etc/passwd",
)  # fmt: skip
PUT = b'{[<\x00\xff\xfe\xed\xa0\x80\r\x1b[2J"\\,:\t|;'


def truncated(r: random.Random, data: bytes) -> bytes:
    return data[: r.randrange(len(data) + 1)]


def flipped(r: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 8, 64)) if data else 0):
        out[r.randrange(len(out))] ^= 1 << r.randrange(8)
    return bytes(out)


def beheaded(r: random.Random, data: bytes) -> bytes:
    """Bits of the first bytes alone, where headers are."""
    return flipped(r, data[:64]) + data[64:]


def deleted(r: random.Random, data: bytes) -> bytes:
    start = r.randrange(len(data) + 1)
    return data[:start] + data[start + r.choice((1, 5, 100)) :]


def inserted(r: random.Random, data: bytes) -> bytes:
    start = r.randrange(len(data) + 1)
    piece = r.choice((r.randbytes(r.randrange(1, 40)), PUT, b"\n\n\n", b"\x00" * 9, b"\r"))
    return data[:start] + piece + data[start:]


def repeated_lines(r: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    at = r.randrange(len(lines))
    return b"".join(lines[: at + 1] + [lines[at]] * r.choice((1, 3)) + lines[at + 1 :])


def swapped_lines(r: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    one, two = r.randrange(len(lines)), r.randrange(len(lines))
    lines[one], lines[two] = lines[two], lines[one]
    return b"".join(lines)


def swapped_columns(r: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    at, mark = r.randrange(len(lines)), r.choice((b"\t", b",", b" ", b":", b'"'))
    fields = lines[at].split(mark)
    if r.random() < 0.5:
        r.shuffle(fields)
    elif r.random() < 0.5:
        fields.pop(r.randrange(len(fields)))
    else:
        fields.insert(r.randrange(len(fields) + 1), r.choice(fields))
    lines[at] = mark.join(fields)
    return b"\n".join(lines)


def encoded(r: random.Random, data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    way = r.choice(("utf-16", "utf-32", "utf-8-sig", "latin-1", "cp037", "crlf", "cr"))
    if way.startswith("cr"):
        return text.replace("\n", "\r\n" if way == "crlf" else "\r").encode()
    return text.replace("e", "\u00e9").encode(way, "replace")


def other_number(r: random.Random, data: bytes) -> bytes:
    places = list(re.finditer(rb"-?\d+(\.\d+)?", data[:20_000]))
    if not places:
        return data + r.choice(NUMBERS).encode()
    at = r.choice(places)
    return data[: at.start()] + r.choice(NUMBERS).encode() + data[at.end() :]


def other_word(r: random.Random, data: bytes) -> bytes:
    places = list(re.finditer(rb"[A-Za-z]+", data[:20_000]))
    if not places:
        return data + r.choice(WORDS).encode()
    at = r.choice(places)
    return data[: at.start()] + r.choice(WORDS).encode() + data[at.end() :]


def one_long_line(r: random.Random, data: bytes) -> bytes:
    return r.choice((data.replace(b"\n", b" "), data + b"x" * 1_000_000, b"," * 300_000))


def nested(r: random.Random, data: bytes) -> bytes:
    return r.choice((b"[", b'{"a":', b"(")) * r.choice((40, 60, 100_000))


def noise(r: random.Random, data: bytes) -> bytes:
    return r.randbytes(r.choice((0, 1, 7, 512, 4096)))


def other_json(r: random.Random, data: bytes) -> bytes:
    """One place of a document of JSON (or of one of its lines) has another value, or none."""
    lines = data.split(b"\n")
    whole = data.lstrip().startswith(b"{\n") or len(lines) < 3
    at = r.randrange(len(lines))
    try:
        found = json.loads(data if whole else lines[at])
    except ValueError:
        return other_number(r, data)
    holders: list[Any] = [[found]]
    for holder in holders:
        inner = holder.values() if isinstance(holder, dict) else holder
        holders += [value for value in inner if isinstance(value, dict | list) and value]
    holder = r.choice(holders)
    key = r.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    if r.random() < 0.2 and holder is not holders[0]:
        del holder[key]
    elif r.random() < 0.1 and isinstance(holder, dict):
        holder[r.choice(WORDS)] = holder[key]
    else:
        holder[key] = r.choice(VALUES)
    text = json.dumps(holders[0][0]).encode()
    return text if whole else b"\n".join([*lines[:at], text, *lines[at + 1 :]])


def other_arrays(r: random.Random, data: bytes) -> bytes:
    """An archive of NumPy one of whose arrays is another, or says that it is."""
    with np.load(io.BytesIO(data)) as archive:
        arrays = dict(archive)
    name = r.choice(list(arrays))
    old = arrays[name]
    changes: dict[str, Callable[[], Any]] = {
        "objects": lambda: np.array([{}, print], object),
        "empty": lambda: old[:0],
        "shorter": lambda: old[:-1],
        "scalar": lambda: np.array(5),
        "floats": lambda: old.astype(np.float64) * np.nan,
        "words": lambda: np.array([r.choice(WORDS) for _ in old.ravel()[:50]]),
        "backwards": lambda: old[::-1],
        "complex": lambda: old.astype(np.complex64),
        "square": lambda: np.stack([old, old]),
        "huge": lambda: old.astype(np.float64) + 1e300,
        "times": lambda: np.zeros(9, "datetime64[s]"),
        "records": lambda: np.zeros(4, [("a", "i4"), ("b", "U3")]),
    }
    arrays[name] = changes[r.choice(list(changes))]()
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=True, **arrays)
    whole = packed.getvalue()
    if r.random() < 0.3:  # a shape that lies; the checksum of the archive does not fit either
        whole = re.sub(rb"\((\d+),", lambda m: b"(" + b"9" * len(m[1]) + b",", whole, count=1)
    return whole


ANY: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    truncated, flipped, beheaded, deleted, inserted, repeated_lines, swapped_lines, swapped_columns,
    encoded, other_number, other_word, one_long_line, nested, noise,
)  # fmt: skip


def mutate(r: random.Random, name: str, data: bytes) -> tuple[str, bytes]:
    """The content of a file after one to three mutations, and their names."""
    ways = [*ANY]
    if name.endswith((".json", ".jsonl", ".log")):
        ways += [other_json] * 10
    if name.endswith(".npz"):
        ways += [other_arrays] * 14
    said = []
    for _ in range(r.choice((1, 1, 1, 2, 3))):
        way = r.choice(ways)
        try:
            data = way(r, data)
        except Exception:  # of an archive that an earlier mutation broke
            way = noise
            data = noise(r, data)
        said.append(way.__name__)
    return "+".join(said), data


def in_place_of(r: random.Random, path: Path, others: Files) -> str:
    """Puts something else than the file at its path; says what."""
    way = r.choice(
        ("nothing", "folder", "pipe", "dangling link", "loop", "device", "other file", "gzip")
    )
    data = path.read_bytes()
    path.unlink()
    if way == "folder":
        path.mkdir()
        (path / "inside").write_bytes(b"x")
    elif way == "pipe":
        os.mkfifo(path)
    elif way == "dangling link":
        path.symlink_to("nowhere")
    elif way == "loop":
        path.symlink_to(path.name)
    elif way == "device":
        path.symlink_to("/dev/zero")
    elif way == "other file":
        path.write_bytes(others[r.choice(sorted(others))])
    elif way == "gzip":
        path.write_bytes(
            flipped(r, gzip.compress(data)) if r.random() < 0.5 else gzip.compress(data)
        )
    return way


def damage(r: random.Random, folder: Path, names: list[str], others: Files) -> str:
    """Changes one of the files in a folder; says which and how."""
    name = r.choice(names)
    path = folder / name
    if r.random() < 0.15:
        return f"{name}: {in_place_of(r, path, others)}"
    said, data = mutate(r, name, path.read_bytes())
    path.write_bytes(data)
    return f"{name}: {said}"
