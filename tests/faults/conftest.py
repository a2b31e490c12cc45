import contextlib
import subprocess
from pathlib import Path

import pytest

from tests.faults.processes import Nursery, trained, words


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """What the processes of one session have compiled."""
    return tmp_path_factory.mktemp("compilations")


@pytest.fixture(scope="session")
def nursery(cache):
    with Nursery(cache) as nursery:
        yield nursery


@pytest.fixture(scope="session")
def whole(tmp_path_factory, nursery):
    """The folder of the uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    ended = nursery.start(words(folder / "run"), folder / "output").wait()
    assert ended.code == 0, ended.text
    return folder / "run"


@pytest.fixture(scope="session")
def uninterrupted(whole):
    """What no interruption may change."""
    found = trained(whole)
    assert [r["step"] for r in found[2] if r["split"] == "train"] == list(range(1, 25))
    return found


@pytest.fixture
def disk(tmp_path):
    """A folder on a disk of few megabytes; None where nobody may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    with contextlib.ExitStack() as stack:
        try:
            subprocess.run(mounting, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            yield None
            return
        stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        yield Path(folder)
