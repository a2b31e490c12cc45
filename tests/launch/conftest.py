import pytest

from tests.launch.commands import Caller


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Calls a command in an empty current folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return Caller(capsys)
