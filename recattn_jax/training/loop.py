"""The one training loop; `Training.go_on` is the whole story, in the only order that is right."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from recattn_jax.data import Data
from recattn_jax.errors import (
    Interrupted,
    NonFiniteError,
    RunError,
    SourceError,
    StorageError,
    summary,
)
from recattn_jax.files import closing
from recattn_jax.training import sharding
from recattn_jax.training.checkpoints import Checkpoints, Notes
from recattn_jax.training.checks import check, check_headline
from recattn_jax.training.evaluation import Evaluator
from recattn_jax.training.experiment import Experiment
from recattn_jax.training.interruption import Interruption
from recattn_jax.training.metrics import Console, MetricsLog, Record, mean_values, read_records
from recattn_jax.training.privacy import statement
from recattn_jax.training.runs import RunFolder
from recattn_jax.training.state import (
    Batch,
    Stopping,
    TrainState,
    abstract_state,
    check_params,
    create_state,
    placed_state,
    shardings_of,
)
from recattn_jax.training.step import train_steps
from recattn_jax.training.summary import going_on, start_up
from recattn_jax.training.timing import Clock, Profile
from recattn_jax.training.watch import BadStep, Peaks, all_finite, examples_of, not_finite

Pending = tuple[int, Batch, Any]
"""A step whose numbers nobody has read yet: its number, its rows, and what it gave."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
      step: the last step taken.
      reason: "finished", "stopped early" or "already done".
      metrics: of the last evaluation of the validation split, scores included.
      best_step: step of the best evaluation.
      best: its headline.
      training_seconds: first to last step of this attempt, evaluations included, compilation not.

    >>> outcome = Outcome(9, "finished", {"loss": 0.1}, best_step=9, best=0.1, training_seconds=1.0)
    """

    step: int
    reason: str
    metrics: dict[str, float]
    best_step: int
    best: float
    training_seconds: float


def fit(
    experiment: Experiment,
    data: Data,
    run: RunFolder,
    *,
    initial_params: Any = None,
    profile_steps: tuple[int, int] | None = None,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Trains, or resumes, or says that the run is done.

    Args:
      experiment: what to train.
      data: `experiment.data()`, opened.
      run: the folder, opened with `RunFolder.open`.
      initial_params: parameters to start from (`load_run(other).params`) where the folder has no
        checkpoint yet; None initialises them.
      profile_steps: (a, b) traces steps a to b, both included, into `profile/`.
      say: where plain lines for a person go.

    Returns:
      How it ended.

    Raises:
      UserError: the experiment does not fit the data, the devices or the folder.
      NonFiniteError: the loss or the gradient norm is not finite.
      StorageError: nothing can be written, or no checkpoint is good.
      SourceError: a batch cannot be read; what was learned before it is saved.
      Interrupted: someone asked to stop, and everything is saved.

    >>> outcome = fit(experiment, experiment.data(), run)  # doctest: +SKIP
    """
    mesh = check(experiment, data)
    abstract = abstract_state(experiment)
    check_headline(experiment, abstract)
    if initial_params is not None:
        check_params(initial_params, abstract.params)
    say_privacy(experiment, data, experiment.cadence.steps, say)
    started = run.begin(experiment, data)
    with started, jax.set_mesh(mesh), run.recording(), Interruption() as interruption:
        checkpoints = Checkpoints(run.checkpoints, experiment.cadence.keep, say)
        with closing(checkpoints.close, say):
            wanted = placed_state(experiment, mesh)
            state, notes = checkpoints.restore(wanted, data.train.fingerprint)
            if state is None:
                say(start_up(experiment, wanted, mesh, data.train, run.path))
                state = create_state(experiment, shardings_of(wanted), initial_params)
            elif over(experiment, state):
                say(f"the run in {run.path} is already done: step {int(state.step)}")
                return outcome(run, state, "already done")
            else:
                say(going_on(experiment, state, mesh, run.path))
            log = MetricsLog(run.path, int(state.step), notes.get("metrics"), say)
            console = Console(experiment.cadence.steps, int(state.step), say)
            with closing(log.close, say), contextlib.closing(console):
                parts = (checkpoints, log, console, interruption, notes)
                training = Training(experiment, data, run, mesh, wanted, *parts)
                ended = training.go_on(state, profile_steps)
    say_privacy(experiment, data, ended.step, say)
    return ended


