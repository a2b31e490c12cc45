"""Input pipeline and host.

    python -m experiments.benchmarks.pipeline [--rounds=15] [--only=REGEX] [--record]

The default experiment of `launch.train`: batches a second that its pipeline prepares, against the
steps a second of its compiled train step. The loop's own work for a step (take a batch, place it,
dispatch, read the numbers of the step before, log) is the time a step of the real training loop
takes on the same data around a step that computes nothing: its model is a number for every array
that the real one has, and its loss their sum. And how many programs the real loop compiles once
its first steps and its first evaluation, with the save that follows, are over: it should be none.
"""

import contextlib
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from experiments import char_lm
from experiments.benchmarks import plots
from experiments.benchmarks.compilations import compiled_by
from experiments.benchmarks.harness import (
    Bench,
    Row,
    Suite,
    Table,
    found,
    main,
    number,
)
from experiments.benchmarks.no_work import without_work
from experiments.benchmarks.train_step import our_step
from recattn_jax.training import RunFolder, fit
from recattn_jax.training.metrics import read_records

FILE = "experiments/char_lm.py"
MANY = 100  # batches taken at a time: some were prepared while something else was timed
STEP_MS = 100.0  # of the step that the host's share is told of


@contextlib.contextmanager
def folder_of(config: ConfigDict) -> Iterator[RunFolder]:
    """A folder for a run, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        yield RunFolder.open(path, config=config.to_dict(), config_file=FILE, argv=[])


def default(quick: bool, **changed: int) -> ConfigDict:
    """The numbers of the default experiment."""
    config = char_lm.get_config()
    if quick:
        config = char_lm.tiny(config)
        config.update(batch=32, length=256)  # or an evaluation takes many batches
    config.update(changed)
    return config


def measured(bench: Bench) -> Iterator[Row]:
    """Rows of the pipeline and the step, of the loop, and of compilations."""
    if bench.wants("batches and steps"):
        made = char_lm.build(default(bench.quick))
        with made.data().train.batches(0) as batches:
            programs = {
                "batch": lambda: [next(batches) for _ in range(MANY)],
                "step": our_step(made, next(batches)).call,
            }
            for row in bench.rows({"section": "batches and steps"}, programs):
                yield row | {"ms": row["ms"] / (MANY if row["program"] == "batch" else 1)}
    if bench.wants("loop"):
        yield loop(bench)
    if bench.wants("compilations"):
        yield recompiled(bench)


def loop(bench: Bench) -> Row:
    """The loop's milliseconds a step around a step without work; the median of its log lines."""
    every, lines = (2, 2) if bench.quick else (100, max(bench.rounds, 2))
    steps = every * (lines + 1)  # the first line has the start in it
    rare = dict(steps=steps, evaluate_every=steps, save_every=steps)
    config = default(bench.quick, log_every=every, **rare)
    made = without_work(char_lm.build(config))
    with folder_of(config) as run:
        fit(made, made.data(), run, say=lambda line: None)
        records = read_records(run.path / "metrics.jsonl")
    targets = float(made.batch["targets"].size)
    speeds = [r["targets_per_second"] for r in records if r["split"] == "train"]
    ms = statistics.median(1e3 * targets / speed for speed in speeds[1:])
    bench.say(f"loop: {number(ms)} ms a step")
    return {"section": "loop", "program": "loop", "ms": ms, "steps": steps}


def recompiled(bench: Bench) -> Row:
    """How many programs are compiled once the loop has stepped, evaluated and saved."""
    rhythm = dict(steps=6, log_every=1, evaluate_every=2, save_every=3)
    config = default(bench.quick, **rhythm)
    made = char_lm.build(config)
    with folder_of(config) as run:
        first, later = compiled_by(made, made.data(), run)
    bench.say(f"compilations: {len(first)}, then {len(later)} {' '.join(later)}")
    labels = {"section": "compilations", "program": "loop"}
    return labels | {"first": len(first), "later": len(later)}


def tables(rows: Sequence[Row]) -> list[Table]:
    """What was found, a line each."""
    batch, step = (found(rows, program=name) for name in ("batch", "step"))
    cells = []
    if batch is not None and step is not None:
        cells += [
            ["batches a second that the pipeline prepares", number(1e3 / batch)],
            ["steps a second that the device computes", number(1e3 / step)],
            ["pipeline to steps, more is better", number(step / batch)],
        ]
    host = found(rows, section="loop")
    if host is not None:
        cells += [
            ["the loop's own milliseconds a step", number(host)],
            [f"of a step of {STEP_MS:.0f} ms", f"{host / STEP_MS:.2%}"],
        ]
    later = found(rows, "later", section="compilations")
    if later is not None:
        words = "programs compiled after the first evaluation and its save"
        cells.append([words, f"{later:.0f}"])
    return [Table("The default experiment", ["what", "value"], cells)]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Milliseconds of a batch, a step and the loop."""
    times = {row["program"]: row["ms"] for row in rows if "ms" in row}
    bars = {name: {"ms": value} for name, value in times.items()}
    plots.panels([plots.Bars("The default experiment", "ms a step", bars)], path)


SUITE = Suite("pipeline", measured, tables, draw, rounds=15)

if __name__ == "__main__":
    main(SUITE)
