"""Jobs on a SLURM cluster, through submitit: one submission a job, one task on each host.

Every task runs the command and writes down how it ended. The first task judges: it ends what a
failure elsewhere has left hanging, and has the job requeued where another attempt is worth it.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from launch.drivers import calls, records
from launch.jobs import DONE, START_AGAIN, Action, Job, State, Status, cause, worth_another
from recattn_jax.errors import UserError

RECORD = "job.json"
OUTCOME = "outcome.json"
_POLL = 0.2
_LOG_LEVEL = "SUBMITIT_LOG_LEVEL"
_WAITING = ("CONFIGURING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SUSPENDED")
_ENDED_BY_HAND = "CANCELLED"


@dataclass
class Attempt:
    """What every task calls.

    Args:
      argv: the command.
      environment: variables besides those that are there.
      folder: of the job's own, on a file system of all hosts.
      retries: of the job.
      grace: seconds, see `Slurm`.
      number: which attempt it is, from 1.
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    folder: Path
    retries: int
    grace: float
    number: int
    child: "subprocess.Popen[bytes] | None" = field(
        default=None, init=False, repr=False, compare=False
    )

    def __call__(self) -> int:
        """Runs the command.

        Returns:
          The exit code of this task's process; where it is the first task's, 0.

        Raises:
          RuntimeError: the job failed, and there is no further attempt.
        """
        task = submitit().JobEnvironment()
        asked_to_requeue = getattr(signal, "SIG" + task.USR_SIG)
        signal.signal(signal.SIGTERM, lambda *_: self._ask())
        together = coordinates(task) if task.num_tasks > 1 else {}
        self.child = subprocess.Popen(
            self.argv,
            env={**os.environ, **self.environment, **together},
            # SLURM may send its signals to all processes of a task. SIGTERM, then heard twice, is
            # for the child too; the other would end it before it has saved.
            preexec_fn=lambda: signal.signal(asked_to_requeue, signal.SIG_IGN),
        )
        if self._stopping():  # asked before there was anybody to hear it
            self._ask()
        if task.global_rank:
            code = self.child.wait()
            records.write(self._ending(task.global_rank), {"exit_code": code})
            return code
        records.write(self.folder / OUTCOME, {"attempt": self.number, "exit_code": None})
        code = self._judged(task.num_tasks)
        if code != DONE and self._goes_on(code):
            # As if the cluster had sent it: submitit calls `checkpoint`, requeues and exits.
            signal.raise_signal(asked_to_requeue)
        self._over(code)
        if code != DONE:
            raise RuntimeError(f"attempt {self.number} ended with {code}")
        return code

    def checkpoint(self) -> Any:
        """What submitit asks for in the first task when time is up, or by the signal above.

        Returns:
          What to run when the job is started again; None where it shall not be.
        """
        if self.child is not None:
            self._ask()
            code = self._wait_or_kill() or START_AGAIN  # done or not, that is for all to say
            if not self._goes_on(code):
                self._over(code)
                return None
        return submitit().helpers.DelayedSubmission(replace(self, number=self.number + 1))

    def _judged(self, tasks: int) -> int:
        """The exit code that decides, once all tasks ended or one has failed for long enough."""
        ask_at = float("inf")
        while True:
            codes = [self.child.poll() if self.child else None]
            for rank in range(1, tasks):
                ending = records.read(self._ending(rank))
                codes.append(ending["exit_code"] if ending else None)
            failures = [code for code in codes if code not in (None, DONE)]
            if None not in codes or (failures and time.monotonic() >= ask_at):
                break
            if failures and ask_at == float("inf"):
                ask_at = time.monotonic() + self.grace
            time.sleep(_POLL)
        if not self._ended():
            self._ask()
            self._wait_or_kill()
        return cause(failures or [DONE])

    def _goes_on(self, code: int) -> bool:
        return not self._stopping() and worth_another(code, self.number, self.retries)

    def _stopping(self) -> bool:
        return bool((records.read(self.folder / RECORD) or {}).get("stopping"))

    def _over(self, code: int) -> None:
        records.write(self.folder / OUTCOME, {"attempt": self.number, "exit_code": code})

    def _ending(self, rank: int) -> Path:
        # The cluster too may start the same attempt again, and counts that.
        again = os.environ.get("SLURM_RESTART_COUNT", "0")
        return self.folder / f"ended-{self.number}-{again}-{rank}.json"

    def _ended(self) -> bool:
        return self.child is None or self.child.poll() is not None

    def _ask(self) -> None:
        if self.child is not None and not self._ended():
            self.child.send_signal(signal.SIGTERM)

    def _wait_or_kill(self) -> int:
        assert self.child is not None
        try:
            return self.child.wait(self.grace)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "child": None}


