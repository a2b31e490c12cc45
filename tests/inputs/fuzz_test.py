"""A few malformed inputs of each kind; `python -m tests.inputs` tries as many as one likes."""

import gzip
import io
import json
import lzma
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest

from recattn_jax import data, untrusted
from recattn_jax.data import readers
from recattn_jax.errors import UserError
from tests.inputs import fuzz, mutations
from tests.inputs.readers import READERS
from tests.inputs.targets import targets

SEED = 20


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    return targets(tmp_path_factory.mktemp("made"))


@pytest.fixture(autouse=True)
def no_warnings(recwarn):
    """What libraries warn of damaged files is theirs."""


def once(tried, number: int, folder: Path) -> None:
    outcome = fuzz.run(tried, SEED, number, folder)
    assert not outcome.done.problems, (outcome.what, outcome.done)


@pytest.mark.parametrize("number", range(len(READERS)))
def test_readers_answer_what_is_malformed_in_one_line(number, tmp_path):
    found = {f"read {name}": fuzz.reading(reader) for name, reader in READERS.items()}
    once(found, number, tmp_path)


@pytest.mark.parametrize("round", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_commands_answer_what_is_malformed_in_one_line(tried, round, tmp_path):
    """All commands twice; one test, since they share what is made once."""
    names = sorted(tried)
    for place, name in enumerate(names):
        if not name.startswith("read"):
            folder = tmp_path / str(place)
            folder.mkdir()
            once(tried, round * len(names) + place, folder)


def test_every_reader_is_tried():
    covered = {name for reader in READERS.values() for name in reader.covers}
    assert covered >= set(readers.__all__) | {"text_file", "tiny_shakespeare", "prepared"}


def test_good_files_are_read(tmp_path, monkeypatch):
    """So what is tried is damaged, and not wrong from the start; that verse is no Shakespeare."""
    monkeypatch.chdir(tmp_path)
    for name, reader in READERS.items():
        for file, content in reader.files().items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(content)
        if name != "verse":
            reader.read(tmp_path / name, tmp_path / "data")


def broken(way):
    def read(folder, data):
        way(folder)

    reader = READERS["tsv"]
    return fuzz.reading(type(reader)(reader.covers, reader.files, read))


def fails(folder):
    raise ValueError("not foreseen")


def writes_half(folder):
    Path("data").mkdir()
    Path("data/a.partial").write_text("")


def speaks(folder):
    print("a word\nanother")
    raise UserError("a message that is long enough")


def sits(folder):
    while True:
        pass


def writes_and_fails(folder):
    Path("elsewhere").write_text("")
    raise UserError("a message that is long enough")


@pytest.mark.parametrize(
    ("way", "says"),
    [
        (fails, "exit code 1"),
        (writes_half, "half-written: data/a.partial"),
        (sits, "hangs"),
        (writes_and_fails, "written although it failed"),
    ],
)
def test_a_wrong_answer_is_seen(way, says, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    outcome = fuzz.run({"broken": broken(way)}, SEED, 0, tmp_path)
    assert any(problem.startswith(says) for problem in outcome.done.problems), outcome


def test_every_mutation_is_seeded():
    files = {name: b"a,1\nb,2\n" for name in ("a.txt", "a.json", "a.npz")}
    for number in range(200):
        for name, content in files.items():
            twice = [mutations.mutate(random.Random(number), name, content) for _ in range(2)]
            assert twice[0] == twice[1]


def bomb(kind: str) -> bytes:
    """A megabyte of zeros or so, packed."""

    if kind == "gz":
        return gzip.compress(bytes(1 << 20))
    out = io.BytesIO()
    if kind == "npz":
        np.savez_compressed(out, frames=np.zeros(1 << 20, np.uint8))
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("a/other.txt" if kind == "tar header" else "a/a.wav")
        member.size = 1 << 20
        if kind == "tar header":
            member.pax_headers = {"comment": "x" * (1 << 20)}
        tar.addfile(member, io.BytesIO(bytes(1 << 20)))
    return lzma.compress(out.getvalue())


@pytest.mark.parametrize("kind", ["gz", "npz", "tar", "tar header"])
def test_what_unpacks_to_too_much_is_refused_in_a_line(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted, "UNPACKED_BYTES", 100_000)
    packed = bomb(kind)
    assert untrusted.unpacked_most(len(packed)) == 100_000
    file = tmp_path / {"gz": "a.tsv.gz", "npz": "a.npz"}.get(kind, "a.tar.xz")
    file.write_bytes(packed)
    read = {
        "gz": lambda: data.labelled_tsv({"train": file}, tmp_path, "text", "label"),
        "npz": lambda: data.labelled_frames(file, tmp_path, "frames", "a", "b", {}),
    }.get(kind, lambda: data.labelled_waves(file, tmp_path, 8000))
    with pytest.raises(UserError, match=r"unpacks? to more than 100000"):
        read()


def test_an_archive_whose_middle_is_damaged_is_not_taken_for_a_short_one(tmp_path):
    whole = bytearray(READERS["archive a.tar"].files()["a.tar"])
    whole[5 * 1536 + 10] ^= 1  # a letter of the name of the sixth file
    (tmp_path / "a.tar").write_bytes(whole)
    with pytest.raises(UserError, match="cut off or damaged after 5 wav files"):
        data.labelled_waves(tmp_path / "a.tar", tmp_path, 16_000)


def test_a_prepared_set_names_no_class_that_is_not_of_tfds(tmp_path, monkeypatch):
    """TFDS would import it, and whatever lies in the current folder can be imported."""
    (tmp_path / "evil_module.py").write_text("open('ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "set"
    folder.mkdir()
    for name, content in READERS["prepared"].files().items():
        (folder / name).write_bytes(content)
    good = (folder / "features.json").read_text()
    name = "tensorflow_datasets.core.features.text_feature.Text"
    assert name in good
    hidden = '{"type": "evil_module.Text", "content": {}}'
    for evil in (
        good.replace(name, "evil_module.Text", 1),
        good.replace('"pythonClassName"', '"python_class_name"').replace(name, "evil_module.Text"),
        json.dumps({"jsonFeature": {"json": hidden}, "pythonClassName": name}),
    ):
        (folder / "features.json").write_text(evil)
        with pytest.raises(UserError, match="names the class 'evil_module.Text'"):
            data.prepared_records(folder, {"text": "text"})
    assert not (tmp_path / "ran").exists()
