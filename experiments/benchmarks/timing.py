"""Times programs in turn, so that a machine whose speed drifts slows them all alike."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def medians(programs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each program; every round runs each of them once.

    Args:
      programs: what to time, by name; each is called once before, to compile it.
      rounds: how often each is timed.

    Returns:
      Milliseconds by name.

    >>> list(medians({"nothing": lambda: None}, rounds=1))
    ['nothing']
    """
    times: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        jax.block_until_ready(program())
    for _ in range(rounds):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program())
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def machine() -> str:
    """One line that says what the figures were taken on."""
    kind = jax.devices()[0].device_kind
    return f"{platform.machine()} {kind}, {os.cpu_count()} cores, jax {jax.__version__}"
