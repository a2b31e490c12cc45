"""What the suites of benchmarks share: programs timed in turn, and results that say where they ran.

A suite is a file with a `SUITE`; run as a command it measures, prints its tables, and with --record
keeps what it found in `results/`, from which `page` makes README.md.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import app, flags

from recattn_jax.analysis.reports import as_markdown
from recattn_jax.training.machine import cores

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "keras")
INSTALL = "pip install -e '.[bench]'"
LEAST_SECONDS = 0.02  # of a sample: shorter ones are mostly noise of the clock and the scheduler

Row = dict[str, Any]
"""One measured thing: labels that say what it was, and numbers."""


Program = Callable[[], Any]
"""Something to time: does it once; what it returns is waited for."""


class Timing(NamedTuple):
    """Milliseconds of one call: the median of all samples, and their quartiles.

    Args:
      ms: the median.
      lower: a quarter of the samples took no longer.
      upper: three quarters of them did not.
      repeats: calls in a sample.
    """

    ms: float
    lower: float
    upper: float
    repeats: int


def measure(
    programs: Mapping[str, Program],
    rounds: int,
    least: float = LEAST_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Times programs in turn, so that a machine whose speed drifts slows them all alike.

    Every round takes one sample of each, and begins with another one than the round before. Before
    its sample a program runs once untimed, since the caches are full of what the others left.

    Args:
      programs: what to time, by name; each is called once before, to compile it.
      rounds: samples of each.
      least: seconds of a sample: a program is called as often as that takes; 0 calls it once, and
        not untimed before.
      clock: tells seconds.

    Returns:
      The timings by name.

    >>> list(measure({"nothing": lambda: None}, rounds=1, least=0.0))
    ['nothing']
    """
    repeats = {name: _calibrate(program, least, clock) for name, program in programs.items()}
    samples: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds):
        for name in rotated(list(programs), turn):
            program = programs[name]
            if least:
                _run(program, 1)
            start = clock()
            _run(program, repeats[name])
            samples[name].append(1e3 * (clock() - start) / repeats[name])
    return {name: timing(values, repeats[name]) for name, values in samples.items()}


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """The names, beginning with another one each turn.

    >>> rotated(["a", "b", "c"], 4)
    ['b', 'c', 'a']
    """
    first = turn % max(len(names), 1)
    return [*names[first:], *names[:first]]


def timing(samples: Sequence[float], repeats: int) -> Timing:
    """Median and quartiles of at least one sample.

    >>> timing([1.0, 5.0, 2.0, 4.0, 3.0], repeats=1)
    Timing(ms=3.0, lower=2.0, upper=4.0, repeats=1)
    """
    if len(samples) == 1:
        return Timing(samples[0], samples[0], samples[0], repeats)
    lower, middle, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(middle, lower, upper, repeats)


def _calibrate(program: Program, least: float, clock: Callable[[], float]) -> int:
    _run(program, 1)  # compiles
    if not least:
        return 1
    start = clock()
    _run(program, 1)
    return max(1, math.ceil(least / max(clock() - start, 1e-9)))


def _run(program: Program, times: int) -> None:
    for _ in range(times):
        jax.block_until_ready(program())


@dataclasses.dataclass
class Bench:
    """How a suite is asked to measure, and where its progress goes.

    Args:
      rounds: samples of each program.
      only: a regular expression; what it is not found in is left out.
      quick: tiny sizes, to see that all of it runs; the numbers mean nothing.
      least: seconds of a sample.
      say: where lines go.
      options: the suite's own numbers by name.
      left_out: what could not be measured, and why.
    """

    rounds: int
    only: str = ""
    quick: bool = False
    least: float = LEAST_SECONDS
    say: Callable[[str], None] = functools.partial(print, flush=True)
    options: Mapping[str, float] = dataclasses.field(default_factory=dict)
    left_out: list[str] = dataclasses.field(default_factory=list)

    def wants(self, *words: object) -> bool:
        """Whether what these words name is asked for."""
        return re.search(self.only, " ".join(map(str, words))) is not None

    def has(self, peer: str) -> bool:
        """Whether a peer is installed; one that is not is noted once."""
        if importlib.util.find_spec(peer) is not None:
            return True
        self.leave_out(f"{peer}: not installed, left out: {INSTALL}")
        return False

    def leave_out(self, line: str) -> None:
        """Notes something that is not measured, once."""
        if line not in self.left_out:
            self.left_out.append(line)
            self.say(line)

    def rows(self, labels: Row, programs: Mapping[str, Program]) -> Iterator[Row]:
        """Times programs in turn: a row each, with the labels and the name as `program`."""
        for name, found in measure(programs, self.rounds, self.least).items():
            where = " ".join(str(value) for value in labels.values())
            self.say(f"{where} {name}: {number(found.ms)} ms")
            yield labels | {"program": name} | found._asdict()


