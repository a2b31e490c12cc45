"""Endurance.

    python -m experiments.benchmarks.endurance [--rounds=3] [--only=REGEX] [--record]

Whole processes of `launch.train`, watched from outside (Linux only): a small LSTM beside
self-attention with an evaluation and a checkpoint each 50 steps, some runs of it; and once the loop
around a step that computes nothing, for very many steps. Each line of the log is a sample: memory
that belongs to the process alone (RssAnon), open files, threads, what is in the run's folder, and
the time since the line before, as the clock on the wall tells it, and as processors spent it. Other
work on a machine changes the former much and the latter less, so the latter is also told in units
of a yardstick: the same sum of numbers, taken at each sample by the process that watches. Times
hold evaluations and saves.

Trends begin after the first steps, when allocators and caches have what they keep. A trend is the
median of the slopes between all pairs of samples (Theil and Sen), with its interval of 95 %, in
which samples count as independent.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

from experiments.benchmarks import plots
from experiments.benchmarks.harness import Bench, Row, Suite, Table, distinct, main, number
from experiments.benchmarks.startup import CHECKOUT, environment

EVERY = 50  # steps of a run between lines, evaluations and checkpoints
TIMES = ("ms", "cpu_ms", "yards")
MANY = 1000  # steps without work between lines
TEXT = "To be, or not to be: that is the question.\n" * 400
SMALL = "--config.batch=4 --config.length=32 --config.width=16 --config.window=8 --config.keep=2"
LINE = re.compile(r"step (\d+)/\d+ train:")
PROC = Path("/proc")  # where Linux tells of processes
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def yardstick() -> float:
    """CPU milliseconds of a sum that is the same each time: how fast the machine is just now."""
    start = time.thread_time()
    sum(range(200_000))
    return 1e3 * (time.thread_time() - start)


class Trend(NamedTuple):
    """A line through samples.

    Args:
      start: the first step, and the line there.
      end: the last step, and the line there.
      slope: a thousand steps.
      low: of its interval.
      high: of its interval.
      typical: median of the samples.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    slope: float
    low: float
    high: float
    typical: float

    def percent(self, digits: int) -> str:
        """The slope in percent of what is typical, with its interval.

        >>> Trend((0, 1), (1, 1), slope=0.5, low=-1.0, high=2.0, typical=100.0).percent(1)
        '+0.5 [-1.0, +2.0]'
        """
        slope, low, high = (100 * x / self.typical for x in (self.slope, self.low, self.high))
        return f"{slope:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def trend(rows: Sequence[Row], quantity: str) -> Trend:
    """The trend of a quantity over the samples, of which there are two or more.

    >>> rows = [{"step": 1000 * i, "kib": 100.0 + 7 * i} for i in range(9)]
    >>> trend(rows, "kib").slope
    7.0
    """
    steps = [row["step"] for row in rows]
    values = [float(row[quantity]) for row in rows]
    slope, offset, low, high = (float(x) for x in stats.theilslopes(values, steps, alpha=0.95))
    ends = [(step, offset + slope * step) for step in (steps[0], steps[-1])]
    typical = sorted(values)[len(values) // 2]
    return Trend(ends[0], ends[1], 1e3 * slope, 1e3 * low, 1e3 * high, typical)


class Watch:
    """A process that trains, looked at from outside at each line of its log.

    Args:
      process: of `launch.train`.
      run: its folder.
    """

    def __init__(self, process: "subprocess.Popen[Any]", run: Path):
        self.proc = PROC / str(process.pid)
        self.run = run
        self.step, self.wall, self.cpu = 0, time.monotonic(), self._cpu()

    def look(self, step: int) -> Row:
        """What the process has at a step, and the milliseconds a step since the last look."""
        wall, cpu = time.monotonic(), self._cpu()
        status = (self.proc / "status").read_text()
        # Folders of checkpoints vanish meanwhile, which `walk` passes over and `rglob` does not.
        paths = (Path(top) / name for top, _, names in os.walk(self.run) for name in names)
        sizes = [size for size in map(_size, paths) if size is not None]
        taken = step - self.step
        cpu_ms = 1e3 * (cpu - self.cpu) / taken
        found = {
            "step": step,
            "ms": 1e3 * (wall - self.wall) / taken,
            "cpu_ms": cpu_ms,
            "yards": cpu_ms / yardstick(),
            "kib": _number("RssAnon", status),
            "threads": _number("Threads", status),
            "files": len(os.listdir(self.proc / "fd")),
            "disk_kib": sum(sizes) / 1024,
            "disk_files": len(sizes),
        }
        self.step, self.wall, self.cpu = step, wall, cpu
        return found

    def _cpu(self) -> float:
        # The name of the command, in parentheses, may hold spaces.
        fields = (self.proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def _number(name: str, status: str) -> int:
    return int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0])


