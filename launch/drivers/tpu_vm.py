"""Jobs on TPU VMs: a queued resource each, and a script on its workers, both through gcloud.

Machines come when they come, so `start` only asks for them. `status` starts the command once they
are there, asks how it stands, replaces machines that were taken away, and gives them back at the
end: somebody has to ask from time to time (`python -m launch.submit --action=wait` does).
"""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from launch.drivers import calls, records
from launch.jobs import DONE, Action, Job, State, Status, cause, worth_another
from recattn_jax.errors import UserError
from recattn_jax.files import write_atomically

RECORD = "job.json"
_COMING = ("ACCEPTED", "CREATING", "PROVISIONING", "WAITING_FOR_RESOURCES")
_LOST = -9


class Unanswered(Exception):
    """The cloud did not answer, or not what was needed; it can be asked again."""


@dataclass(frozen=True)
class TpuVm:
    """Runs jobs on TPU VMs.

    Args:
      zone: such as "us-east5-b".
      runtime: version of the machines' software, such as "v2-alpha-tpuv6e".
      project: None for gcloud's own setting.
      spot: machines that are cheap and may be taken away.
      directory: on the workers, where the command starts; from the home folder if not absolute.
      setup: a bash script of yours that every worker runs there first, or None.
      grace: seconds that a process has to save after it was asked to stop.
      timeout: seconds after which gcloud is killed.

    Example:
      >>> TpuVm("zone", "runtime").plan(Job("a", ("true",), Path("runs"), "v6e-4"))[1].argv[0]
      'gcloud'
    """

    zone: str
    runtime: str
    project: str | None = None
    spot: bool = False
    directory: str = "."
    setup: Path | None = None
    grace: int = 120
    timeout: float = 900.0

    def plan(self, job: Job) -> Sequence[Action]:
        """See `Driver`; the last two come once the machines are there, when `status` is asked."""
        files = [Action(file=records.place(job) / f"{job.name}.sh", text=self.script(job))]
        if self.setup:
            copy = records.place(job) / f"{job.name}-setup.sh"
            files.append(Action(file=copy, text=self._read_setup()))
        return [
            *files,
            Action(argv=self._create(job)),
            Action(argv=self._copy(job)),
            Action(argv=self._on_workers(job, "start", 1)),
        ]

    def start(self, job: Job) -> None:
        """See `Driver`.

        Raises:
          UserError: the cloud refuses or has machines of this name already, or the setup script
            cannot be read.
        """
        plan = self.plan(job)
        folder = records.place(job)
        with records.locked(folder, wait=True):
            record = _read(folder)
            if record is not None and record["phase"] not in ("failed", "wanted"):
                return
            for action in plan:
                if action.file is not None:
                    write_atomically(action.file, action.text)
            # Asked for before, and not known whether they are there; or not asked for yet.
            again = record is not None and record["phase"] == "wanted"
            record = {"phase": "wanted", "attempt": 1, "exit_code": None, "reason": ""}
            records.write(folder / RECORD, record)
            try:
                if not self._ask_for_machines(job, record) and not again:
                    reason = "there are machines of this name already, which are not this job's"
                    self._note(job, record, phase="failed", reason=reason)
                    raise UserError(f"job {job.name}: {reason}; choose another name")
            except Unanswered as error:
                raise UserError(f"job {job.name}: {error}; start it again to try again") from error

    def status(self, job: Job) -> Status:
        """See `Driver`."""
        folder = records.place(job)
        if not folder.exists():
            return Status(State.UNKNOWN)
        with records.locked(folder, wait=False) as lock:
            record = _read(folder)
            if record is None:
                return Status(State.UNKNOWN)
            if lock is None:
                return _standing(record)
            try:
                self._advance(job, record)
            except Unanswered as error:
                return Status(_standing(record).state, None, str(error))
            return _standing(record)

    def stop(self, job: Job) -> None:
        """See `Driver`; the machines are given back when `status` sees that all is saved."""
        folder = records.place(job)
        if not folder.exists():
            return
        with records.locked(folder, wait=True):
            record = _read(folder)
            if record is None or _standing(record).over:
                return
            record["stopping"] = True
            records.write(folder / RECORD, record)
            try:
                if record["phase"] == "running":
                    self._tell(job, "stop", record)
                else:
                    self._leave(job, record, None)
            except Unanswered as error:
                raise UserError(f"job {job.name}: {error}; stop it again to try again") from error

    def script(self, job: Job) -> str:
        """What every worker runs; each word of the job is quoted for bash."""
        template = resources.files("launch.drivers").joinpath("worker.sh").read_text("utf-8")
        environment = dict(job.environment)
        if job.hosts > 1:
            environment = {"RECATTN_COORDINATOR": "auto", **environment}
        quoted = {
            "NAME": job.name,
            "DIRECTORY": shlex.quote(self.directory),
            "FOLDER": shlex.quote(f"{job.folder}/{job.name}"),
            "EXPORT": "\n  ".join(
                f"export {name}={shlex.quote(value)}" for name, value in environment.items()
            )
            or ":",
            "ARGV": " ".join(shlex.quote(word) for word in job.argv),
            "GRACE": str(self.grace),
        }
        # In one pass: what is put in is not looked at again.
        return re.sub(r"@([A-Z]+)@", lambda match: quoted[match[1]], template)

    def _advance(self, job: Job, record: dict[str, Any]) -> None:
        """Does what is due, as far as it goes now."""
        if record["phase"] == "leaving":
            self._give_back(job, record)
        if record["phase"] == "wanted":
            self._ask_for_machines(job, record)
        if record["phase"] not in ("queued", "running"):
            return
        machines = self._machines(job)
        if machines in _COMING:
            return
        if machines != "ACTIVE":
            self._leave(job, record, _LOST, f"the machines are {machines}")
        elif record["phase"] == "queued":
            self._call(self._copy(job))
            self._tell(job, "start", record)
            self._note(job, record, phase="running")
        else:
            self._look(job, record)

    def _look(self, job: Job, record: dict[str, Any]) -> None:
        """Asks the workers, and does what their answers ask for."""
        answer = self._tell(job, "poll", record)
        found = re.findall(r"^recattn: (absent|running|lost|exit (\d+))", answer, re.MULTILINE)
        if len(found) < job.hosts:
            raise Unanswered(f"{len(found)} of {job.hosts} workers say how they stand")
        if any(words == "absent" for words, _ in found):
            self._tell(job, "start", record)
            return
        codes = [int(code) if code else _LOST for words, code in found if words != "running"]
        if len(codes) < len(found):
            if any(codes):  # the others would wait for it for ever
                self._tell(job, "stop", record)
            return
        code = cause(codes)
        again = worth_another(code, record["attempt"], job.retries)
        if not again or record.get("stopping"):
            self._leave(job, record, code, "" if code == DONE else f"a process ended with {code}")
            return
        self._note(job, record, attempt=record["attempt"] + 1)
        self._tell(job, "start", record)

    def _leave(self, job: Job, record: dict[str, Any], code: int | None, reason: str = "") -> None:
        """Gives the machines back, and then: is over, or asks for others."""
        if record.get("stopping"):
            then, reason = ("done", "") if code == DONE else ("failed", "it was asked to stop")
        elif code == DONE:
            then = "done"
        elif code == _LOST and worth_another(code, record["attempt"], job.retries):
            then = "wanted"
        else:
            then = "failed"
        known = None if code == _LOST else code
        self._note(job, record, phase="leaving", then=then, exit_code=known, reason=reason)
        self._give_back(job, record)

    def _give_back(self, job: Job, record: dict[str, Any]) -> None:
        self._call(self._resource("delete", job, "--force"), but="NOT_FOUND")
        attempt = record["attempt"] + (record["then"] == "wanted")
        self._note(job, record, phase=record["then"], attempt=attempt)
        if record["phase"] == "wanted":
            self._ask_for_machines(job, record)

    def _ask_for_machines(self, job: Job, record: dict[str, Any]) -> bool:
        """Whether there were none of this name."""
        new = self._call(self._create(job), but="ALREADY_EXISTS") is not None
        self._note(job, record, phase="queued")
        return new

    def _machines(self, job: Job) -> str:
        said = self._call(self._resource("describe", job, "--format=json"), but="NOT_FOUND")
        try:
            return "gone" if said is None else json.loads(said)["state"]["state"]
        except (ValueError, KeyError, TypeError) as error:
            raise Unanswered(f"gcloud says nothing of the machines: {str(said)[:80]!r}") from error

    def _tell(self, job: Job, verb: str, record: dict[str, Any]) -> str:
        return self._call(self._on_workers(job, verb, record["attempt"])) or ""

    def _call(self, argv: Sequence[str], but: str | None = None) -> str | None:
        """What a command says; None where it failed in the way that was thought of."""
        answer = calls.call(argv, self.timeout)
        if answer.code == 0:
            return answer.out
        if but is not None and but in answer.err:
            return None
        raise Unanswered(answer.last_line)

    def _note(self, job: Job, record: dict[str, Any], **changes: Any) -> None:
        record |= changes
        records.write(records.place(job) / RECORD, record)

    def _read_setup(self) -> str:
        assert self.setup is not None
        try:
            return self.setup.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--setup={self.setup} cannot be read: {error}") from error

    def _where(self) -> tuple[str, ...]:
        project = (f"--project={self.project}",) if self.project else ()
        return (f"--zone={self.zone}", *project, "--quiet")

    def _resource(self, verb: str, job: Job, *flags: str) -> tuple[str, ...]:
        command = ("gcloud", "compute", "tpus", "queued-resources", verb, job.name)
        return (*command, *flags, *self._where())

    def _create(self, job: Job) -> tuple[str, ...]:
        if not re.fullmatch(r"[a-z0-9]+-[a-z0-9-]*\d+", job.accelerator):
            raise UserError(
                f"accelerator {job.accelerator!r}: the tpu_vm driver wants the type of a TPU slice,"
                " such as v5litepod-16"
            )
        return self._resource(
            "create",
            job,
            f"--node-id={job.name}",
            f"--accelerator-type={job.accelerator}",
            f"--runtime-version={self.runtime}",
            *(("--spot",) if self.spot else ()),
        )

    def _copy(self, job: Job) -> tuple[str, ...]:
        names = [f"{job.name}.sh", *([f"{job.name}-setup.sh"] if self.setup else [])]
        files = [str(records.place(job) / name) for name in names]
        command = ("gcloud", "compute", "tpus", "tpu-vm", "scp", *files, f"{job.name}:")
        return (*command, "--worker=all", *self._where())

    def _on_workers(self, job: Job, verb: str, attempt: int) -> tuple[str, ...]:
        # The one line that a shell reads: a checked name, a word of ours and a number.
        line = f"bash {job.name}.sh {verb} {attempt}"
        command = ("gcloud", "compute", "tpus", "tpu-vm", "ssh", job.name)
        return (*command, "--worker=all", f"--command={line}", *self._where())


def _read(folder: Path) -> dict[str, Any] | None:
    return records.read(folder / RECORD, ("phase", "attempt", "exit_code", "reason"))


def _standing(record: dict[str, Any]) -> Status:
    """What a record says."""
    states = {"done": State.DONE, "failed": State.FAILED, "running": State.RUNNING}
    state = states.get(record["phase"], State.WAITING)
    over = state in (State.DONE, State.FAILED)
    return Status(state, record["exit_code"] if over else None, record["reason"])