class Table(NamedTuple):
    """A table of a suite; cells are text."""

    title: str
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Suite:
    """A suite of benchmarks.

    Args:
      name: of its file, without the ending.
      measure: yields rows as it finds them.
      tables: what they amount to.
      draw: the figure of them, into a PNG.
      rounds: samples of each program, unless another number is asked for.
      options: numbers of its own, by name of the flag: the default and what it is.
    """

    name: str
    measure: Callable[[Bench], Iterator[Row]]
    tables: Callable[[Sequence[Row]], list[Table]]
    draw: Callable[[Sequence[Row], Path], None]
    rounds: int
    options: Mapping[str, tuple[float, str]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Result:
    """What one run of a suite found, and on what.

    Args:
      suite: its name.
      command: what repeats it.
      environment: see `environment`.
      minutes: how long it took.
      left_out: what could not be measured, and why.
      rows: all that was measured.
    """

    suite: str
    command: str
    environment: Mapping[str, Any]
    minutes: float
    left_out: Sequence[str]
    rows: Sequence[Row]

    def write(self, path: Path) -> None:
        """Saves it as JSON, a row a line."""
        plain = dataclasses.asdict(self)
        rows = ",\n    ".join(json.dumps(row) for row in plain.pop("rows"))
        head = json.dumps(plain, indent=2).removesuffix("\n}")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'{head},\n  "rows": [\n    {rows}\n  ]\n}}\n', encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Loads what `write` saved."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def environment() -> dict[str, Any]:
    """What this process runs on: CPU, device, versions, commit and whether files differ from it."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        if importlib.util.find_spec(name) is not None:
            versions[name] = importlib.metadata.version(name)
    return {
        "cpu": f"{cores()} ({platform.machine()})",
        "device": jax.devices()[0].device_kind,
        "versions": versions,
        **_commit(),
    }


def machine() -> str:
    """One line that says what figures were taken on."""
    found = environment()
    return f"{found['cpu']}, {found['device']}, jax {found['versions']['jax']}"


def _commit() -> dict[str, Any]:
    """The checkout's commit; results that were just recorded do not make it differ."""
    git = shutil.which("git")

    def ask(*words: str) -> str:
        command = [str(git), "-C", str(FOLDER), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    if git is None or not ask("rev-parse", "--is-inside-work-tree"):
        return {"commit": None, "dirty": None}
    recorded = (":(exclude,top)experiments/benchmarks/results", ":(exclude,top)*.md")
    changed = ask("status", "--porcelain", "--untracked-files=no", "--", ":/", *recorded)
    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(changed)}


def run(suite: Suite, bench: Bench, command: str) -> Result:
    """Measures a suite."""
    start = time.monotonic()
    rows = list(suite.measure(bench))
    minutes = round((time.monotonic() - start) / 60, 2)
    return Result(suite.name, command, environment(), minutes, bench.left_out, rows)


def main(suite: Suite) -> None:
    """The command of a suite: its flags, its work, its tables; with --record it is kept."""
    flags.DEFINE_integer("rounds", suite.rounds, "Samples of each program.", lower_bound=1)
    flags.DEFINE_string("only", "", "A regular expression: what it is not found in is left out.")
    flags.DEFINE_bool("quick", False, "Tiny sizes, to see that all of it runs.")
    flags.DEFINE_bool("record", False, "Keep what is found, and draw it, in results/.")
    for name, (default, words) in suite.options.items():
        flags.DEFINE_float(name, default, words)
    app.run(functools.partial(_command, suite))


def _command(suite: Suite, argv: Sequence[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}: every setting is a flag")
    if values.quick and values.record:
        raise app.UsageError("--quick measures nothing that is worth --record; leave one out")
    try:
        re.compile(values.only)
    except re.error as error:
        raise app.UsageError(f"--only={values.only}: no regular expression ({error})") from None
    options = {name: values.get_flag_value(name, 0.0) for name in suite.options}
    bench = Bench(values.rounds, values.only, values.quick, options=options)
    bench.say(machine())
    words = ["python", "-m", f"experiments.benchmarks.{suite.name}", *sys.argv[1:]]
    result = run(suite, bench, shlex.join(words))
    if not result.rows:
        raise app.UsageError(f"--only={values.only}: nothing of this suite has that in its name")
    for table in suite.tables(result.rows):
        print(f"\n{table.title}\n\n{as_markdown(table.cells, table.columns, markup=True)}")
    print(f"\n{result.minutes:.1f} minutes")
    if values.record:
        path = RESULTS / f"{suite.name}.json"
        result.write(path)
        suite.draw(result.rows, path.with_suffix(".png"))
        shown = os.path.relpath(path)
        print(f"recorded in {shown}; now: python -m experiments.benchmarks.page")


def number(value: float | None) -> str:
    """A number with three digits that mean something.

    >>> [number(value) for value in (0.01234, 1.5, 28.3, 1234.5, None)]
    ['0.0123', '1.50', '28.3', '1,234', '-']
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Ours to theirs, less being better; None where one of them is missing.

    >>> ratio(3.0, 2.0), ratio(3.0, None)
    (1.5, None)
    """
    return None if ours is None or not theirs else ours / theirs


def found(rows: Sequence[Row], quantity: str = "ms", **labels: Any) -> float | None:
    """A number of the row that has these labels; None where there is none.

    >>> found([{"program": "torch", "ms": 2.0}], program="torch")
    2.0
    """
    for row in rows:
        if quantity in row and labels.items() <= row.items():
            return float(row[quantity])
    return None


def distinct(rows: Sequence[Row], *labels: str) -> list[tuple[Any, ...]]:
    """The values that some labels have together, each once, in the order of the rows.

    >>> distinct([{"a": 1, "b": 2}, {"a": 1, "b": 2}, {"a": 3, "b": 2}], "a", "b")
    [(1, 2), (3, 2)]
    """
    return list(dict.fromkeys(tuple(row[label] for label in labels) for row in rows))