def say_privacy(experiment: Experiment, data: Data, steps: int, say: Callable[[str], None]) -> None:
    """Says what so many steps tell about an example, where training is private.

    Raises:
      UserError: it cannot be said.
    """
    privacy = experiment.optimization.privacy
    if privacy is not None:
        say(statement(privacy, steps, data.train))


def over(experiment: Experiment, state: TrainState) -> bool:
    """Whether a run has come to its end."""
    return int(state.step) >= experiment.cadence.steps or impatient(experiment, state)


def impatient(experiment: Experiment, state: TrainState) -> bool:
    """Whether it is time to stop early."""
    patience = experiment.cadence.patience
    return patience is not None and int(state.stopping.worse) >= patience


def outcome(run: RunFolder, state: TrainState, reason: str) -> Outcome:
    """Reads the last evaluation back from the file, which has it whoever made it."""
    evaluations = [
        record
        for record in read_records(run.path / "metrics.jsonl")
        if record["split"] == "validation"
    ]
    last = evaluations[-1] if evaluations else {}
    return Outcome(
        step=int(state.step),
        reason=reason,
        metrics={
            name: value for name, value in last.items() if name not in ("step", "split", "seconds")
        },
        best_step=int(state.stopping.best_step),
        best=float(state.stopping.best),
        training_seconds=run.training_seconds,
    )


