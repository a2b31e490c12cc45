"""Looks after a local job, as `python -m launch.drivers.supervisor RECORD [stop] < LOCK`.

Starts the processes, writes down how they end, starts them again where that is worth it. SIGTERM is
handed on to all of them, and then nothing is started again; with `stop`, nothing from the start.
"""

import contextlib
import dataclasses
import fcntl
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch.drivers import gpus, local
from launch.jobs import DONE, State, cause, worth_another
from recattn_jax.errors import RunError
from recattn_jax.locks import FileLock

_LOST = -signal.SIGKILL  # how an attempt ended that nobody saw end
_NOT_FOUND = 127
_POLL = 0.1
_LOOK = 0.5  # from one look for free GPUs to the next
_WHEN = "%Y-%m-%d %H:%M:%S"


class Supervisor:
    """Runs a job to its end.

    Args:
      file: its record, which is kept up to date.
      stopping: whether it is only to end what another has left.
    """

    def __init__(self, file: Path, stopping: bool) -> None:
        record = local.read(file)
        if record is None:
            raise SystemExit(f"there is no {file}")
        self._file, self._record = file, record
        self._stopping = stopping
        self._gpus: dict[str, FileLock] = {}
        self._problem = ""

    def run(self) -> None:
        """Makes attempts until one is the last."""
        signal.signal(signal.SIGTERM, self._stop)
        me = local.Process(os.getpid(), local.born(os.getpid()))
        self._note(supervisor=me, host=socket.gethostname())
        record = self._record
        code = None
        if record.attempt:  # an earlier supervisor was killed
            end(record.processes, record.grace)
            code = _LOST
        while (code is None or self._goes_on(code)) and self._has_gpus():
            state, attempt = State.RUNNING.value, self._record.attempt + 1
            self._note(state=state, reason="", attempt=attempt, processes=())
            code = self._attempt()
        state = (State.DONE if code == DONE else State.FAILED).value
        self._note(state=state, exit_code=code, reason=self._reason(code))

    def _has_gpus(self) -> bool:
        """Waits until the GPUs that the job asks for are its own; False if it never gets them."""
        needed = self._record.gpus_each * self._record.hosts
        try:
            if needed and not self._gpus:
                self._wait_for_gpus(needed)
        except RunError as error:
            self._problem = str(error)
        return not (self._stopping or self._problem)

    def _wait_for_gpus(self, needed: int) -> None:
        seen = gpus.enough({**os.environ, **self._record.environment}, needed)
        waiting = f"waits for {needed} of the GPUs {', '.join(seen)}, which other jobs have"
        while not self._stopping:
            taken = gpus.take(seen, needed)
            if taken is not None:
                self._gpus = taken
                return
            if self._record.reason != waiting:
                print(f"{time.strftime(_WHEN)}: {waiting}", file=sys.stderr, flush=True)
                self._note(state=State.WAITING.value, reason=waiting)
            time.sleep(_LOOK)

    def _goes_on(self, code: int) -> bool:
        return not self._stopping and worth_another(
            code, self._record.attempt, self._record.retries
        )

    def _reason(self, code: int | None) -> str:
        if code == DONE:
            return ""
        if self._problem:
            return self._problem
        if code is None or self._stopping:
            return "it was asked to stop"
        ended = f"ended with {code}" if code >= 0 else f"was ended by signal {-code}"
        return f"attempt {self._record.attempt} {ended}; see {self._file.parent}/process-*.log"

    def _attempt(self) -> int:
        """Runs all processes to their end; returns the exit code of the one that decides."""
        running: dict[int, subprocess.Popen[bytes]] = {}
        failures: list[int] = []
        try:
            for number, environment in self._environments():
                running[number] = self._launch(number, environment)
        except OSError as error:
            print(error, file=sys.stderr, flush=True)
            failures.append(_NOT_FOUND)
        self._note(
            processes=tuple(local.Process(p.pid, local.born(p.pid)) for p in running.values())
        )
        ask_at = kill_at = math.inf
        while running:
            for number, code in self._ended(running):
                if code != DONE:
                    failures.append(code)
                processes = list(self._record.processes)
                processes[number] = dataclasses.replace(processes[number], exit_code=code)
                self._note(processes=tuple(processes))
            now = time.monotonic()
            if failures and ask_at == math.inf:
                ask_at = now + self._record.grace
            if self._stopping:
                ask_at = min(ask_at, now)
            if now >= ask_at and kill_at == math.inf:
                kill_at = now + self._record.grace
                for process in running.values():
                    process.send_signal(signal.SIGTERM)
            if now >= kill_at:
                for process in running.values():
                    kill_group(process.pid)
            time.sleep(_POLL)
        return cause(failures or [DONE])

    def _ended(self, running: dict[int, subprocess.Popen[bytes]]) -> Iterator[tuple[int, int]]:
        for number, process in list(running.items()):
            code = process.poll()
            if code is not None:
                kill_group(process.pid)  # what it started and did not end
                del running[number]
                yield number, code

    def _environments(self) -> Iterator[tuple[int, dict[str, str]]]:
        hosts, each, names = self._record.hosts, self._record.gpus_each, list(self._gpus)
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        for number in range(hosts):
            together = {
                "RECATTN_COORDINATOR": f"localhost:{port}",
                "RECATTN_PROCESSES": str(hosts),
                "RECATTN_PROCESS": str(number),
            }
            own = {gpus.VISIBLE: ",".join(names[number * each : (number + 1) * each])}
            more = {**(together if hosts > 1 else {}), **(own if each else {})}
            yield number, {**os.environ, **self._record.environment, **more}

    def _launch(self, number: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        argv, when = self._record.argv, time.strftime(_WHEN)
        with (self._file.parent / f"process-{number}.log").open("a", encoding="utf-8") as log:
            log.write(f"== attempt {self._record.attempt}, {when}: {shlex.join(argv)}\n")
            log.flush()
            return subprocess.Popen(
                argv,
                cwd=self._record.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Who uses a GPU has its lock, also when the supervisor is killed.
                pass_fds=[lock.fileno() for lock in self._gpus.values()],
            )

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _note(self, **changes: Any) -> None:
        self._record = dataclasses.replace(self._record, **changes)
        self._record.write(self._file)


def end(processes: tuple[local.Process, ...], grace: float) -> None:
    """Ends processes that nobody looks after: they are asked to save, and after a time killed."""
    left = [process for process in processes if process.alive]
    for process in left:
        process.send(signal.SIGTERM)
    kill_at = time.monotonic() + grace
    while left:
        for process in left:
            if not process.alive or time.monotonic() >= kill_at:
                kill_group(process.pid)  # with what it started
        left = [process for process in left if process.alive]
        time.sleep(_POLL)


def kill_group(leader: int) -> None:
    """Kills a process and all that it started."""
    # Nobody is left, or only who was given the number since.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def main(file: Path, words: list[str]) -> None:
    """Goes to the background, holding the lock, and looks after the job."""
    fcntl.flock(sys.stdin.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    supervisor = Supervisor(file, local.STOP in words)
    if os.fork():
        os._exit(0)
    os.setsid()
    supervisor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
