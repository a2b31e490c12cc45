"""Determinism.

    python -m experiments.benchmarks.determinism [--only=REGEX] [--record]

A small LSTM beside self-attention, trained by processes of `launch.train` that differ in one thing
only, against the first of them, or against another that is named: whether every bit of the last
state is the same (parameters, optimizer, counters), as the digests in its checkpoint say, and the
largest difference of a parameter, relative to the largest of its array, and of a loss on the way,
relative to it. 0 is none at all. Another version of JAX is not among the things that were tried.
"""

import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from experiments.benchmarks import plots
from experiments.benchmarks.endurance import LINE, command
from experiments.benchmarks.harness import Bench, Row, Suite, Table, main, number
from experiments.benchmarks.startup import CHECKOUT, environment
from recattn_jax.training import load_run
from recattn_jax.training.metrics import read_records

FILE = "experiments/text.py"
FIRST = "first"
PARTS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to train.

    Args:
      words: what differs.
      than: the variant that it is compared with.
      arguments: more of `launch.train`.
      env: more of the environment.
      cores: how many cores, of two or fewer.
      cache: whether programs that others have compiled are used.
      killed: whether it is killed half-way, and started again.
    """

    words: str
    than: str = FIRST
    arguments: Sequence[str] = ()
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cores: int = 2
    cache: bool = True
    killed: bool = False


def devices(count: int) -> dict[str, str]:
    """The environment of a process that has so many CPU devices."""
    return {"JAX_NUM_CPU_DEVICES": str(count)}


def xla(flags: str) -> dict[str, str]:
    """The environment of a process with these flags of XLA."""
    return {"XLA_FLAGS": flags}


SINGLE = "--xla_cpu_multi_thread_eigen=false"
FSDP = ("--config.mesh=fsdp:8",)
VARIANTS = {
    FIRST: Variant("one device, two cores"),
    "again": Variant("a new process"),
    "killed": Variant("killed half-way, and started again", killed=True),
    "cold": Variant("all programs compiled again", cache=False),
    "core": Variant("one core", cores=1),
    "core cold": Variant(
        "one core, all programs compiled again", than="core", cores=1, cache=False
    ),
    "core nproc": Variant("one core, `NPROC=2`", cores=1, env={"NPROC": "2"}),
    "eigen": Variant(f"`{SINGLE}`", env=xla(SINGLE)),
    "eigen core": Variant(f"one core, `{SINGLE}`", than="eigen", cores=1, env=xla(SINGLE)),
    "passes": Variant("fewer passes of the compiler", env=xla(PARTS)),
    "accumulate": Variant("`accumulate=2`", arguments=("--config.accumulate=2",)),
    "2": Variant("2 devices, `data:2`", env=devices(2)),
    "8": Variant("8 devices, `data:8`", env=devices(8)),
    "8 again": Variant("8 devices in a new process", than="8", env=devices(8)),
    "fsdp": Variant("8 devices, `fsdp:8`", env=devices(8), arguments=FSDP),
    "fsdp again": Variant(
        "8 devices, `fsdp:8`, in a new process", than="fsdp", env=devices(8), arguments=FSDP
    ),
    "seed": Variant("another seed", arguments=("--config.seed=1",)),
}


def train(folder: Path, name: str, variant: Variant, steps: int) -> Path:
    """Trains a variant.

    Args:
      folder: for all runs.
      name: of the run.
      variant: how.
      steps: how many.

    Returns:
      The run's folder.

    Raises:
      RuntimeError: it failed.
    """
    half = steps // 2
    rhythm = {"steps": steps, "log_every": 1, "evaluate_every": half, "save_every": half}
    words = ["--config.batch=8", *(f"--config.{key}={value}" for key, value in rhythm.items())]
    words += variant.arguments
    cache = folder / ("cache" if variant.cache else f"cache of {name}")
    env = environment({"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"} | dict(variant.env))
    env |= {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    cores = sorted(os.sched_getaffinity(0))[: variant.cores]
    line = command(folder, name, FILE, words)
    if variant.killed:
        _ended(line, env, cores, kill=half + 2)
    code, errors = _ended(line, env, cores)
    if code:
        raise RuntimeError(f"{variant.words}: launch.train ended with {code}: {errors}")
    return folder / name


def _ended(
    line: Sequence[str], env: Mapping[str, str], cores: Sequence[int], kill: int | None = None
) -> tuple[int, str]:
    """Exit code and errors of a process, which may be killed at the line of a step."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # which a child inherits from its start
    try:
        process = subprocess.Popen(
            line, cwd=CHECKOUT, env=dict(env), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    finally:
        os.sched_setaffinity(0, before)
    with process:
        assert process.stdout is not None and process.stderr is not None
        for text in process.stdout:
            match = LINE.match(text)
            if match and int(match[1]) == kill:
                process.kill()
        errors = process.stderr.read()
    return process.returncode, errors


def digests(run: Path) -> dict[str, int]:
    """The digest of each array of the last state."""
    last = max((int(path.name) for path in (run / "checkpoints").iterdir()), default=0)
    meta = json.loads((run / "checkpoints" / str(last) / "meta" / "metadata").read_text())
    found: dict[str, int] = meta["digest"]
    return found


def losses(run: Path) -> np.ndarray:
    """The loss of each step."""
    records = read_records(run / "metrics.jsonl")
    return np.array([record["loss"] for record in records if record["split"] == "train"])


def difference(run: Path, other: Path) -> Row:
    """Whether two runs have the same bits, and how far their numbers are apart."""
    pairs = zip(
        *(jax.tree.leaves(load_run(one, "last").params) for one in (run, other)), strict=True
    )
    apart = [
        float(np.max(np.abs(np.asarray(a) - np.asarray(b))) / max(float(np.max(np.abs(b))), 1e-30))
        for a, b in pairs
    ]
    ours, theirs = losses(run), losses(other)
    return {
        "same": digests(run) == digests(other) and bool(np.array_equal(ours, theirs)),
        "parameters": max(apart),
        "losses": float(np.max(np.abs(ours - theirs) / np.abs(theirs))),
    }


def measured(bench: Bench) -> Iterator[Row]:
    """A row for each variant but the first."""
    steps = 4 if bench.quick else int(bench.options["steps"])
    runs: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as folder:

        def run(name: str) -> Path:
            if name not in runs:
                runs[name] = train(Path(folder), name, VARIANTS[name], steps)
            return runs[name]

        for name, variant in VARIANTS.items():
            if name != FIRST and bench.wants(name, variant.words):
                found = difference(run(name), run(variant.than))
                bench.say(f"{variant.words}: {found}")
                yield {"variant": name, "than": variant.than, "steps": steps} | found


def tables(rows: Sequence[Row]) -> list[Table]:
    """What each variant changes."""
    cells = [
        [
            VARIANTS[row["variant"]].words,
            VARIANTS[row["than"]].words,
            "the same" if row["same"] else "others",
            number(row["parameters"]) if row["parameters"] else "0",
            number(row["losses"]) if row["losses"] else "0",
        ]
        for row in rows
    ]
    title = f"After {rows[0]['steps']} steps"
    columns = ["what differs", "from", "bits", "parameters, at most", "losses, at most"]
    return [Table(title, columns, cells)]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Differences of those that have some."""
    groups = {
        row["variant"]: {name: row[name] for name in ("parameters", "losses")}
        for row in rows
        if row["parameters"] and row["losses"]
    }
    plots.panels([plots.Bars("Relative differences, at most", "ratio", groups)], path)


SUITE = Suite(
    "determinism",
    measured,
    tables,
    draw,
    rounds=1,
    options={"steps": (100, "Steps of each run.")},
)

if __name__ == "__main__":
    main(SUITE)
