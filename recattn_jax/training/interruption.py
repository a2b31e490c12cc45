"""Being asked to stop: heard at once, obeyed at the end of the step."""

import os
import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class Interruption:
    """While entered, SIGTERM and a first Ctrl-C are requests; a second Ctrl-C is KeyboardInterrupt.

    Where there are several processes, jax hears SIGTERM, tells the others, and all agree on a step.

    Outside the main thread, where Python allows no handlers, it hears nothing.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            alone = jax.process_count() == 1
            heard = (signal.SIGTERM, signal.SIGINT) if alone else (signal.SIGINT,)
            self._before = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # which jax's own handler passes on

    def requested(self, step: int) -> bool:
        """Whether all hosts should stop after this step: they agree, whichever of them heard it."""
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self.signal is not None