@dataclass(frozen=True)
class Slurm:
    """Runs jobs through sbatch.

    The accelerator is "any", "cpu", "cpu:K" (K cores for each host), "gpu:K" or "gpu:a100:K".

    Args:
      partition: of the cluster; None for its default.
      account: that is charged; None for the default.
      minutes: how long an attempt may take.
      grace: seconds before that in which it is asked to save.
      cluster: "slurm"; "local" runs the tasks on this machine, with submitit's stand-in.
      timeout: seconds after which squeue, sacct and scancel are killed.

    Raises:
      UserError: a name holds a control character.
    """

    partition: str | None = None
    account: str | None = None
    minutes: int = 24 * 60
    grace: int = 120
    cluster: str = "slurm"
    timeout: float = 60.0

    def __post_init__(self) -> None:
        for name in ("partition", "account"):
            word = getattr(self, name)
            if word is not None and not word.isprintable():  # a new line would be one of the script
                raise UserError(f"--{name}={word!r} holds a control character")

    def plan(self, job: Job) -> Sequence[Action]:
        """See `Driver`; submitit puts a random word into the names and pickles the first file.

        Raises:
          UserError: submitit is not installed, or the accelerator is unknown.
        """
        module = submitit()

        class Anywhere(module.SlurmExecutor):  # type: ignore[name-defined]
            """Can say what it would submit where there is no SLURM."""

            @classmethod
            def affinity(cls) -> int:
                return 1

        folder = self._folder(job)
        executor = Anywhere(folder)
        executor.update_parameters(**self.parameters(job))
        text = executor._make_submission_file_text(executor._submitit_command_str, "")
        file = folder / ".submission_file.sh"
        return [
            Action(file=folder / "attempt.pkl", text=str(self._attempt(job, 1))),
            Action(file=file, text=text),
            Action(argv=("sbatch", str(file))),
        ]

    def start(self, job: Job) -> None:
        """See `Driver`.

        Raises:
          UserError: submitit or SLURM is not there, or refuses the job.
        """
        folder = self._folder(job)
        self.parameters(job)
        submitit()
        with records.locked(folder, wait=True):
            if self._standing(job).state in (State.UNKNOWN, State.FAILED):
                self._submit(job, number=1)

    def status(self, job: Job) -> Status:
        """See `Driver`; what ended without a verdict, as when its host was lost, is sent again."""
        folder = records.place(job)
        if not folder.exists():
            return Status(State.UNKNOWN)
        with records.locked(folder, wait=True):
            status = self._standing(job)
            if status.state is not State.FAILED or status.exit_code is not None:
                return status
            record = self._read(folder)
            number = (records.read(folder / OUTCOME) or {"attempt": 1})["attempt"]
            by_hand = record["stopping"] or _ENDED_BY_HAND in status.reason
            if by_hand or not worth_another(START_AGAIN, number, job.retries):
                return status
            try:
                self._submit(job, number + 1)
            except UserError as error:  # the next time, perhaps
                return Status(State.WAITING, None, str(error))
            return Status(State.WAITING, None, status.reason)

    def stop(self, job: Job) -> None:
        """See `Driver`.

        Raises:
          UserError: scancel failed.
        """
        folder = records.place(job)
        if not folder.exists():
            return
        with records.locked(folder, wait=True):
            status = self._standing(job)
            if status.state is State.UNKNOWN or status.over:
                return
            record = self._read(folder)
            records.write(folder / RECORD, {**record, "stopping": True})
            if self.cluster == "local":
                os.kill(int(record["id"]), signal.SIGTERM)
                return
            # A plain scancel would leave little time to save; one that waits has nothing to save.
            running = status.state is State.RUNNING
            words = ("--signal=TERM", record["id"]) if running else (record["id"],)
            calls.must(("scancel", *words), self.timeout)

    def parameters(self, job: Job) -> dict[str, Any]:
        """What is asked of sbatch, as submitit's executor takes it.

        Raises:
          UserError: the accelerator is unknown.
        """
        optional = {"partition": self.partition, "account": self.account, **devices(job)}
        return {
            "job_name": job.name,
            "nodes": job.hosts,
            "ntasks_per_node": 1,
            "time": self.minutes,
            "signal_delay_s": self.grace,
            "stderr_to_stdout": True,
            "srun_args": ["--kill-on-bad-exit=1"],
            "additional_parameters": {"requeue": True},
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _folder(self, job: Job) -> Path:
        folder = records.place(job)
        if "%" in str(folder):
            raise UserError(
                f"folder {folder}: SLURM reads % in names in its own way; choose another"
            )
        return folder

    def _attempt(self, job: Job, number: int) -> Attempt:
        cpu = {"JAX_PLATFORMS": "cpu"} if job.accelerator.startswith("cpu") else {}
        environment = {**cpu, **job.environment}
        return Attempt(job.argv, environment, self._folder(job), job.retries, self.grace, number)

    def _submit(self, job: Job, number: int) -> None:
        folder, module = self._folder(job), submitit()
        kind = module.LocalExecutor if self.cluster == "local" else module.SlurmExecutor
        parameters = self.parameters(job)
        if self.cluster == "local":
            parameters = {"tasks_per_node": job.hosts, "timeout_min": self.minutes}
        before = {name: records.read(folder / name) for name in (OUTCOME, RECORD)}
        records.write(folder / OUTCOME, {"attempt": number, "exit_code": None})
        # Also before, since the first task may look at once.
        records.write(folder / RECORD, {"id": "", **(before[RECORD] or {}), "stopping": False})
        try:
            executor = kind(folder, max_num_timeout=job.retries)
            executor.update_parameters(**parameters)
            identity = executor.submit(self._attempt(job, number)).job_id
        except (RuntimeError, OSError) as error:  # submitit's errors are RuntimeErrors
            for name, record in before.items():
                if record is not None:
                    records.write(folder / name, record)
            said = [line for line in str(error).splitlines() if line.strip()]
            raise UserError(
                f"job {job.name}: not submitted: {said[-1] if said else error}"
            ) from error
        records.write(folder / RECORD, {"id": identity, "stopping": False})

    def _read(self, folder: Path) -> dict[str, Any]:
        nothing = {"id": "", "stopping": False}
        return records.read(folder / RECORD, tuple(nothing)) or nothing

    def _standing(self, job: Job) -> Status:
        """Where the last submission stands; one that failed without a verdict has no exit code."""
        folder = records.place(job)
        record = self._read(folder)
        if not record["id"]:
            return Status(State.UNKNOWN)
        code = _verdict(folder)
        if code == DONE:
            return Status(State.DONE, DONE)
        if code is not None:
            ended = "it was asked to stop" if record["stopping"] else f"a process ended with {code}"
            return Status(State.FAILED, code, f"{ended}; see {folder}/{record['id']}_*_log.out")
        if self.cluster == "local":
            running = Path(f"/proc/{record['id']}").exists()
            status = Status(State.RUNNING) if running else Status(State.FAILED, None, "it is gone")
        else:
            status = self._queue(record["id"])
        if status.over and _verdict(folder) is not None:
            return self._standing(job)  # it ended in between
        return status

    def _queue(self, identity: str) -> Status:
        queue = ("squeue", "--noheader", f"--jobs={identity}", "--format=%T")
        answer = calls.call(queue, self.timeout)
        state = answer.out.strip()
        if answer.code and "Invalid job id" not in answer.err:
            return Status(State.WAITING, None, answer.last_line)
        if state in _WAITING:
            return Status(State.WAITING, None, state)
        if state in ("RUNNING", "COMPLETING", "PREEMPTED", "SIGNALING", "STAGE_OUT", "STOPPED"):
            return Status(State.RUNNING, None, state)
        accounting = ("sacct", "--noheader", "--parsable2", "-X", f"--jobs={identity}")
        said = calls.call((*accounting, "--format=State"), self.timeout)
        lines = said.out.split() if said.code == 0 else []
        why = state or (lines[-1] if lines and re.fullmatch(r"[A-Z_]+", lines[-1]) else "")
        return Status(State.FAILED, None, f"SLURM says {why or 'nothing more of it'}")


def _verdict(folder: Path) -> int | None:
    outcome = records.read(folder / OUTCOME)
    return outcome["exit_code"] if outcome else None


def submitit() -> ModuleType:
    """The library, which is only needed here.

    Raises:
      UserError: it is not installed.
    """
    # Where it is not the main program, it must not set up logging, whatever the environment says:
    # that closes the handlers of all others, and keeps a stdout that may not last. The tasks, which
    # inherit the environment, shall log.
    said = os.environ.get(_LOG_LEVEL)
    os.environ[_LOG_LEVEL] = "NOCONFIG"
    try:
        import submitit  # noqa: PLC0415
    except ImportError as error:
        raise UserError("the slurm driver needs submitit: pip install -e '.[launch]'") from error
    finally:
        del os.environ[_LOG_LEVEL]
        if said is not None:
            os.environ[_LOG_LEVEL] = said
    return submitit


def coordinates(task: Any) -> dict[str, str]:
    """How the processes of a job find each other, from submitit's view of the task."""
    port = 20_000 + int(task.raw_job_id) % 20_000
    return {
        "RECATTN_COORDINATOR": f"{task.hostnames[0]}:{port}",
        "RECATTN_PROCESSES": str(task.num_tasks),
        "RECATTN_PROCESS": str(task.global_rank),
    }


def devices(job: Job) -> dict[str, Any]:
    """What the accelerator asks of sbatch.

    Raises:
      UserError: this driver has none of this name.

    Example:
      >>> devices(Job("a", ("true",), Path("runs"), "gpu:8"))
      {'gres': 'gpu:8'}
    """
    if job.accelerator in ("any", "cpu"):
        return {}
    if match := re.fullmatch(r"cpu:([1-9]\d*)", job.accelerator):
        return {"cpus_per_task": int(match[1])}
    if re.fullmatch(r"gpu(:[A-Za-z0-9_.-]+)?:[1-9]\d*", job.accelerator):
        return {"gres": job.accelerator}
    raise UserError(
        f"accelerator {job.accelerator!r}: the slurm driver knows any, cpu, cpu:K, gpu:K and"
        " gpu:TYPE:K"
    )
