"""A lock has one holder, and is free when its process has ended, however it ended."""

import os
import signal
import subprocess
import sys

import pytest

from recattn_jax.errors import StorageError
from recattn_jax.locks import FileLock

HOLDER = """
import sys, time
from pathlib import Path
from recattn_jax.locks import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_has_one_holder(tmp_path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    with first:
        assert not second.acquire(wait=False)
    assert second.acquire(wait=False)
    second.release()


def test_a_killed_process_holds_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        lock = FileLock(tmp_path / "lock")
        assert not lock.acquire(wait=False)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert lock.acquire(wait=False)
        lock.release()


def test_a_file_that_cannot_be_made_or_locked_is_named(tmp_path, monkeypatch):
    with pytest.raises(StorageError, match="cannot lock .*missing/lock: No such file"):
        FileLock(tmp_path / "missing" / "lock").acquire()

    def has_no_locks(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", has_no_locks)
    with pytest.raises(StorageError, match="cannot lock .*: Function not implemented"):
        FileLock(tmp_path / "lock").acquire()