class Training:
    """One attempt at a run: all that does not change from step to step, and the loop."""

    def __init__(
        self,
        experiment: Experiment,
        data: Data,
        run: RunFolder,
        mesh: Mesh,
        abstract: TrainState,
        checkpoints: Checkpoints,
        log: MetricsLog,
        console: Console,
        interruption: Interruption,
        notes: Notes,
    ):
        self.experiment = experiment
        self.cadence = experiment.cadence
        self.data = data
        self.run = run
        self.mesh = mesh
        self.checkpoints = checkpoints
        self.log = log
        self.console = console
        self.interruption = interruption
        self.clock = Clock(self.cadence)
        with self.clock.compiling():
            self.train_step = train_steps(experiment, data.train, abstract, mesh)
            params = abstract.params if abstract.ema is None else abstract.ema
            self.evaluator = Evaluator(experiment, params, data.evaluation["validation"], mesh)
        self.peaks = Peaks(notes.get("peaks", {}))

    def go_on(self, state: TrainState, profile_steps: tuple[int, int] | None) -> Outcome:
        """Steps from where the state stands to the end of the run; the order must not change.

        Metrics are read one step late, so that the device never waits for the host; but before
        anything is evaluated or saved they are read up to date, so nothing bad is ever saved.
        """
        start = step = int(state.step)
        pending: Pending | None = None
        profile = Profile(self.run, profile_steps)
        source = contextlib.closing(self.data.train.batches(start))
        with source as batches, profile, self.timing():
            while True:
                interrupted = self.interruption.requested(step)
                evaluation, save = self.due(step, start)
                if evaluation or save or interrupted:
                    self.read(pending)
                    pending = None
                    self.log.flush()
                ended = step == self.cadence.steps
                if evaluation:
                    state, better = self.evaluated(state)
                    ended = ended or impatient(self.experiment, state)
                    save = save or better or ended
                if save or interrupted:
                    self.save(state)
                if ended:
                    break
                if interrupted:
                    self.stop(step)
                try:
                    rows = next(batches)
                except Exception as error:  # of whatever reads data, which may be anybody's
                    self.read(pending)
                    self.give_up(state, error)
                profile.before(step + 1)
                try:
                    state, results = self.train_step(state, rows=rows)
                except FloatingPointError as error:  # only where JAX looks for NaN
                    self.read(pending)
                    bad = BadStep(step + 1, f"a number is none ({error})", examples_of(rows), 0)
                    raise NonFiniteError(f"{bad}; see --replay={step + 1}") from error
                self.read(pending)
                step += 1
                pending = step, rows, results
                profile.after(step, results)
        self.checkpoints.wait()
        reason = "finished" if step >= self.cadence.steps else "stopped early"
        return outcome(self.run, state, reason)

    def due(self, step: int, start: int) -> tuple[bool, bool]:
        """Whether to evaluate and to save here; what was due at the start, the last attempt did."""
        if step == start:
            return False, False
        last = step == self.cadence.steps
        evaluation = last or step % self.cadence.evaluate_every == 0
        return evaluation, last or step % self.cadence.save_every == 0

    def read(self, pending: Pending | None) -> None:
        """Reads the numbers of a step, stops if they are not finite, logs them if it is time.

        Raises:
          NonFiniteError: names the step, the batch and the last checkpoint.
        """
        if pending is None:
            return
        step, rows, results = pending
        metrics, numbers = jax.device_get(results)
        values = mean_values(metrics) | {name: float(value) for name, value in numbers.items()}
        in_a_row = values.pop("skipped_in_a_row", 0.0)
        if not_finite(values):
            self.complain(step, rows, values, int(in_a_row))
            self.clock.step(0.0)
            self.console.step(step)
            return
        self.peaks.see(values)
        self.clock.step(float(metrics["loss"].weight))
        self.console.step(step)
        due = step % self.cadence.log_every == 0
        if news := self.clock.news(step, due):
            self.console.line(news)
        if due:
            record: Record = {"step": step, "split": "train", "loss": values.pop("loss"), **values}
            record |= self.peaks.take()
            record["targets_per_second"] = self.clock.speed()
            self.log.write(record)
            self.console.train(record, self.clock.expected(step))

    def complain(self, step: int, rows: Batch, values: dict[str, float], in_a_row: int) -> None:
        """Says all that is known of a step whose numbers are not finite; it may have been skipped.

        Raises:
          NonFiniteError: it was not skipped, or too many were.
        """
        bad = BadStep(step, not_finite(values), examples_of(rows), int(values.get("skipped", 0)))
        self.log.write(bad.record())
        self.log.flush()
        where = f"{bad} ({(step - 1) // self.data.train.steps_per_epoch} epochs in)"
        if 0 < in_a_row <= self.experiment.optimization.skip_nonfinite:
            self.console.line(f"{where}: skipped, {in_a_row} in a row, {bad.skipped} in all")
            return
        raise NonFiniteError(
            f"{where}; {self.last_saved()}; the same command with --replay={step} repeats the step"
            " and looks for the cause"
        )

    def last_saved(self) -> str:
        """For a message."""
        saved = self.checkpoints.steps()
        step = f"step {saved[-1]}" if saved else "none"
        return f"last checkpoint: {step}, in {self.run.checkpoints}"

    def evaluated(self, state: TrainState) -> tuple[TrainState, bool]:
        """`evaluate`, with what can go wrong told as what it is.

        Raises:
          NonFiniteError: its headline is not finite.
          SourceError: the split cannot be read or scored; no step since the last save is kept, or
            a run that goes on would lack this evaluation.
        """
        try:
            with self.clock.evaluation():
                return self.evaluate(state)
        except (RunError, jax.errors.JaxRuntimeError):  # of a program, or of a process that is gone
            raise
        except FloatingPointError as error:  # only where JAX looks for NaN
            raise NonFiniteError(f"evaluation at step {int(state.step)}: {error}") from error
        except Exception as error:  # of whatever reads data
            raise SourceError(
                f"the validation split cannot be evaluated at step {int(state.step)}:"
                f" {summary(error)}; {self.last_saved()}, from which the same command goes on"
            ) from error

    def evaluate(self, state: TrainState) -> tuple[TrainState, bool]:
        """Evaluates, counts for early stopping, says whether the headline is the best so far."""
        params = state.params if state.ema is None else state.ema
        pipeline, step = self.data.evaluation["validation"], int(state.step)
        values = self.evaluator(params, pipeline)
        every, last = self.cadence.score_every, step == self.cadence.steps
        scored = last or (every is not None and step % every == 0)
        if scored:
            say = self.console.line if last else None
            values |= self.evaluator.scores(params, pipeline, self.data.vocabularies, say)
        headline = self.experiment.task.headline
        if not math.isfinite(values[headline]):
            self.log.write({"step": step, "split": "validation", **values})
            self.log.flush()
            raise NonFiniteError(
                f"validation {headline} is {values[headline]} at step {step}, of parameters that"
                f" training found nothing wrong with; {self.last_saved()}"
            )
        state, better = self.judge(state, values[headline])
        if not scored and impatient(self.experiment, state):
            say = self.console.line
            values |= self.evaluator.scores(params, pipeline, self.data.vocabularies, say)
        record: Record = {"step": step, "split": "validation", **values}
        self.log.write(record)
        self.log.flush()
        self.console.evaluation(record)
        self.clock.restart()
        return state, better

    def judge(self, state: TrainState, headline: float) -> tuple[TrainState, bool]:
        """Counts for early stopping; says whether a headline is the best so far."""
        # As the state keeps it, in float32, or a resumed run might decide otherwise.
        now, best = jnp.float32(headline), state.stopping.best
        better = bool(now > best if self.experiment.task.maximise else now < best)
        stopping = Stopping(
            best=now if better else best,
            best_step=state.step if better else state.stopping.best_step,
            worse=jnp.int32(0) if better else state.stopping.worse + 1,
        )
        # A copy of the step number, since the state is donated to the next step leaf by leaf.
        stopping = jax.device_put(jax.device_get(stopping), sharding.replicated(self.mesh))
        return dataclasses.replace(state, stopping=stopping), better

    def save(self, state: TrainState) -> None:
        """Saves the state, whose numbers have been read.

        Raises:
          NonFiniteError: its parameters are not finite; those that its step started from were.
        """
        if not bool(all_finite((state.params, state.ema))):
            raise NonFiniteError(
                f"parameters are not finite after step {int(state.step)}, whose loss and gradient"
                f" were; is the learning rate too high? {self.last_saved()}"
            )
        notes = {"metrics": self.log.mark(), "peaks": self.peaks.notes()}
        self.checkpoints.save(state, self.data.train.fingerprint, notes)
        self.clock.restart()

    def give_up(self, state: TrainState, error: Exception) -> NoReturn:
        """Ends the attempt because a batch cannot be read; keeps what was learned before it.

        Where there are several processes nothing is saved: the others know nothing of this, and to
        save takes all of them.

        Raises:
          SourceError: always, but for an error that speaks for itself.
        """
        step = int(state.step)
        self.log.flush()
        kept = self.last_saved()
        if jax.process_count() == 1:
            try:
                self.save(state)
                self.checkpoints.wait()
                kept = f"step {step} is saved in {self.run.path}"
            except StorageError as failure:
                kept = f"nor can it be saved ({failure})"
        if isinstance(error, RunError):
            raise error
        raise SourceError(
            f"batch {step} of the training pipeline cannot be read: {summary(error)}; {kept}; the"
            " same command goes on"
        ) from error

    def stop(self, step: int) -> None:
        """Ends the attempt because someone asked for it.

        Raises:
          Interrupted: once the checkpoint is on disk.
        """
        self.checkpoints.wait()
        raise Interrupted(
            f"stopped by {self.interruption.signal or 'SIGTERM to one of the hosts'} at step"
            f" {step}, saved in {self.run.path}; the same command goes on"
        )

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """Measures the attempt, from its first step to its last."""
        start = time.monotonic()
        self.clock.restart()
        try:
            yield
        finally:
            self.run.training_seconds = time.monotonic() - start
