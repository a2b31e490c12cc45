"""What a driver keeps of a job: a folder, a record in it, and a lock for whoever changes it."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from launch.jobs import Job
from recattn_jax import untrusted
from recattn_jax.errors import StorageError
from recattn_jax.files import write_atomically
from recattn_jax.locks import FileLock


def place(job: Job) -> Path:
    """The folder of the job's own, an absolute path."""
    return job.folder.absolute() / job.name


def make(folder: Path) -> None:
    """Makes the folder.

    Raises:
      StorageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error}") from error


def read(file: Path, keys: Sequence[str] = ()) -> dict[str, Any] | None:
    """The record, or None where there is none.

    Args:
      file: which holds it.
      keys: that it has, if it is of the driver that asks.

    Raises:
      StorageError: it is no JSON object, or another driver's.
    """
    if not untrusted.is_there(file):
        return None
    try:
        record = untrusted.read_object(file)
    except untrusted.Unreadable as error:
        raise StorageError(f"{file} is damaged ({error}); remove it to start anew") from error
    if not record.keys() >= set(keys):
        raise StorageError(
            f"{file} is of another driver's job, or of another version; choose another --name or"
            " --folder"
        )
    return record


def text(record: dict[str, Any]) -> str:
    """The record as it is written."""
    return json.dumps(record, indent=2) + "\n"


def write(file: Path, record: dict[str, Any]) -> None:
    """Writes the record; a kill leaves the old one or the new one."""
    write_atomically(file, text(record))


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[FileLock | None]:
    """Holds the lock of a job's folder.

    Args:
      folder: of the job; made where there is none.
      wait: for another to let go of it.

    Yields:
      The lock; None where another has it.
    """
    make(folder)
    lock = FileLock(folder / "lock")
    held = lock.acquire(wait)
    try:
        yield lock if held else None
    finally:
        if held:
            lock.release()
