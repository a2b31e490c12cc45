"""Writing files so that a kill at any moment leaves them whole."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from recattn_jax.errors import StorageError


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a kill leaves the old one or the new one, never half of one.

    A failure, such as a full disk, leaves the old one and nothing beside it.

    Raises:
      StorageError: it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # on a full disk its room is needed
            partial.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error}") from error


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
        except StorageError as error:
            say(f"besides: {error}")
        raise
    close()
