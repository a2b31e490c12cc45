"""Runs the trials of a study as jobs of a driver, and may be killed at any moment.

What is known is in the study; a process that looks after trials only holds their locks. So when it
ends, another one (the same command, started again) finds the running trials unlocked, asks the
driver for the status of their jobs, and goes on looking after them.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from optuna.trial import FrozenTrial, TrialState

from launch.jobs import FINAL, Driver, Job, State, Status
from launch.study import Study
from recattn_jax import untrusted
from recattn_jax.analysis.sweeps import Trial
from recattn_jax.errors import Interrupted, RunError, StorageError
from recattn_jax.locks import FileLock
from recattn_jax.training.metrics import read_records

PRUNED, INTERRUPTED = "pruned", "interrupted"  # why the job of a trial was asked to stop
_HOPELESS = 5  # trials that fail in a row, and no more are started


class TrialsFailed(RunError):
    """Trial after trial fails; the exit code is that of the last one's job, where it is ours."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Plan:
    """How the trials of a sweep are run.

    Args:
      config_file: the experiment file.
      overrides: of the keys that all trials share.
      headline: the metric of the validation split that is compared.
      trials: how many must finish; pruned ones count, failed ones do not.
      workers: how many this process runs at once.
      poll: seconds between two looks at the jobs.
      python: the interpreter where the jobs run.
      make_job: from a name, a command and a folder to a job, which asks for what trials need.
    """

    config_file: str
    overrides: Sequence[str]
    headline: str
    trials: int
    workers: int
    poll: float
    python: str
    make_job: Callable[[str, tuple[str, ...], Path], Job]

    def command(self, arguments: Sequence[str], workdir: Path) -> tuple[str, ...]:
        """What trains with these overrides, after the name of the interpreter."""
        return (
            *("-m", "launch.train", f"--config={self.config_file}"),
            *self.overrides,
            *arguments,
            f"--workdir={workdir}",
        )

    def job(self, folder: Path, name: str, arguments: Sequence[str], run: str) -> Job:
        """The job of a trial.

        Args:
          folder: of the sweep.
          name: of the job.
          arguments: what the trial changes.
          run: name of the run's folder in `folder`.
        """
        argv = (self.python, *self.command(arguments, folder.absolute() / run))
        return self.make_job(name, argv, folder)


