"""The buffers of a compiled program, as the compiler's own report lists them."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

_ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (.*?):?$")
_VALUE = re.compile(r"^ value: <\d+ (.+?) @\d+> \(size=(\d+),offset=(\d+)\): (.*)$")


class Buffer(NamedTuple):
    """A piece of memory.

    Args:
      kind: input, output or temporary.
      name: of the largest instruction that writes it; others may share it later.
      shape: of that.
      size: bytes.
    """

    kind: str
    name: str
    shape: str
    size: int


def buffers(lowered: jax.stages.Lowered) -> list[Buffer]:
    """Compiles a program and lists its buffers, the largest first.

    Args:
      lowered: the program.

    Returns:
      The buffers; none where the backend does not report them.
    """
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, str | bool] = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        with no_cache():
            lowered.compile(compiler_options=options)
        reports = list(Path(folder).glob("*buffer-assignment.txt"))
        return parse(reports[0].read_text(encoding="utf-8")) if reports else []


@contextlib.contextmanager
def no_cache() -> Iterator[None]:
    """Compiles anew inside the `with`: what comes out of the persistent cache reports nothing."""
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()


def parse(report: str) -> list[Buffer]:
    r"""Reads a buffer assignment; values that share memory with a larger one are left out.

    >>> report = "allocation 0: size 8, parameter 0:\n value: <1 x @0> (size=8,offset=0): f32[2]"
    >>> parse(report)
    [Buffer(kind='input', name='x', shape='f32[2]', size=8)]
    """
    allocations: list[tuple[str, list[tuple[int, int, str, str]]]] = []
    for line in report.splitlines():
        if line.startswith("Total bytes"):
            break  # what follows lists the same values once more
        if match := _ALLOCATION.match(line):
            allocations.append((_kind(match[2]), []))
        elif (match := _VALUE.match(line)) and allocations:
            shape = re.sub(r"\{[\d,:T()]*\}", "", match[4])
            allocations[-1][1].append((int(match[2]), int(match[3]), match[1], shape))
    found = []
    for kind, values in allocations:
        taken: list[tuple[int, int]] = []
        for size, offset, name, shape in sorted(values, key=lambda value: -value[0]):
            if all(offset + size <= start or end <= offset for start, end in taken):
                taken.append((offset, offset + size))
                found.append(Buffer(kind, name, shape, size))
    return sorted(found, key=lambda buffer: -buffer.size)


def _kind(words: str) -> str:
    if words.startswith("parameter"):
        return "input"
    return "output" if "live-out" in words or words.startswith("output") else "temporary"
