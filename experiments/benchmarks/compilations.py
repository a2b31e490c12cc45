"""Which programs are compiled while something runs."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

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

    def listen(event: str, seconds: float, **labels: Any) -> None:
        del seconds
        if event == _EVENT:
            names.append(str(labels.get("fun_name", "a program")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
