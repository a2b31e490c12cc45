"""Clocks and traces of the loop."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax

from recattn_jax.training.experiment import Cadence
from recattn_jax.training.runs import RunFolder
from recattn_jax.training.summary import duration

_SETTLED = 2.0  # seconds


class Clock:
    """Counts targets, and the seconds of steps and of evaluations.

    Args:
      cadence: for how much is to come.
    """

    def __init__(self, cadence: Cadence):
        self._cadence = cadence
        self._steps, self._stepping, self._targets = -1, 0.0, 0.0  # the first one warms up
        self._evaluations, self._evaluating = 0, 0.0
        self._compiled = ""
        self.restart()

    def restart(self) -> None:
        """Starts counting anew what a line of the log says: evaluations do not count there."""
        self._since_line = 0.0
        self._line = self._last = time.monotonic()

    def step(self, targets: float) -> None:
        """Counts a step that has ended."""
        now = time.monotonic()
        self._since_line += targets
        if self._steps >= 0:
            self._stepping += now - self._last
            self._targets += targets
        self._steps += 1
        self._last = now

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Times the body."""
        start = time.monotonic()
        yield
        self._compiled = duration(time.monotonic() - start)

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Counts an evaluation, which is the body."""
        start = time.monotonic()
        yield
        self._evaluations += 1
        self._evaluating += time.monotonic() - start

    def speed(self) -> float:
        """Targets per second since the last line of the log, and starts anew."""
        speed = self._since_line / max(time.monotonic() - self._line, 1e-9)
        self._since_line, self._line = 0.0, time.monotonic()
        return speed

    def news(self, step: int, now: bool) -> str:
        """Says, once, how long compiling took and what is to come, as soon as it can be known.

        Args:
          step: the last one.
          now: not to wait any longer.
        """
        if not self._compiled or not (now or self._stepping > _SETTLED):
            return ""
        said, self._compiled = f"compiled in {self._compiled}", ""
        expected = self.expected(step)
        if not expected:
            return said
        pace = self._targets / max(self._stepping, 1e-9)
        size = self._targets / self._steps
        return f"{said}; {expected}, at {pace:,.0f} targets/s, {size:,.0f} a step"

    def expected(self, step: int) -> str:
        """What is to come after a step, at the speed of the steps so far; "" if none is known.

        >>> clock = Clock(Cadence(20, 1, 10, 20, 1, None, None))
        >>> clock.expected(10)
        ''
        """
        if self._steps < 1:
            return ""
        steps, every = self._cadence.steps, self._cadence.evaluate_every
        seconds = (steps - step) * self._stepping / self._steps
        # That of this step, where it is due, is to come.
        evaluations = steps // every - (step - 1) // every + (steps % every > 0)
        known = self._evaluations > 0
        if known:
            seconds += evaluations * self._evaluating / self._evaluations
        apart = f" and {evaluations:,} evaluation{'s' if evaluations > 1 else ''}"
        return f"about {duration(seconds)}{'' if known else apart} left"


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
