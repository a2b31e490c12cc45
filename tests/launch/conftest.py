import contextlib
import functools
import shutil
from pathlib import Path

import pytest

from launch import app, train
from tests.launch.commands import TEXT, TINY, TINY_SCORED, Caller


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Calls a command in a folder that holds a text and nothing else."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    Path("text.txt").write_text(TEXT)
    return Caller(capsys)


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory):
    """A folder in which a run was trained, once for all tests."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        Path("text.txt").write_text(TEXT)
        with pytest.raises(SystemExit) as leaving:
            app.run(train.command, None, argv=["train", f"--config={TINY}", "--workdir=run"])
    assert not leaving.value.code
    return folder


@pytest.fixture
def trained(call, trained_folder):
    """Copies the trained run to where `call` is."""
    shutil.copytree(trained_folder, Path(), dirs_exist_ok=True)


@pytest.fixture(scope="session")
def scored(tmp_path_factory):
    """Finds the run of a task that is scored; the first to ask trains it."""
    folder = tmp_path_factory.mktemp("scored")

    @functools.cache
    def run(task):
        arguments = [f"--config={TINY_SCORED}", f"--config.task={task}"]
        with pytest.raises(SystemExit) as leaving:
            app.run(train.command, None, argv=["train", *arguments, f"--workdir={folder / task}"])
        assert not leaving.value.code
        return folder / task

    return run
