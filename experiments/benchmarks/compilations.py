"""Which programs are compiled while something runs."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from recattn_jax.data import Data, Pipeline, Spec
from recattn_jax.training import Experiment, RunFolder, fit

_EVENT = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Lists what this process compiles inside the `with`, in order; each line names a program.

    >>> with compilations() as names:
    ...     y = jax.jit(lambda x: x + 1)(1.0)
    >>> names
    ['jit(<lambda>)']
    """
    names: list[str] = []

    def listen(event: str, duration_secs: float, **labels: Any) -> None:
        del duration_secs
        if event == _EVENT:
            names.append(str(labels.get("fun_name", "a program")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def compiled_by(experiment: Experiment, data: Data, run: RunFolder) -> tuple[list[str], list[str]]:
    """Trains, and lists what is compiled before and after the loop has done everything once.

    That is when it takes its first batch after the first evaluation, which is the best so far and
    so is saved.

    Args:
      experiment: trained for more steps than `evaluate_every`.
      data: its data.
      run: an empty folder.

    Returns:
      Names of programs, those before and those after.
    """
    taken: list[int] = []
    with compilations() as names:
        watched = Watched(data.train, lambda: taken.append(len(names)))
        fit(experiment, dataclasses.replace(data, train=watched), run, say=lambda line: None)
        begun = taken[experiment.cadence.evaluate_every]
        return names[:begun], names[begun:]


class Watched(Pipeline):
    """A pipeline that calls something whenever the loop takes a batch.

    Args:
      pipeline: what makes the batches.
      look: is called.
    """

    def __init__(self, pipeline: Pipeline, look: Callable[[], None]):
        self.pipeline, self.look = pipeline, look

    @property
    def fingerprint(self) -> str:
        return self.pipeline.fingerprint

    @property
    def specs(self) -> tuple[Spec, ...]:
        return self.pipeline.specs

    @property
    def records(self) -> Sequence[Any] | None:
        return self.pipeline.records

    @property
    def steps_per_epoch(self) -> int:
        return self.pipeline.steps_per_epoch

    def batches(self, start: int) -> Any:
        with contextlib.closing(self.pipeline.batches(start)) as batches:
            for batch in batches:
                self.look()
                yield batch

    def epoch(self) -> Iterator[Any]:
        return self.pipeline.epoch()
