"""A lock on a file that the system lets go of when its process ends, however it ends."""

import fcntl
from pathlib import Path
from types import TracebackType
from typing import IO

from recattn_jax.errors import StorageError


class FileLock:
    """Held by one process at a time, on every host that sees the file.

    A process that inherits its descriptor holds it too; it is free when the last of them has ended.

    Args:
      path: the file; it is made, and stays. What it holds is the owner's to say.

    >>> with FileLock(Path("here.lock")):
    ...     pass
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Takes the lock; without `wait` it may say that another has it.

        Raises:
          StorageError: the file cannot be made, or its file system has no locks.
        """
        file = None
        try:
            file = self._path.open("ab")
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if file is not None:
                file.close()
            if isinstance(error, BlockingIOError):
                return False
            raise StorageError(f"cannot lock {self._path}: {error.strerror}") from error
        self._file = file
        return True

    def release(self) -> None:
        """Lets go of it, but for those who have inherited it."""
        assert self._file is not None, "released, but not held"
        self._file.close()
        self._file = None

    def fileno(self) -> int:
        """The descriptor, while it is held: what another process inherits."""
        assert self._file is not None, "not held"
        return self._file.fileno()

    def __enter__(self) -> "FileLock":
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
