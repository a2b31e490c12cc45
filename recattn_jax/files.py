"""Writing files so that a kill at any moment leaves them whole."""

import os
from pathlib import Path

from recattn_jax.errors import StorageError


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a kill leaves the old one or the new one, never half of one.

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
        raise StorageError(f"cannot write {path}: {error}") from error
