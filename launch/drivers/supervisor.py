"""Looks after a local job, as `python -m launch.drivers.supervisor RECORD < LOCK`.

Starts the processes, writes down how they end, starts them again where that is worth it. SIGTERM is
handed on to all of them, and then nothing is started again.
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

from launch.drivers import local
from launch.jobs import DONE, FINAL, State, worth_another

_LOST = -signal.SIGKILL  # how an attempt ended that nobody saw end
_NOT_FOUND = 127
_POLL = 0.1


class Supervisor:
    """Runs a job to its end.

    Args:
      file: its record, which is kept up to date.
    """

    def __init__(self, file: Path) -> None:
        record = local.read(file)
        if record is None:
            raise SystemExit(f"there is no {file}")
        self._file, self._record = file, record
        self._stopping = False

    def run(self) -> None:
        """Makes attempts until one is the last."""
        signal.signal(signal.SIGTERM, self._stop)
        me = local.Process(os.getpid(), local.born(os.getpid()))
        self._note(supervisor=me, state=State.RUNNING.value)
        record = self._record
        code = None
        if record.attempt:  # an earlier supervisor was killed
            end(record.processes, record.grace)
            code = _LOST
        while code is None or self._goes_on(code):
            self._note(attempt=self._record.attempt + 1, processes=())
            code = self._attempt()
        self._note(
            state=(State.DONE if code == DONE else State.FAILED).value,
            exit_code=code,
            reason=self._reason(code),
        )

    def _goes_on(self, code: int) -> bool:
        return not self._stopping and worth_another(
            code, self._record.attempt, self._record.retries
        )

    def _reason(self, code: int) -> str:
        if code == DONE:
            return ""
        if self._stopping:
            return "it was asked to stop"
        ended = f"ended with {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
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
        return next((code for code in failures if code in FINAL), (failures or [DONE])[0])

    def _ended(self, running: dict[int, subprocess.Popen[bytes]]) -> Iterator[tuple[int, int]]:
        for number, process in list(running.items()):
            code = process.poll()
            if code is not None:
                kill_group(process.pid)  # what it started and did not end
                del running[number]
                yield number, code

    def _environments(self) -> Iterator[tuple[int, dict[str, str]]]:
        hosts = len(self._record.environments)
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        for number, environment in enumerate(self._record.environments):
            together = {
                "RECATTN_COORDINATOR": f"localhost:{port}",
                "RECATTN_PROCESSES": str(hosts),
                "RECATTN_PROCESS": str(number),
            }
            yield number, {**os.environ, **environment, **(together if hosts > 1 else {})}

    def _launch(self, number: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        argv, when = self._record.argv, time.strftime("%Y-%m-%d %H:%M:%S")
        with (self._file.parent / f"process-{number}.log").open("a", encoding="utf-8") as log:
            log.write(f"== attempt {self._record.attempt}, {when}: {shlex.join(argv)}\n")
            log.flush()
            return subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _note(self, **changes: Any) -> None:
        self._record = dataclasses.replace(self._record, **changes)
        self._record.write(self._file)


def end(processes: tuple[local.Process, ...], grace: float) -> None:
    """Ends processes that nobody looks after: they are asked to save, and after a time killed."""
    for process in processes:
        if process.alive:
            os.kill(process.pid, signal.SIGTERM)
    kill_at = time.monotonic() + grace
    while any(process.alive for process in processes):
        if time.monotonic() >= kill_at:
            for process in processes:
                if process.alive:
                    kill_group(process.pid)
        time.sleep(_POLL)


def kill_group(leader: int) -> None:
    """Kills a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):  # nobody is left
        os.killpg(leader, signal.SIGKILL)


def main(file: Path) -> None:
    """Goes to the background, holding the lock, and looks after the job."""
    fcntl.flock(sys.stdin.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    supervisor = Supervisor(file)
    if os.fork():
        os._exit(0)
    os.setsid()
    supervisor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