def _size(path: Path) -> int | None:
    """Bytes of a file; None where it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def command(folder: Path, name: str, config: str, words: Sequence[str]) -> list[str]:
    """What trains a small model on a short text.

    Args:
      folder: for the text, prepared data and the run.
      name: of the run's folder.
      config: the experiment file.
      words: more arguments of `launch.train`.
    """
    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    train = [sys.executable, "-u", "-m", "launch.train", f"--config={config}"]
    where = [f"--workdir={folder / name}", f"--config.data_dir={folder / 'data'}"]
    return [*train, *where, f"--config.text={text}", *SMALL.split(), *words]


def watched(folder: Path, name: str, config: str, words: Sequence[str]) -> Iterator[Row]:
    """Trains in a process of its own, and looks at it at each line of its log.

    Args:
      folder: for the run, its data and compiled programs.
      name: of the run's folder.
      config: the experiment file.
      words: more arguments of `launch.train`.

    Raises:
      RuntimeError: it failed.
    """
    run = folder / name
    log = folder / f"{name}.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command(folder, name, config, words),
            cwd=CHECKOUT,
            env=environment({"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            watch = Watch(process, run)
            for line in process.stdout:
                if match := LINE.match(line):
                    yield watch.look(int(match[1]))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise RuntimeError(f"launch.train ended with {process.returncode}: {log.read_text()}")


def measured(bench: Bench) -> Iterator[Row]:
    """A row for each line of the log of each run."""
    steps = 4 if bench.quick else int(bench.options["steps"])
    every = 2 if bench.quick else EVERY
    many = 40 if bench.quick else int(bench.options["many_steps"])
    rare = 10 if bench.quick else MANY
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for turn in range(1, bench.rounds + 1):
            if bench.wants("training", turn):
                words = rhythm(steps, every, evaluate=every)
                rows = watched(folder, f"run{turn}", "experiments/text.py", words)
                yield from _labelled(bench, {"section": "training", "run": turn}, rows)
        if bench.wants("no work"):
            words = rhythm(many, rare, evaluate=many // 10)
            rows = watched(folder, "no_work", "experiments/benchmarks/no_work.py", words)
            yield from _labelled(bench, {"section": "no work", "run": 1}, rows)


def rhythm(steps: int, log: int, evaluate: int) -> list[str]:
    """Arguments for so many steps, with a line, and an evaluation and a save, each so many."""
    numbers = {"steps": steps, "log_every": log, "evaluate_every": evaluate, "save_every": evaluate}
    return [f"--config.{name}={value}" for name, value in numbers.items()]


def _labelled(bench: Bench, labels: Row, rows: Iterator[Row]) -> Iterator[Row]:
    last: Row = {}
    for last in rows:
        yield labels | {name: round(value, 4) for name, value in last.items()}
    bench.say(f"{' '.join(map(str, labels.values()))}: {number(last['kib'] / 1024)} MiB at the end")


def settled(rows: Sequence[Row]) -> list[Row]:
    """The samples after the first sixth."""
    return [row for row in rows if row["step"] > rows[-1]["step"] / 6]


def runs_of(rows: Sequence[Row], section: str) -> dict[int, list[Row]]:
    """The samples of each run of a section."""
    some = [row for row in rows if row["section"] == section]
    return {run: [row for row in some if row["run"] == run] for (run,) in distinct(some, "run")}


def tables(rows: Sequence[Row]) -> list[Table]:
    """Trends of each run, what it holds open and on disk, and the many steps without work."""
    made = []
    for section, words in (("training", "Training"), ("no work", "Steps without work")):
        runs = runs_of(rows, section)
        if not runs:
            continue
        steps = next(iter(runs.values()))[-1]["step"]
        title = f"{words}: trends from step {steps // 6:,} to {steps:,}"
        made.append(Table(title, TRENDS, [trends(run, some) for run, some in runs.items()]))
        title = f"{words}: what is held, {KEPT}"
        made.append(Table(title, HELD, [held(run, some) for run, some in runs.items()]))
    return made


TRENDS = (
    "run", "MiB", "KiB a 1,000 steps", "% of all", "ms a step", "% a 1,000 steps",
    "CPU ms a step", "% a 1,000 steps", "yardsticks a step", "% a 1,000 steps",
    "last tenth to first in ms, CPU ms and yardsticks",
)  # fmt: skip
KEPT = "first / most / last of the samples after the first sixth"
HELD = ("run", "threads", "open files", "files on disk", "KiB on disk")


def trends(run: int, rows: Sequence[Row]) -> list[str]:
    """A line of the first table."""
    some = settled(rows)
    memory = trend(some, "kib")
    slopes = f"{memory.slope:+.1f} [{memory.low:+.1f}, {memory.high:+.1f}]"
    cells = [str(run), number(memory.typical / 1024), slopes, memory.percent(4)]
    for quantity in TIMES:
        time_of = trend(some, quantity)
        cells += [number(time_of.typical), time_of.percent(2)]
    tenth = max(len(some) // 10, 1)
    first, last = some[:tenth], some[-tenth:]
    totals = [[sum(row[quantity] for row in part) for part in (last, first)] for quantity in TIMES]
    return [*cells, " / ".join(number(ended / began) for ended, began in totals)]


def held(run: int, rows: Sequence[Row]) -> list[str]:
    """A line of the second table."""
    some = settled(rows)

    def over(quantity: str) -> str:
        values = [row[quantity] for row in some]
        return " / ".join(f"{value:,.0f}" for value in (values[0], max(values), values[-1]))

    return [str(run), *map(over, ("threads", "files", "disk_files", "disk_kib"))]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Memory and times over the steps, a line a run, and their trends."""
    panels = []
    for section in ("training", "no work"):
        runs = runs_of(rows, section)
        for quantity, scale, words in (
            ("kib", 1 / 1024, "MiB"), ("ms", 1, "ms a step"), ("yards", 1, "yardsticks a step"),
        ):  # fmt: skip
            lines: dict[str, Any] = {}
            found: dict[str, Any] = {}
            for run, some in runs.items():
                ends = trend(settled(some), quantity)
                lines[f"run {run}"] = [(row["step"], scale * row[quantity]) for row in some[1:]]
                found[f"run {run}"] = [(step, scale * y) for step, y in (ends.start, ends.end)]
            if lines:
                panels.append(plots.Course(f"{section}: {words}", words, lines, found))
    plots.panels(panels, path, columns=3)


SUITE = Suite(
    "endurance",
    measured,
    tables,
    draw,
    rounds=3,
    options={
        "steps": (6000, "Steps of each run; trends begin after a sixth of them."),
        "many_steps": (100_000, "Steps without work."),
    },
)

if __name__ == "__main__":
    main(SUITE)
