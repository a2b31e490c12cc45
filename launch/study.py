"""The trials of a sweep on disk, by Optuna: what to try next, what to give up, what was found.

Several processes may work on one folder. What must happen once (choosing a trial) happens under the
lock of the folder; who looks after a trial holds the lock of that trial. A trial is written down as
a whole, with its job's name and arguments, before its job is started.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from launch.space import Parameters, Space, overrides
from recattn_jax import untrusted
from recattn_jax.analysis import sweeps
from recattn_jax.errors import StorageError, UserError
from recattn_jax.files import write_atomically
from recattn_jax.locks import FileLock
from recattn_jax.training.space import Span

COUNTED = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
_STATES = {
    TrialState.RUNNING: sweeps.RUNNING,
    TrialState.COMPLETE: sweeps.FINISHED,
    TrialState.PRUNED: sweeps.PRUNED,
    TrialState.FAIL: sweeps.FAILED,
}
_ATTEMPTS = 20  # to be offered something new, before one of what is left is taken
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """The trials in a folder.

    Args:
      folder: of the sweep; made where there is none.
      identity: what all who work on the folder must agree on, plain values.
      space: what is varied.
      sampler: tpe, random or grid.
      pruner: none, median or halving.
      every: steps between evaluations, the first rung of halving.
      maximise: whether more of the headline is better.
      seed: of the sampler.

    Raises:
      UserError: the folder cannot be made or written, or holds another sweep.
      StorageError: what it holds is damaged.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        space: Space,
        *,
        sampler: str,
        pruner: str,
        every: int,
        maximise: bool,
        seed: int,
    ):
        self.folder, self.space, self.maximise = folder, space, maximise
        self._sampler, self._pruner, self._seed = sampler, make_pruner(pruner, every), seed
        try:
            (folder / "locks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error
        self.lock = FileLock(folder / "locks" / "sweep")
        try:
            with self.lock:
                self.name = agree(folder, identity)
                self._open(folder / "journal.log")
        except PermissionError as error:
            raise UserError(f"cannot write in the folder {folder}: {error}") from error

    def _open(self, journal: Path) -> None:
        if journal.exists() and not journal.is_file():
            raise StorageError(f"{journal} is no file; use another --folder")
        lock: Any = _JournalLock(journal, FileLock(self.folder / "locks" / "journal"))
        try:
            self._storage = JournalStorage(JournalFileBackend(str(journal), lock))
            if self.name not in optuna.get_all_study_names(self._storage):
                self._storage.create_new_study([direction(self.maximise)], self.name)
            self._study = optuna.load_study(study_name=self.name, storage=self._storage)
            for trial in self.trials():
                self._check(trial)
        except PermissionError:
            raise
        # Optuna meets damage with whatever it stumbles over (KeyError, TypeError, ...).
        except Exception as error:
            raise StorageError(
                f"{journal} is damaged ({type(error).__name__}: {error}); use another --folder"
            ) from error

    def _check(self, trial: FrozenTrial) -> None:
        """Sees to it that a trial is as `ask` wrote it: its arguments become part of a command."""
        numbers = [*trial.intermediate_values.values(), *(trial.values or ())]
        words = {name: trial.user_attrs.get(name) for name in ("job", "run", "arguments")}
        if words != self._words(trial.number, trial.params) or not all(
            isinstance(number, float | int) for number in numbers
        ):
            raise ValueError(f"trial {trial.number} is not as it was written")

    def _words(self, number: int, parameters: Parameters) -> dict[str, Any]:
        """What is kept with a trial: its job, the folder of its run, what it changes."""
        return {
            "job": f"{self.name}-{number}",
            "run": f"trial-{number}",
            "arguments": overrides(parameters),
        }

    def trials(self) -> list[FrozenTrial]:
        """All trials that any process has started, by number."""
        return self._study.get_trials(deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """One of them, as it is now."""
        return self._storage.get_trial(self._id(number))

    def ask(self, target: int) -> tuple[FrozenTrial, FileLock] | None:
        """Chooses the next trial and writes it down.

        Args:
          target: how many trials there may be, those that failed not counted.

        Returns:
          The trial and its lock, held; None if there are enough, or nothing new to try.
        """
        with self.lock:
            trials = self.trials()
            if sum(trial.state in COUNTED for trial in trials) >= target:
                return None
            parameters = propose(trials, self.space, self._sampler, self._seed, self.maximise)
            if parameters is None:
                return None
            number = len(trials)
            lock = self._lock(number)
            new = lock.acquire(wait=False)
            assert new, f"trial {number} is not there yet, and locked"
            self._study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params=parameters,
                    distributions=distributions(self.space),
                    user_attrs=self._words(number, parameters),
                )
            )
            return self.trial(number), lock

    def adopt(self, number: int) -> FileLock | None:
        """The lock of a running trial that nobody looks after; None if somebody does."""
        lock = self._lock(number)
        if not lock.acquire(wait=False):
            return None
        if self.trial(number).state == TrialState.RUNNING:
            return lock
        lock.release()  # who had it has told how it ended, in between
        return None

    def note(self, number: int, key: str, value: Any) -> None:
        """Keeps a word with a running trial."""
        self._storage.set_trial_user_attr(self._id(number), key, value)

    def report(self, number: int, step: int, value: float) -> bool:
        """Keeps an evaluation of a running trial.

        Returns:
          Whether the trial is not worth going on with.
        """
        self._storage.set_trial_intermediate_value(self._id(number), step, value)
        return self._pruner.prune(self._study, self.trial(number))

    def finish(self, number: int, value: float) -> None:
        """The trial came to its end."""
        self._study.tell(number, value)

    def prune(self, number: int) -> None:
        """The trial was stopped before its end."""
        self._study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """The trial has no value."""
        self.note(number, "reason", reason)
        self._study.tell(number, state=TrialState.FAIL)

    def summaries(self) -> list[sweeps.Trial]:
        """All trials, for tables and figures."""
        return [summary(trial, self.maximise) for trial in self.trials()]

    def importances(self) -> dict[str, float]:
        """How much each key matters for being among the better half; nothing below four trials."""
        finished = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        if len(finished) < 4 or len({trial.value for trial in finished}) < 2:
            return {}
        evaluator = PedAnovaImportanceEvaluator(target_quantile=0.5)
        return get_param_importances(self._study, evaluator=evaluator)

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(self.name)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)

    def _lock(self, number: int) -> FileLock:
        return FileLock(self.folder / "locks" / f"trial-{number}")


