import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from recattn_jax.data import (
    ByteTokenizer,
    prepared,
    pydocs,
    python_docs,
    text_file,
    tiny_shakespeare,
    tokenize,
)
from recattn_jax.errors import StorageError, UserError

needs_data = pytest.mark.skipif(
    "RECATTN_DATA" not in os.environ, reason="RECATTN_DATA does not name a folder with real data"
)
BOOK = "Once upon a time, in a naïve café,\nthere was a tokenizer.\n" * 40


def texts(source):
    return {split: list(source.texts(split)) for split in source.splits}


def book(folder, text=BOOK, name="book.txt"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(text.encode())
    return str(folder / name)


def open_book(tmp_path, text=BOOK):
    return text_file(book(tmp_path / "in", text), tmp_path / "data", validation=0.1, test=0.1)


# Text files.


def test_one_file_is_split_by_position(tmp_path):
    found = texts(open_book(tmp_path))
    assert list(found) == ["train", "validation", "test"]
    assert "".join(document for documents in found.values() for document in documents) == BOOK
    cuts = [int(len(BOOK) * 0.8), int(len(BOOK) * 0.9)]
    assert len(found["train"][0]) == cuts[0] and len(found["test"][0]) == len(BOOK) - cuts[1]


def test_no_test_split_when_none_is_asked_for(tmp_path):
    source = text_file(book(tmp_path), tmp_path / "data", validation=0.25, test=0.0)
    found = texts(source)
    assert list(found) == ["train", "validation"]
    assert found["train"] == [BOOK[: len(BOOK) * 3 // 4]]


def test_files_are_split_whole_and_none_is_lost(tmp_path):
    paths = [book(tmp_path / "in", f"{i} " * (50 + i), f"{i}.txt") for i in range(20)]
    source = text_file(str(tmp_path / "in" / "*.txt"), tmp_path / "a", validation=0.1, test=0.1)
    found = texts(source)
    assert sorted(sum(found.values(), [])) == sorted(pathlib.Path(p).read_text() for p in paths)
    sizes = {split: len("".join(documents)) for split, documents in found.items()}
    assert 0.7 < sizes["train"] / sum(sizes.values()) < 0.85
    # Where the files are, and that one is named twice, makes no difference.
    shutil.copytree(tmp_path / "in", tmp_path / "elsewhere")
    patterns = [str(tmp_path / "elsewhere" / "*"), str(tmp_path / "elsewhere" / "3.txt")]
    again = text_file(patterns, tmp_path / "b", validation=0.1, test=0.1)
    assert (again.name, again.digest, texts(again)) == (source.name, source.digest, found)


def test_names_do_not_decide_where_a_file_goes(tmp_path):
    found = []
    for order in (range(9), range(8, -1, -1)):
        paths = [book(tmp_path / "in", f"{i} " * 50, f"{j}.txt") for i, j in enumerate(order)]
        source = text_file(paths, tmp_path / "data", validation=0.3, test=0.0)
        found.append({split: set(documents) for split, documents in texts(source).items()})
    assert found[0] == found[1]


def test_every_split_gets_a_file(tmp_path):
    paths = [book(tmp_path / "in", size * "x" + str(size), f"{size}.txt") for size in (1000, 3, 2)]
    found = texts(text_file(paths, tmp_path / "data", validation=0.01, test=0.9))
    assert [len(documents) for documents in found.values()] == [1, 1, 1]


def test_changed_content_is_another_set(tmp_path):
    first = open_book(tmp_path)
    second = open_book(tmp_path, BOOK.replace("naïve", "naive", 1))
    assert first.name != second.name and first.digest != second.digest
    assert texts(second)["train"][0].startswith("Once upon a time, in a naive")
    assert open_book(tmp_path).digest == first.digest
    assert len(list((tmp_path / "data").glob("recattn_text_file_*"))) == 2


def bad_utf8(folder):
    (folder / "bad.txt").write_bytes(b"good \xc3\xa9\xffbad")
    return folder / "bad.txt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_utf8, r"bad\.txt: not UTF-8 at byte 7 \(0xff\)"),
        (lambda folder: book(folder, ""), r"book\.txt: the corpus is empty"),
        (lambda folder: book(folder, "abc"), r"book\.txt: 3 characters are too few"),
        (lambda folder: folder / "none.txt", r"none\.txt: no such file"),
        (lambda folder: folder / "*.md", r"\*\.md: no such file"),
        (lambda folder: folder, "is a folder"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(make, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        text_file(str(make(tmp_path)), tmp_path / "data", validation=0.1, test=0.1)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def test_two_files_do_not_make_three_splits(tmp_path):
    paths = [book(tmp_path, name=name) for name in ("a", "b")]
    with pytest.raises(UserError, match="2 files are too few for train, validation and test"):
        text_file(paths, tmp_path / "data", validation=0.1, test=0.1)


@pytest.mark.parametrize("fractions", [(0.0, 0.1), (0.5, 0.5), (0.1, -0.1)])
def test_fractions_leave_something_to_train_on(fractions, tmp_path):
    with pytest.raises(UserError, match="fractions"):
        text_file(book(tmp_path), tmp_path / "data", *fractions)


# Preparing.


def files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_prepared_once(tmp_path):
    open_book(tmp_path)
    before = files(tmp_path / "data")
    open_book(tmp_path)
    assert files(tmp_path / "data") == before


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def swap(path):
    shutil.copy(path.with_name(path.name.replace("train", "validation")), path)


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("*train*", cut),
        ("*train*", swap),
        ("*train*", pathlib.Path.unlink),
        ("*train*", lambda path: path.write_bytes(b"")),
        ("dataset_info.json", cut),
        ("features.json", cut),
        ("metadata.json", pathlib.Path.unlink),
        ("metadata.json", cut),
    ],
)
def test_a_damaged_set_is_prepared_again(pattern, damage, tmp_path):
    good = open_book(tmp_path)
    expected = texts(good)
    (path,) = (tmp_path / "data" / good.name / "1.0.0").glob(pattern)
    damage(path)
    again = open_book(tmp_path)
    assert texts(again) == expected and again.digest == good.digest


def test_what_a_killed_process_left_is_cleared(tmp_path):
    name = open_book(tmp_path).name
    folder = tmp_path / "data" / name
    (folder / "1.0.0").rename(folder / "incomplete.ABCDEF_1.0.0")
    assert "".join(sum(texts(open_book(tmp_path)).values(), [])) == BOOK
    assert [path.name for path in folder.iterdir()] == ["1.0.0"]


def test_nothing_is_printed_to_stdout(tmp_path, capfd):
    open_book(tmp_path)
    assert capfd.readouterr().out == ""


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(StorageError, match="data: cannot hold the prepared data"):
        open_book(tmp_path)


_PREPARE = """
import pathlib, sys, time
from recattn_jax.data import ByteTokenizer, text_file, tokenize
folder = pathlib.Path(sys.argv[1])
(folder / f"ready{sys.argv[2]}").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
source = text_file(str(folder / "book.txt"), folder / "data", validation=0.1, test=0.1)
stream = tokenize(source, "train", ByteTokenizer(), folder / "data")
print(source.digest, stream.n_symbols)
"""


def test_processes_that_prepare_at_once(tmp_path):
    book(tmp_path, BOOK * 200)
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _PREPARE, tmp_path, str(i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"ready{i}").exists() for i in range(2)):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert len({out for out, _ in results}) == 1


# The embedded corpus.


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    """A standard library of three modules, one of which must never be imported."""
    root = tmp_path / "lib"
    for name, content in {
        "pydoc_data/topics.py": "topics = {'with': 'The with statement.', 'as': 'About as.'}\n",
        "alpha.py": '"""Module alpha."""\n'
        'class A:\n    "Class A."\n    def f(self): "Method f."\n    def g(self): "Method g."\n'
        'async def b(): "Coroutine b."\n',
        "beta/gamma.py": 'raise SystemExit("imported")\n\ndef g():\n    """Function\n\n    g."""\n',
        "empty.py": "x = 1\n",
        "test/skipped.py": '"""A test."""\n',
        "idlelib/skipped.py": '"""An editor."""\n',
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    monkeypatch.setattr(pydocs, "library", lambda: root)
    return root


def library_texts(root):
    records = sum(pydocs.documents(root).values(), [])
    return {record["name"]: record["text"] for record in records}


def test_documents_of_the_library(small_library):
    found = library_texts(small_library)
    assert found == {
        "alpha.py": "Module alpha.\n\nClass A.\n\nMethod f.\n\nMethod g.\n\nCoroutine b.",
        "beta/gamma.py": "Function\n\ng.",
        "topics/as": "About as.",
        "topics/with": "The with statement.",
    }


def test_a_paragraph_belongs_to_the_first_document_that_has_it(small_library):
    paragraph = "This sentence stands in more than one module, word for word."
    (small_library / "alpha.py").write_text(f'"""Alpha.\n\n{paragraph}\n\nMore."""\n')
    (small_library / "zeta.py").write_text(f'"""Zeta.\n\n{paragraph}\n\nMore."""\n')
    found = library_texts(small_library)
    assert found["alpha.py"] == f"Alpha.\n\n{paragraph}\n\nMore."
    assert found["zeta.py"] == "Zeta.\n\nMore."


def test_splits_depend_on_the_name_alone(small_library):
    for i in range(400):
        (small_library / f"m{i}.py").write_text(f'"""Number {i}."""\n')
    before = pydocs.documents(small_library)
    place = {r["name"]: split for split, documents in before.items() for r in documents}
    sizes = {split: len(documents) for split, documents in before.items()}
    assert sizes["train"] > 320 and sizes["validation"] > 5 and sizes["test"] > 5
    # The same in every process and on every machine.
    named = {split: [n for n in place if place[n] == split] for split in sizes}
    assert [n for n in ("m34.py", "m73.py", "m26.py") if n in named["validation"]] == [
        "m34.py",
        "m73.py",
    ]
    (small_library / "m7.py").unlink()
    (small_library / "m8.py").write_text('"""Changed."""\n')
    for split, documents in pydocs.documents(small_library).items():
        assert all(place[record["name"]] == split for record in documents)


def test_a_changed_library_is_another_corpus(small_library, tmp_path):
    for i in range(80):  # so that no split is empty
        (small_library / f"m{i}.py").write_text(f'"""Number {i}."""\n')
    first = python_docs(tmp_path / "data")
    assert python_docs(tmp_path / "data").digest == first.digest
    (small_library / "m0.py").write_text('"""Changed."""\n')
    second = python_docs(tmp_path / "data")
    assert second.name != first.name and second.digest != first.digest


def test_a_python_without_sources_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(pydocs.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(UserError, match="no pydoc_data/topics.py"):
        python_docs(tmp_path / "data")
    assert not (tmp_path / "data").exists()


# Tiny Shakespeare.


def test_another_file_is_not_shakespeare(tmp_path):
    (tmp_path / "input.txt").write_text("First Citizen:\n")
    with pytest.raises(UserError, match=r"input\.txt: not Tiny Shakespeare: expected 1115394"):
        tiny_shakespeare(tmp_path / "data", folder=tmp_path)
    assert not (tmp_path / "data").exists()


def test_a_folder_without_the_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"input\.txt: cannot be read"):
        tiny_shakespeare(tmp_path / "data", folder=tmp_path)


@pytest.mark.parametrize(
    "error", [urllib.error.URLError(socket.gaierror(-2, "unknown")), TimeoutError("timed out")]
)
def test_without_a_network_one_line_says_what_to_do(error, tmp_path, monkeypatch):
    def refuse(url, timeout):
        assert timeout <= 5
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(UserError, match="cannot be downloaded .* give the folder") as caught:
        tiny_shakespeare(tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


@needs_data
def test_shakespeare(tmp_path):
    folder = pathlib.Path(os.environ["RECATTN_DATA"]) / "tiny_shakespeare"
    source = tiny_shakespeare(tmp_path, folder=folder)
    found = texts(source)
    whole = (folder / "input.txt").read_text()
    assert found == {"train": [whole[:1003854]], "validation": [whole[1003854:]]}
    assert tiny_shakespeare(tmp_path).digest == source.digest  # from now on without the file


# Sets prepared by TFDS.


def test_a_prepared_folder_is_read_without_its_builder(tmp_path):
    source = open_book(tmp_path)
    folder = tmp_path / "data" / source.name / "1.0.0"
    again = prepared(folder, "text")
    assert texts(again) == texts(source) and again.digest == prepared(folder, "text").digest
    assert texts(prepared(folder, "name"))["train"] == ["book.txt"]
    with pytest.raises(
        UserError, match="no text feature 'body'; the usable features are: name, text"
    ):
        prepared(folder, "body")
    (path,) = folder.glob("*train*")
    path.unlink()
    with pytest.raises(UserError, match="damaged or missing"):
        prepared(folder, "text")


def test_a_folder_that_holds_no_set(tmp_path):
    with pytest.raises(UserError, match="no prepared TFDS data set"):
        prepared(tmp_path, "text")


def test_text_in_another_encoding_is_named_with_its_place(tmp_path):
    source = open_book(tmp_path)
    folder = tmp_path / "data" / source.name / "1.0.0"
    with pytest.raises(UserError, match=r"example 0 is not ascii at byte 25 \(0xc3\)"):
        prepared(folder, "text", encoding="ascii")
    assert "naÃ¯ve" in texts(prepared(folder, "text", encoding="latin-1"))["train"][0]


@needs_data
@pytest.mark.parametrize(
    ("archive", "path", "feature", "encoding", "sizes"),
    [
        ("tiny_shakespeare", "tiny_shakespeare/1.0.0", "text", "utf-8", [1, 1, 1]),
        ("trec", "trec/1.0.0", "text", "utf-8", [5452, 500]),
        ("opinosis", "opinosis/1.0.0", "review_sents", "latin-1", [51]),
        ("scan-simple", "scan/simple/1.1.1", "commands", "utf-8", [16728, 4182]),
    ],
)
def test_standard_sets(archive, path, feature, encoding, sizes, tmp_path):
    folder = pathlib.Path(os.environ["RECATTN_DATA"]) / "tfds_prepared"
    with tarfile.open(folder / f"{archive}.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    source = prepared(tmp_path / path, feature, encoding)
    assert [len(documents) for documents in source.splits.values()] == sizes
    assert re.search("[a-z]", source.texts("train")[-1])
    stream = tokenize(source, "train", ByteTokenizer(), tmp_path)
    assert len(stream.starts) == sizes[0] and np.all(stream.tokens[stream.starts] == 256)


@needs_data
def test_a_standard_set_without_text(tmp_path):
    folder = pathlib.Path(os.environ["RECATTN_DATA"]) / "tfds_prepared"
    with tarfile.open(folder / "smartwatch_gestures.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    with pytest.raises(UserError, match="the usable features are: gesture"):
        prepared(tmp_path / "smartwatch_gestures/1.0.0", "text")
