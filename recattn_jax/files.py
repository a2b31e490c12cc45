"""Writing files so that a kill at any moment leaves them whole."""

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recattn_jax.errors import StorageError, UserError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a kill leaves the old one or the new one, never half of one.

    A failure, such as a full disk, leaves the old one and nothing beside it.

    Raises:
      StorageError: it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # on a full disk its room is needed
            partial.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error}") from error


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays, numbers and texts by name into a compressed `.npz`, whole or not at all.

    Raises:
      StorageError: it cannot be written.

    >>> write_arrays(Path("numbers.npz"), {"losses": [2.0, 1.5], "label": "good"})
    """
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_atomically(path, content.getvalue())


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder, which takes the place of `path` when the body has ended.

    So a folder is there with all that belongs in it, or not at all. A failure leaves nothing; a
    kill leaves a folder beside it, whose name ends with `.partial`.

    Args:
      path: there is nothing yet; folders above it are made.

    Yields:
      Where to write.

    Raises:
      UserError: there is something, or no folder can be made there.
      StorageError: it cannot be written.
    """
    if os.path.lexists(path):
        raise UserError(f"{path} exists; name a folder that does not")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot create {path}: {error.strerror}") from error
    try:
        yield partial
        for file in (*partial.iterdir(), partial):
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if os.path.lexists(path):
            raise UserError(f"{path} exists by now; name a folder that does not")
        partial.rename(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def closing(close: Callable[[], None], say: Callable[[str], None]) -> Iterator[None]:
    """Calls `close` when the body has ended.

    Where the body ends with an error, that is the one to hear of: closing may fail for the same
    reason (a full disk), which is only said.

    Args:
      close: may raise `StorageError`.
      say: where that line goes.
    """
    try:
        yield
    except BaseException:
        try:
            close()
        except Exception as error:
            say(f"besides: {error}")
        raise
    close()
