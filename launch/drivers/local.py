"""Jobs on this machine: as many processes as the job has hosts, looked after by one of their own.

The supervisor (`launch.drivers.supervisor`) outlives whoever started it. As long as it lives it
holds the lock of the job's folder, so that a job runs once however often it is started.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from launch.drivers import gpus, records
from launch.jobs import Action, Job, State, Status
from recattn_jax.errors import StorageError, UserError
from recattn_jax.locks import FileLock

RECORD = "job.json"
STOP = "stop"  # said to a supervisor that is only to end what another has left


@dataclass(frozen=True)
class Process:
    """A process; one that only got its number again was born at another time."""

    pid: int
    born: str | None
    exit_code: int | None = None

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that only waits to be counted does not."""
        return self.born is not None and born(self.pid) == self.born

    def send(self, number: int) -> None:
        """Sends it a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):  # it ended in between
            if self.alive:
                os.kill(self.pid, number)


@dataclass(frozen=True)
class Record:
    """What is kept of a job, as JSON.

    Args:
      argv: of every process.
      directory: where it is started.
      hosts: how many processes there are.
      environment: of each process, besides what the supervisor itself has.
      gpus_each: how many GPUs each process has to itself; 0 leaves it those that there are.
      retries: how many further attempts there are after the first.
      grace: seconds, see `Local`.
      state: a value of `State`.
      attempt: the number of the last one, from 1; 0 before it.
      exit_code: of the last attempt, once the job is over.
      reason: why it waits, or failed.
      supervisor: who looks after it.
      host: the machine that it lives on.
      processes: of the last attempt.
    """

    argv: tuple[str, ...]
    directory: str
    hosts: int
    environment: Mapping[str, str]
    gpus_each: int
    retries: int
    grace: float
    state: str = State.WAITING.value
    attempt: int = 0
    exit_code: int | None = None
    reason: str = ""
    supervisor: Process | None = None
    host: str = ""
    processes: tuple[Process, ...] = ()

    @property
    def status(self) -> Status:
        """The same, for who asks."""
        return Status(State(self.state), self.exit_code, self.reason)

    @property
    def looked_after(self) -> bool:
        """Whether its supervisor lives, as far as can be told: one of another machine may."""
        here = self.host == socket.gethostname()
        return self.supervisor is not None and (self.supervisor.alive or not here)

    def write(self, file: Path) -> None:
        """Replaces what is on disk."""
        records.write(file, asdict(self))


def read(file: Path) -> Record | None:
    """Reads a record; None where there is none."""
    plain = records.read(file, [field.name for field in fields(Record)])
    if plain is None:
        return None
    try:
        supervisor, processes = plain.pop("supervisor"), plain.pop("processes")
        return Record(
            **{**plain, "argv": tuple(plain["argv"])},
            supervisor=supervisor and Process(**supervisor),
            processes=tuple(Process(**process) for process in processes),
        )
    except TypeError as error:
        raise StorageError(f"{file} is no record of a local job: {error}") from error


def born(pid: int) -> str | None:
    """When a process started, as the kernel tells; None where none of this number runs."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name of the program, in parentheses, may hold anything; after it the state comes first
    # (3rd of the fields), and the start is the 22nd, in clock ticks since the machine started.
    words = stat.rpartition(")")[2].split()
    return None if words[0] in "ZX" else f"{boot} {words[19]}"