class _JournalLock:
    """The lock of Optuna's journal: of a killed process it is free at once.

    A line that a full disk or a lost machine left half written is cut off before the next.
    """

    def __init__(self, journal: Path, lock: FileLock):
        self._journal, self._lock = journal, lock

    def acquire(self) -> bool:
        self._lock.acquire()
        with self._journal.open("r+b") as file:
            end = file.seek(0, 2)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.release()


def agree(folder: Path, identity: Mapping[str, Any]) -> str:
    """Writes down what the sweep in a folder is, or sees to it that it is the one meant.

    Args:
      folder: of the sweep.
      identity: plain values by name.

    Returns:
      The sweep's name, which no other sweep has: its jobs are named after it.

    Raises:
      UserError: the folder holds another sweep.
    """
    name = known(folder, identity)
    if name is None:
        name = new_name(folder.absolute().name)
        written = json.dumps({"name": name, **identity}, indent=2) + "\n"
        write_atomically(folder / "sweep.json", written)
    return name


def known(folder: Path, identity: Mapping[str, Any]) -> str | None:
    """The name of the sweep in a folder, which is the one meant; None where there is none.

    Args:
      folder: of the sweep.
      identity: plain values by name.

    Raises:
      UserError: the folder holds another sweep.
      StorageError: what the folder says of its sweep cannot be read.
    """
    file = folder / "sweep.json"
    plain = json.loads(json.dumps(dict(identity)))
    if not file.exists():
        return None
    try:
        stored = untrusted.read_object(file)
        name = str(stored.pop("name"))
    except (ValueError, KeyError) as error:
        raise StorageError(f"{file} is damaged ({error}); use another --folder") from error
    differing = [
        f"{key}: {_say(stored, key)} there, {_say(plain, key)} now"
        for key in sorted(stored.keys() | plain.keys())
        if stored.get(key) != plain.get(key) or (key in stored) != (key in plain)
    ]
    if differing:
        raise UserError(
            f"{folder} holds another sweep ({'; '.join(differing)}); use another --folder, or the"
            " same command to go on"
        )
    return name


