"""What a kill or a full disk leaves of a file, and which error is heard."""

import os

import numpy as np
import pytest

from recattn_jax.errors import NonFiniteError, StorageError, UserError
from recattn_jax.files import closing, new_folder, write_arrays, write_atomically


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_file_that_cannot_be_written_stays_as_it_was_with_nothing_beside_it(
    tmp_path, monkeypatch, broken
):
    def full(*_):
        raise OSError(28, "No space left on device")

    file = tmp_path / "file"
    write_atomically(file, "old")
    with monkeypatch.context() as context:
        context.setattr(os, broken, full)
        with pytest.raises(StorageError, match="cannot write .*file: .*No space left"):
            write_atomically(file, "new")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
    write_atomically(file, "new")
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]


def test_arrays_are_whole_or_as_they_were(tmp_path, monkeypatch):
    file = tmp_path / "numbers.npz"
    write_arrays(file, {"a/b": [1.5, 2.5], "label": "g\u00fct"})
    with np.load(file) as stored:
        assert stored["a/b"].tolist() == [1.5, 2.5] and str(stored["label"]) == "g\u00fct"
    before = file.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(StorageError, match="cannot write .*numbers.npz"):
        write_arrays(file, {"a": [3.0]})
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_the_first_error_is_heard_and_the_second_said():
    def close():
        raise StorageError("disk full")

    said = []
    with pytest.raises(NonFiniteError), closing(close, said.append):
        raise NonFiniteError("nan")
    assert said == ["besides: disk full"]
    with pytest.raises(StorageError, match="disk full"), closing(close, said.append):
        pass
    closed = []
    with closing(lambda: closed.append(True), said.append):
        assert not closed
    assert closed == [True] and len(said) == 1


def test_a_folder_is_there_with_all_of_it_or_not_at_all(tmp_path):
    path = tmp_path / "above" / "folder"
    with new_folder(path) as partial:
        (partial / "file").write_text("some")
        assert not path.exists() and partial.name.endswith(".partial")
    assert [file.name for file in path.parent.iterdir()] == ["folder"]
    assert (path / "file").read_text() == "some"
    with pytest.raises(NonFiniteError), new_folder(tmp_path / "other") as partial:
        (partial / "file").write_text("some")
        raise NonFiniteError("nan")
    assert [file.name for file in tmp_path.iterdir()] == ["above"]


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for there in (path, tmp_path / "link"):
        with pytest.raises(UserError, match=f"{there.name} exists"), new_folder(there):
            raise AssertionError("not reached")
    path.rmdir()
    with pytest.raises(UserError, match="folder exists by now"), new_folder(path) as partial:
        (partial / "file").write_text("ours")
        path.mkdir()
        (path / "file").write_text("theirs")
    assert (path / "file").read_text() == "theirs"
    below = path / "file" / "below"
    with pytest.raises(UserError, match="create .*below: Not a directory"), new_folder(below):
        raise AssertionError("not reached")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "link"]


@pytest.mark.parametrize("broken", ["fsync", "rename"])
def test_a_folder_on_a_full_disk_leaves_nothing(tmp_path, monkeypatch, broken):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, full)
    path = tmp_path / "folder"
    said = pytest.raises(StorageError, match="cannot write .*folder: .*No space left")
    with said, new_folder(path) as partial:
        (partial / "file").write_text("some")
    assert not list(tmp_path.iterdir())
