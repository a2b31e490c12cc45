"""Real processes that train the experiment of the faults, and what is left when they have ended."""

import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from recattn_jax.training.metrics import read_records

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = Path(__file__).with_name("experiment.py")
PATIENCE = 300.0
"""Seconds after which a process is said to hang: many, as a machine may be busy."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (or minus the signal), and all that it printed."""

    code: int
    text: str

    def lines(self, *words: str) -> list[str]:
        return [line for line in self.text.splitlines() if any(w in line for w in words)]


class Hangs(Exception):
    """A process did not end, and was killed."""


def environment(cache: Path) -> dict[str, str]:
    """Of the processes: they share what they compiled, with the compiler that a user has."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
    }


def words(workdir: Path, point: str | None = None, n: int = 0) -> list[str]:
    """Of `tests.faults.broken`."""
    broken = [point, str(n)] if point else []
    return [*broken, "--", f"--config={EXPERIMENT}", f"--workdir={workdir}"]


class Fresh:
    """A process of its own, as a person would start it."""

    def __init__(self, cache: Path, arguments: list[str], output: Path):
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.broken", *arguments],
                cwd=output.parent,
                env=environment(cache),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def said(self) -> str:
        return self._output.read_text(errors="replace")

    def kill(self, number: int = signal.SIGKILL) -> None:
        self._process.send_signal(number)

    def wait(self) -> Ended:
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise Hangs(self.said()) from None
        return Ended(code, self.said())


class Nursery:
    """Starts processes without their imports, one at a time; see `tests.faults.nursery`."""

    def __init__(self, cache: Path):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=ROOT,
            env=environment(cache),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.running: int | None = None  # not reaped, so its id is nobody else's

    def start(self, arguments: list[str], output: Path) -> "Forked":
        output.write_bytes(b"")
        self.tell(json.dumps([arguments, str(output)]))
        self.running = int(self.hear())
        return Forked(self, self.running, output)

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode().strip()
        assert line, "the nursery is dead"
        return line

    def silent(self, seconds: float) -> bool:
        return not select.select([self._process.stdout], [], [], seconds)[0]

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        if self.running is not None:
            os.kill(self.running, signal.SIGKILL)
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Forked:
    """A child of a nursery."""

    def __init__(self, nursery: Nursery, pid: int, output: Path):
        self._nursery, self.pid, self._output = nursery, pid, output

    @property
    def alive(self) -> bool:
        return self._nursery.silent(0.0)

    def said(self) -> str:
        return self._output.read_text(errors="replace")

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)  # which is nobody else's before it is reaped

    def wait(self) -> Ended:
        hangs = self._nursery.silent(PATIENCE)
        if hangs:
            self.kill()
        assert self._nursery.hear() == "ended"
        self._nursery.tell("")
        self._nursery.running = None
        code = int(self._nursery.hear())
        if hangs:
            raise Hangs(self.said())
        return Ended(code, self.said())


def killed_after(process: Fresh | Forked, begun: Callable[[], bool], seconds: float) -> Ended:
    """Kills a process so many seconds after something has begun, unless it ends before."""
    deadline = time.monotonic() + PATIENCE
    while process.alive and not begun() and time.monotonic() < deadline:
        time.sleep(0.005)
    moment = time.monotonic() + seconds
    while process.alive and time.monotonic() < moment:
        time.sleep(0.001)
    if process.alive:
        process.kill()
    return process.wait()


def checkpoints(workdir: Path) -> list[int]:
    """Steps that have a whole checkpoint."""
    return sorted(int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit())


def trained(workdir: Path) -> tuple[int, dict[str, int], list[dict[str, Any]]]:
    """What interruptions must not change: the last step, its bits, and all numbers but times."""
    last = checkpoints(workdir)[-1]
    meta = json.loads((workdir / "checkpoints" / str(last) / "meta" / "metadata").read_text())
    records = read_records(workdir / "metrics.jsonl")
    for record in records:
        record.pop("targets_per_second", None)
        record.pop("seconds")
    return last, meta["digest"], records


def leftovers(workdir: Path) -> list[str]:
    """What is half-written."""
    found = [p for p in workdir.rglob("*") if p.name.endswith(".partial") or "-tmp" in p.name]
    return [str(path.relative_to(workdir)) for path in found]