def _say(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "absent"


def new_name(text: str) -> str:
    """A name for a sweep that fits its jobs, with six digits that no other sweep has.

    >>> new_name("Sweep of_LSTMs")[:-6]
    'sweep-of-lstms-'
    """
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not words[:1].isalpha():
        words = f"sweep-{words}".rstrip("-")
    return f"{words[:24].rstrip('-')}-{secrets.token_hex(3)}"


def propose(
    trials: Sequence[FrozenTrial], space: Space, sampler: str, seed: int, maximise: bool
) -> Parameters | None:
    """What to try after these trials: the same for the same trials, whoever asks, and never tried.

    The sampler runs on a copy in memory, so that what it offers twice leaves no trace.

    Args:
      trials: all so far, those that run and those that failed among them.
      space: what is varied.
      sampler: tpe, random or grid.
      seed: of the sampler, which has another for each trial.
      maximise: whether more of the headline is better.

    Returns:
      A value for each key; None if there is nothing new.
    """
    tried = [trial.params for trial in trials]
    if sampler == "grid":
        return _untried(space, tried, 0)
    state = int(np.random.SeedSequence([seed, len(trials)]).generate_state(1)[0])
    scratch = optuna.create_study(
        sampler=make_sampler(sampler, state), direction=direction(maximise)
    )
    scratch.add_trials(trials)
    for _ in range(_ATTEMPTS):
        trial = scratch.ask(distributions(space))
        if trial.params not in tried:
            return dict(trial.params)
        scratch.tell(trial, state=TrialState.FAIL)
    return _untried(space, tried, state)


def _untried(space: Space, tried: Sequence[Parameters], start: int) -> Parameters | None:
    """The first new configuration from a number on, and round; None if there is none."""
    if space.size is None:
        return None
    numbers = range(min(space.size, len(tried) + 1))  # of so many one is new, if any is
    points = (space.point((start + number) % space.size) for number in numbers)
    return next((point for point in points if point not in tried), None)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as Optuna says it."""
    found: dict[str, BaseDistribution] = {}
    for key, values in space.values.items():
        if not isinstance(values, Span):
            found[key] = CategoricalDistribution(values)
        elif isinstance(values.low, int) and isinstance(values.high, int):
            found[key] = IntDistribution(values.low, values.high, log=values.log)
        else:
            found[key] = FloatDistribution(values.low, values.high, log=values.log)
    return found


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of this name, which is not grid."""
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def make_pruner(name: str, every: int) -> optuna.pruners.BasePruner:
    """The pruner of this name.

    Args:
      name: none, median or halving. "median" gives up what is worse than the median of four or more
        finished trials at the same step; "halving" lets the best third go on after 1, 3, 9, ...
        evaluations.
      every: steps between evaluations.
    """
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=every, reduction_factor=3)
    return optuna.pruners.NopPruner()


def direction(maximise: bool) -> StudyDirection:
    """As Optuna says it."""
    return StudyDirection.MAXIMIZE if maximise else StudyDirection.MINIMIZE


def summary(trial: FrozenTrial, maximise: bool) -> sweeps.Trial:
    """What tables and figures show of a trial."""
    seen = trial.intermediate_values
    best = (max if maximise else min)(seen.values(), default=None)
    return sweeps.Trial(
        number=trial.number,
        state=_STATES[trial.state],
        parameters=trial.params,
        step=trial.last_step,
        value=trial.value if trial.state == TrialState.COMPLETE else best,
        reason=str(trial.user_attrs.get("reason", "")),
    )