class Sweep:
    """One process at work on a study.

    Args:
      study: the trials.
      driver: runs them.
      plan: how.
      show: is given all trials after each look at them.
      say: is given a line for a person.
    """

    def __init__(
        self,
        study: Study,
        driver: Driver,
        plan: Plan,
        show: Callable[[list[Trial]], None],
        say: Callable[[str], None],
    ):
        self._study, self._driver, self._plan = study, driver, plan
        self._show, self._say = show, say
        self._locks: dict[int, FileLock] = {}  # of the trials that this process looks after
        self._stopped: set[int] = set()  # trials whose job this process has asked to stop
        self._failures = 0  # in a row

    def run(self) -> None:
        """Goes on until as many trials as planned have finished, or there is nothing new to try.

        Raises:
          Interrupted: someone asked to stop; the jobs have saved and stopped.
          TrialsFailed: too many failed in a row; the other jobs have saved and stopped.
        """
        with asked_to_stop() as asked:
            try:
                while self.step():
                    if asked:
                        self._say(
                            f"{asked[0]}: waiting for {len(self._locks)} jobs to save and stop;"
                            " Ctrl-C leaves them"
                        )
                        self.leave()
                        raise Interrupted(
                            f"stopped by {asked[0]}, the trials are in {self._study.folder};"
                            " the same command goes on"
                        )
                    pause(self._plan.poll, asked)
            except TrialsFailed:
                self.leave()
                raise
            finally:
                self.close()

    def step(self) -> bool:
        """Looks at everything once, and starts what there is room for.

        Returns:
          Whether there is more to do, here or in another process.

        Raises:
          TrialsFailed: too many failed in a row.
        """
        for trial in self._running():
            if trial.number not in self._locks and len(self._locks) < self._plan.workers:
                lock = self._study.adopt(trial.number)
                if lock is not None:
                    self._locks[trial.number] = lock
        for number in list(self._locks):
            self._look(self._study.trial(number))
        nothing_new = False
        while len(self._locks) < self._plan.workers and not nothing_new:
            found = self._study.ask(self._plan.trials)
            nothing_new = found is None
            if found is not None:
                trial, self._locks[trial.number] = found
                self._driver.start(self._job(trial))
        self._show(self._study.summaries())
        return not nothing_new or bool(self._running())

    def leave(self) -> None:
        """Asks the jobs of this process to save and stop, and waits until they have."""
        for number in self._locks:
            trial = self._study.trial(number)
            self._stop(trial, trial.user_attrs.get("stopped") or INTERRUPTED)
        while self._locks:
            for number in list(self._locks):
                trial = self._study.trial(number)
                status = self._driver.status(self._job(trial))
                if not status.over and status.state != State.UNKNOWN:
                    continue
                if status.state == State.DONE or trial.user_attrs["stopped"] == PRUNED:
                    self._look(trial)
                else:
                    self._let_go(number)
            self._show(self._study.summaries())
            if self._locks:
                time.sleep(self._plan.poll)

    def close(self) -> None:
        """Lets go of all trials, which go on running; so does the end of the process."""
        for number in list(self._locks):
            self._let_go(number)

    def _running(self) -> list[FrozenTrial]:
        return [trial for trial in self._study.trials() if trial.state == TrialState.RUNNING]

    def _job(self, trial: FrozenTrial) -> Job:
        words = trial.user_attrs
        return self._plan.job(self._study.folder, words["job"], words["arguments"], words["run"])

    def _let_go(self, number: int) -> None:
        self._stopped.discard(number)
        self._locks.pop(number).release()

    def _look(self, trial: FrozenTrial) -> None:
        """Asks how the job is and only then reads what it wrote: one that is done wrote it all."""
        job, stopped = self._job(trial), trial.user_attrs.get("stopped")
        status = self._driver.status(job)
        try:
            seen = evaluations(self._study.folder / trial.user_attrs["run"], self._plan.headline)
        except StorageError as error:
            seen = {}
            if status.state == State.DONE:
                status = Status(State.FAILED, reason=str(error))
        worse = self._report(trial, seen)
        if status.state == State.DONE:
            self._done(trial, seen)
        elif stopped == PRUNED:
            if status.over or status.state == State.UNKNOWN:
                self._study.prune(trial.number)
                self._let_go(trial.number)
            else:
                self._stop(trial, PRUNED)
        elif status.state == State.UNKNOWN or (status.over and stopped == INTERRUPTED):
            self._driver.start(job)
            # Whoever looked after the stopped job may not have gone yet, and then nothing started.
            if stopped == INTERRUPTED and not self._driver.status(job).over:
                self._study.note(trial.number, "stopped", None)
        elif status.over:
            self._failed(trial, status)
        elif worse:
            self._stop(trial, PRUNED)

    def _stop(self, trial: FrozenTrial, why: str) -> None:
        """Writes down why before the job is asked, so that whoever is next knows; asks once."""
        if trial.number not in self._stopped:
            self._study.note(trial.number, "stopped", why)
            self._driver.stop(self._job(trial))
            self._stopped.add(trial.number)

    def _report(self, trial: FrozenTrial, seen: dict[int, float]) -> bool:
        """Passes on what is new; whether the pruner gives the trial up."""
        new = [step for step in sorted(seen) if step not in trial.intermediate_values]
        verdicts = [self._study.report(trial.number, step, seen[step]) for step in new]
        return any(verdicts)

    def _done(self, trial: FrozenTrial, seen: dict[int, float]) -> None:
        if not seen:
            reason = f"no finite {self._plan.headline} of the validation split"
            self._failed(trial, Status(State.FAILED, reason=reason))
            return
        self._failures = 0
        best = max if self._study.maximise else min
        self._study.finish(trial.number, best(seen.values()))
        self._let_go(trial.number)

    def _failed(self, trial: FrozenTrial, status: Status) -> None:
        code = "" if status.exit_code is None else f"exit code {status.exit_code}: "
        words = (last_words(self._study.folder / trial.user_attrs["run"]), status.reason)
        reason = code + ("; ".join(filter(None, words)) or "no reason is known")
        self._study.fail(trial.number, reason)
        self._let_go(trial.number)
        self._failures += 1
        if self._failures >= min(_HOPELESS, self._plan.trials):
            last = f"trial {trial.number}"
            if self._failures > 1:
                last = f"{self._failures} trials in a row failed, the last one, {last},"
            else:
                last += " failed"
            raise TrialsFailed(
                f"{last} with {reason}; the same command goes on with what was not tried yet,"
                " another --folder begins anew",
                status.exit_code if status.exit_code in FINAL and status.exit_code else 1,
            )


def evaluations(run: Path, headline: str) -> dict[int, float]:
    """The finite headlines of the validation split by step; none where nothing is written yet.

    Args:
      run: the run's folder.
      headline: name of the metric.

    Raises:
      StorageError: a line is no JSON.
    """
    records = [r for r in read_records(run / "metrics.jsonl") if r["split"] == "validation"]
    return {
        record["step"]: float(record[headline])
        for record in records
        if headline in record and math.isfinite(record[headline])
    }


def last_words(run: Path) -> str:
    """What a run that failed says of it; nothing where it did not come to that.

    Args:
      run: the run's folder.
    """
    try:
        ended = untrusted.one_line(str(untrusted.read_object(run / "run.json")["ended"]), most=400)
    except (untrusted.Unreadable, KeyError):
        return ""
    # A run that was killed could not say why, and one that was interrupted failed later.
    return "" if ended.partition(":")[0] in ("done", "killed", "Interrupted") else ended


def pause(seconds: float, asked: Sequence[str]) -> None:
    """Waits, but not once somebody has asked to stop."""
    until = time.monotonic() + seconds
    while not asked and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.2))


@contextmanager
def asked_to_stop() -> Iterator[list[str]]:
    """SIGTERM and a first Ctrl-C add their name to the list; a second Ctrl-C is KeyboardInterrupt.

    Not that of training, which asks jax for its processes, and so would take the accelerators.
    """
    asked: list[str] = []

    def hear(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and asked:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)

    before = {n: signal.signal(n, hear) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
