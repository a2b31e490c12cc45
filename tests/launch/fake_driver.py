"""A driver whose jobs are a curve: each look at one lets it write one more evaluation."""

import json
from collections.abc import Callable
from pathlib import Path

from launch.jobs import Action, Job, State, Status, worth_another

EVALUATIONS = (10, 20, 30, 40)
Curve = Callable[[dict[str, str], int], float]


class FakeDriver:
    """Keeps, as a real one does, what becomes of jobs whoever asks.

    Args:
      curve: from what a trial changes and a step to the headline.
      exit_code: from what a trial changes and the attempt to how it ends; 0 runs to the end.
    """

    def __init__(
        self, curve: Curve, exit_code: Callable[[dict[str, str], int], int] = lambda *_: 0
    ):
        self.curve, self.exit_code = curve, exit_code
        self.statuses: dict[str, Status] = {}
        self.attempts: dict[str, int] = {}
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.jobs: dict[str, Job] = {}
        self.deaf = 0  # to how many starts

    def plan(self, job: Job) -> list[Action]:
        return [Action(argv=job.argv)]

    def start(self, job: Job) -> None:
        if self._state(job) in (State.RUNNING, State.DONE):
            return
        if self.deaf:
            self.deaf -= 1
            return
        self.started.append(job.name)
        self.jobs[job.name] = job
        self.attempts[job.name] = 1
        self.statuses[job.name] = Status(State.RUNNING)

    def status(self, job: Job) -> Status:
        if self._state(job) == State.RUNNING:
            self._go_on(job)
        return self.statuses.get(job.name, Status(State.UNKNOWN))

    def stop(self, job: Job) -> None:
        if self._state(job) == State.RUNNING:
            self.stopped.append(job.name)
            self.statuses[job.name] = Status(State.FAILED, 42, "it was asked to stop")

    def _state(self, job: Job) -> State:
        return self.statuses.get(job.name, Status(State.UNKNOWN)).state

    def _go_on(self, job: Job) -> None:
        code = self.exit_code(arguments(job), self.attempts[job.name])
        if code and worth_another(code, self.attempts[job.name], job.retries):
            self.attempts[job.name] += 1
        elif code:
            self.statuses[job.name] = Status(State.FAILED, code, "it broke")
        elif write_next(job, self.curve):
            self.statuses[job.name] = Status(State.DONE, 0)


def arguments(job: Job) -> dict[str, str]:
    """What a job's command says."""
    pairs = [word.partition("=") for word in job.argv if word.startswith("--")]
    return {name.removeprefix("--").removeprefix("config."): value for name, _, value in pairs}


def write_next(job: Job, curve: Curve) -> bool:
    """Appends the next evaluation to the run's numbers; whether it was the last."""
    said = arguments(job)
    file = Path(said["workdir"]) / "metrics.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    done = len(file.read_text().splitlines()) if file.exists() else 0
    if done < len(EVALUATIONS):
        step = EVALUATIONS[done]
        value = curve(said, step)
        record = {"step": step, "split": "validation", "loss": value, "bits_per_byte": value}
        with file.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
    return done + 1 >= len(EVALUATIONS)
