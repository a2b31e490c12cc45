"""What a kill or a full disk leaves of a file, and which error is heard."""

import os

import pytest

from recattn_jax.errors import NonFiniteError, StorageError
from recattn_jax.files import closing, write_atomically


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