@dataclass(frozen=True)
class Local:
    """Runs jobs on this machine.

    The accelerator is "any" (the processes see what there is), "cpu", "cpu:K" (K virtual devices
    each), or "gpu:K" (K GPUs for each process, which no other job has; the job waits until as many
    are free). Where there are several processes, each finds RECATTN_COORDINATOR, RECATTN_PROCESSES
    and RECATTN_PROCESS in its environment.

    Args:
      grace: seconds that the other processes have to end by themselves after one failed, and that
        a process has to save after it was asked to stop.

    Example:
      >>> len(Local().plan(Job("a", ("true",), Path("runs"), "cpu:2")))
      2
    """

    grace: float = 60.0

    def plan(self, job: Job) -> Sequence[Action]:
        """See `Driver`."""
        file = records.place(job) / RECORD
        return [
            Action(file=file, text=records.text(asdict(self._record(job)))),
            Action(argv=_supervision(file)),
        ]

    def start(self, job: Job) -> None:
        """See `Driver`.

        Raises:
          UserError: there is no such command, or not as many GPUs.
          StorageError: the job's folder cannot be written.
        """
        fresh = self._record(job)
        if shutil.which(job.argv[0]) is None:
            raise UserError(f"job {job.name}: there is no command {job.argv[0]!r}")
        folder = records.place(job)
        while not self._started(folder, fresh):
            time.sleep(0.05)

    def _started(self, folder: Path, fresh: Record) -> bool:
        with records.locked(folder, wait=False) as lock:
            record = read(folder / RECORD)
            if lock is None:  # a supervisor has it, or for a moment somebody who asks or starts
                if record is None or record.supervisor is None:
                    return False
                # One that has noted the end of a job that failed is about to let go.
                going = record.looked_after and not record.status.over
                return going or record.state == State.DONE.value
            if record is not None and record.state == State.DONE.value:
                return True
            if record is None or record.status.over:
                fresh.write(folder / RECORD)
            _supervise(folder, lock)
            return True

    def status(self, job: Job) -> Status:
        """See `Driver`; where the supervisor was killed, another takes over."""
        folder = records.place(job)
        if not folder.exists():
            return Status(State.UNKNOWN)
        with records.locked(folder, wait=False) as lock:
            record = read(folder / RECORD)
            if record is None:
                return Status(State.UNKNOWN if lock is not None else State.WAITING)
            if lock is None or record.status.over:
                return record.status
            if record.supervisor is None:
                log = folder / "supervisor.log"
                return Status(State.FAILED, None, f"nobody looks after it; see {log}")
            _supervise(folder, lock)
            return record.status

    def stop(self, job: Job) -> None:
        """See `Driver`; returns at once, the job is over when its processes have saved.

        Raises:
          UserError: it runs on another machine.
        """
        folder = records.place(job)
        while folder.exists() and not self._stopped(folder):
            time.sleep(0.05)

    def _stopped(self, folder: Path) -> bool:
        with records.locked(folder, wait=False) as lock:
            record = read(folder / RECORD)
            if lock is not None:
                if record is not None and not record.status.over:  # its supervisor was killed
                    _supervise(folder, lock, STOP)
                return True
            if record is None or record.supervisor is None or not record.looked_after:
                return False  # a moment before it is there, or after it has ended
            if record.host != socket.gethostname():
                raise UserError(f"job {folder.name} runs on {record.host}; stop it from there")
            record.supervisor.send(signal.SIGTERM)
            return True

    def _record(self, job: Job) -> Record:
        variables, each = devices(job)
        if each:
            try:
                gpus.enough({**os.environ, **job.environment}, each * job.hosts)
            except UserError as error:
                raise UserError(f"job {job.name}: {error}") from error
        return Record(
            argv=job.argv,
            directory=str(Path.cwd()),
            hosts=job.hosts,
            environment={**variables, **job.environment},
            gpus_each=each,
            retries=job.retries,
            grace=self.grace,
        )


def devices(job: Job) -> tuple[dict[str, str], int]:
    """What the accelerator means to each process: variables, and how many GPUs of its own.

    Raises:
      UserError: this driver has none of this name.

    Example:
      >>> devices(Job("a", ("true",), Path("runs"), "cpu:4"))
      ({'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '4'}, 0)
    """
    match = re.fullmatch(r"(any|cpu|gpu)(?::([1-9]\d*))?", job.accelerator, re.ASCII)
    if not match or (match[1], match[2] is None) in (("any", False), ("gpu", True)):
        raise UserError(
            f"accelerator {job.accelerator!r}: the local driver knows any, cpu, cpu:K and gpu:K"
        )
    if match[1] == "gpu":
        return {}, int(match[2])
    if match[1] == "any":
        return {}, 0
    return {"JAX_PLATFORMS": "cpu", **({"JAX_NUM_CPU_DEVICES": match[2]} if match[2] else {})}, 0


def _supervision(file: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "launch.drivers.supervisor", str(file))


def _supervise(folder: Path, lock: FileLock, *words: str) -> None:
    # The lock is the supervisor's stdin, so that it has it from its first moment to its last.
    log = folder / "supervisor.log"
    with log.open("a") as output:
        ended = subprocess.run(
            (*_supervision(folder / RECORD), *words),
            stdin=lock.fileno(),
            stdout=output,
            stderr=output,
        )
    if ended.returncode:
        raise StorageError(f"the job's supervisor did not start; {log} says why")
