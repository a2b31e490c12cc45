"""Start-up.

    python -m experiments.benchmarks.startup [--rounds=5] [--only=REGEX] [--record]

Whole processes, in turn: `import flax` and `import recattn_jax.layers`, beside an empty program;
and the default experiment, `python -m launch.train`, from the start of the command to the line of
its first step, which the loop writes once the second is dispatched; then it is killed. Cold
begins with an empty folder for compiled programs (JAX_COMPILATION_CACHE_DIR), warm with one that
an earlier run has filled; JAX keeps programs there that took more than a second. The data are
prepared before.
"""

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiments.benchmarks import plots
from experiments.benchmarks.harness import (
    FOLDER,
    Bench,
    Row,
    Suite,
    Table,
    found,
    main,
    number,
    ratio,
)

CHECKOUT = FOLDER.parents[1]
IMPORTS = {"empty": "pass", "flax": "import flax", "ours": "import recattn_jax.layers"}
FIRST = "step 1/"


def python(*words: str) -> None:
    """Runs an interpreter of its own to its end.

    Raises:
      subprocess.CalledProcessError: it failed.
    """
    subprocess.run([sys.executable, *words], cwd=CHECKOUT, env=environment({}), check=True)


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that finds this checkout and no cache but the given one."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    return kept | {"PYTHONPATH": str(CHECKOUT)} | dict(more)


def first_step(cache: str | None, words: Sequence[str] = ()) -> None:
    """Trains the default experiment until the line of its first step, and kills it.

    Args:
      cache: folder of compiled programs; None is a fresh one, gone afterwards.
      words: more arguments of `launch.train`.

    Raises:
      RuntimeError: it ended without that line.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-u", "-m", "launch.train", f"--workdir={folder}/run"]
        process = subprocess.Popen(
            [*command, "--config.log_every=1", *words],
            cwd=CHECKOUT,
            env=environment({"JAX_COMPILATION_CACHE_DIR": cache or f"{folder}/cache"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        try:
            if not any(line.startswith(FIRST) for line in process.stdout):
                raise RuntimeError("launch.train ended before its first step; try it by itself")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def measured(bench: Bench) -> Iterator[Row]:
    """Rows of imports and of first steps; a process is never called twice in a sample."""
    once = Bench(bench.rounds, least=0.0, say=bench.say)
    programs = {
        name: functools.partial(python, "-c", code)
        for name, code in IMPORTS.items()
        if bench.wants("import", name)
    }
    yield from once.rows({"section": "import"}, programs)
    if bench.wants("first step"):
        words = ("--config.width=16", "--config.length=16") if bench.quick else ()
        with tempfile.TemporaryDirectory() as cache:
            programs = {
                "warm": functools.partial(first_step, cache, words),
                "cold": functools.partial(first_step, None, words),
            }
            yield from once.rows({"section": "first step"}, programs)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Seconds, and the ratio of our import to Flax's."""
    names = {
        "import empty": "an empty program",
        "import flax": "`import flax`",
        "import ours": "`import recattn_jax.layers`",
        "first step cold": "first step of `launch.train`, cold",
        "first step warm": "first step of `launch.train`, warm",
    }
    cells = []
    for key, words in names.items():
        section, _, program = key.rpartition(" ")
        ms = found(rows, section=section, program=program)
        if ms is not None:
            cells.append([words, number(ms / 1e3)])
    ours, flax = (found(rows, section="import", program=name) for name in ("ours", "flax"))
    if ours is not None:
        cells.append(["our import to Flax's", number(ratio(ours, flax))])
    return [Table("Seconds of a process", ["what", "value"], cells)]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Seconds of each."""
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        groups.setdefault(row["section"], {})[row["program"]] = row["ms"] / 1e3
    plots.panels([plots.Bars("Start-up", "seconds", groups)], path)


SUITE = Suite("startup", measured, tables, draw, rounds=5)

if __name__ == "__main__":
    main(SUITE)
