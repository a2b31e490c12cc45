"""Waits for what other processes do; the machine may be slow, so there is much patience."""

import time
from collections.abc import Callable


def until(reached: Callable[[], bool], what: str, patience: float = 100.0) -> None:
    deadline = time.monotonic() + patience
    while not reached():
        assert time.monotonic() < deadline, f"{what}: did not come in {patience:g} s"
        time.sleep(0.05)
