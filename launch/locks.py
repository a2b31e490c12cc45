"""A lock on a file that the system lets go of when its process ends, however it ends."""

import fcntl
from pathlib import Path
from types import TracebackType
from typing import IO


class FileLock:
    """Held by one process at a time, on every host that sees the file.

    Args:
      path: the file; it is made, stays, and holds nothing.

    Example:
      >>> with FileLock(Path("here.lock")):
      ...     pass
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Takes the lock; without `wait` it may say that another has it."""
        file = self._path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Lets go of it."""
        assert self._file is not None, "released, but not held"
        self._file.close()
        self._file = None

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
