"""Clocks and traces of the loop."""

import time
from typing import Any

import jax

from recattn_jax.training.runs import RunFolder


class Clock:
    """Counts tokens and seconds since the last line of the log; evaluations do not count."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Starts counting anew."""
        self.tokens = 0.0
        self._since = time.monotonic()

    def speed(self) -> float:
        """Tokens per second, and starts anew."""
        speed = self.tokens / max(time.monotonic() - self._since, 1e-9)
        self.restart()
        return speed


class Profile:
    """Traces some steps of the run, or none."""

    def __init__(self, run: RunFolder, steps: tuple[int, int] | None):
        self._path = run.profile
        self._first, self._last = (0, 0) if steps is None else steps
        self._tracing = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *error: object) -> None:
        if self._tracing:
            jax.profiler.stop_trace()

    def before(self, step: int) -> None:
        """Starts the trace before its first step."""
        if step == self._first:
            jax.profiler.start_trace(str(self._path))
            self._tracing = True

    def after(self, step: int, metrics: Any) -> None:
        """Ends the trace once its last step has been computed."""
        if self._tracing and step == self._last:
            jax.block_until_ready(metrics)
            jax.profiler.stop_trace()
            self._tracing = False
