"""The loop: what it leaves behind, when it stops, and how it goes on."""

import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recattn_jax import errors
from recattn_jax.training import Privacy, fit, optimizers, runs
from recattn_jax.training.metrics import read_records
from recattn_jax.training.state import init_params
from tests.training.toy import Counting, Recurrence, run_folder, toy, train


def test_a_run_learns_and_leaves_its_files(tmp_path):
    outcome, lines = train(tmp_path / "run", steps=60, save_every=30, evaluate_every=30)
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    losses = [r["loss"] for r in records if r["split"] == "train"]
    assert [r["step"] for r in records if r["split"] == "train"] == list(range(1, 61))
    assert losses[0] > 2.5 and np.mean(losses[-5:]) < 1.2, losses
    assert outcome.reason == "finished" and outcome.step == 60
    assert outcome.metrics["loss"] == records[-1]["loss"]
    assert outcome.best == np.float32(records[-1]["loss"]) and outcome.best_step == 60
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "config.json", "run.json", "model.txt", "vocabularies.json", "metrics.jsonl", "tensorboard",
        "checkpoints", "run.lock",
    }  # fmt: skip
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["ended"] == "done" and record["training_seconds"] > 0
    assert "recurrent_kernel" in (tmp_path / "run" / "model.txt").read_text()


class Stops(BaseException):
    """A crash: no error that anybody expects."""


class Breaking(Counting):
    """Breaks off at a batch."""

    def __init__(self, *arguments, broken, error=Stops):
        super().__init__(*arguments, seed=0)
        self.broken = broken
        self.error = error

    def batch(self, index):
        if index == self.broken:
            raise self.error
        return super().batch(index)


def numbers(path):
    records = read_records(path / "metrics.jsonl")
    for record in records:
        record.pop("targets_per_second", None)
        record.pop("seconds")
    return records


def bits(path, step):
    return json.loads((path / "checkpoints" / str(step) / "meta" / "metadata").read_text())[
        "digest"
    ]


def test_averages_counters_and_carry_survive_a_crash(tmp_path):
    """With a rate that makes things worse, patience ends the run at the same step, crash or not."""
    changes = {
        "optimizer": optimizers.adam(lambda s: jnp.where(s < 5, 1e-2, 2.0), 0.9, 0.999, 1e-8, None),
        "steps": 60, "patience": 3, "ema_decay": 0.5, "carry_state": True,
    }  # fmt: skip
    outcome, _ = train(tmp_path / "whole", **changes)
    assert outcome.reason == "stopped early" and outcome.step < 60
    assert outcome.step == outcome.best_step + 3 * 4
    with pytest.raises(Stops):
        train(tmp_path / "run", **changes, train=Breaking(8, 12, 16, broken=outcome.step - 2))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["ended"].startswith("crashed")
    assert "raise self.error" in record["attempts"][0]["traceback"]
    again, lines = train(tmp_path / "run", **changes)
    assert any(line.startswith("going on from step") for line in lines)
    assert (again.step, again.reason) == (outcome.step, "stopped early")
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")
    assert bits(tmp_path / "run", again.step) == bits(tmp_path / "whole", again.step)
    done, lines = train(tmp_path / "run", **changes)
    assert done.reason == "already done" and "already done" in lines[-1]
    assert done.metrics == outcome.metrics
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")


def test_a_loss_that_is_no_number_stops_and_saves_nothing_bad(tmp_path):
    with pytest.raises(errors.NonFiniteError) as caught:
        train(tmp_path / "run", train=Counting(8, 12, 16, seed=0, poison=7))
    words = str(caught.value)
    assert "loss is nan and grad norm is nan at step 8, batch 7" in words, words
    assert "checkpoint: step 6" in words and "--replay=8" in words, words
    records = numbers(tmp_path / "run")
    assert records[-1] == {
        "step": 8, "split": "nonfinite", "batch": 7, "examples": [],
        "what": "loss is nan and grad norm is nan", "skipped": 0,
    }  # fmt: skip
    assert [r["step"] for r in records if r["split"] == "train"] == list(range(1, 8))
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["4", "6"]


def test_nothing_is_saved_before_its_numbers_were_read(tmp_path):
    """The bad step is the one that is due to be saved."""
    with pytest.raises(errors.NonFiniteError, match="at step 3, batch 2.*checkpoint: none"):
        train(tmp_path / "run", train=Counting(8, 12, 16, seed=0, poison=2))
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_data_that_cannot_be_read_any_more_costs_no_step(tmp_path):
    broken = Breaking(8, 12, 16, broken=7, error=OSError(5, "Input/output error"))
    with pytest.raises(errors.SourceError, match=r"batch 7 .*Input/output error; step 7 is saved"):
        train(tmp_path / "run", train=broken)
    again, lines = train(tmp_path / "run")
    whole, _ = train(tmp_path / "whole")
    assert any(line.startswith("going on from step 7") for line in lines)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")
    assert bits(tmp_path / "run", again.step) == bits(tmp_path / "whole", whole.step)


def test_a_fault_that_speaks_for_itself_is_kept_as_it_is(tmp_path):
    broken = Breaking(8, 12, 16, broken=5, error=errors.UserError("text.txt:7: no number"))
    with pytest.raises(errors.UserError, match="^text.txt:7: no number$"):
        train(tmp_path / "run", train=broken)
    assert "5" in {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}


def test_a_validation_split_that_cannot_be_read_is_named(tmp_path):
    broken = Breaking(8, 12, 16, broken=10**6, error=OSError(5, "Input/output error"))
    words = r"validation split cannot be evaluated at step 4: .*Input/output error; .* step 3,"
    with pytest.raises(errors.SourceError, match=words):
        train(tmp_path / "run", validation=broken)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "raise self.error" in record["attempts"][0]["traceback"]
    train(tmp_path / "run")
    train(tmp_path / "whole")
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")


def test_a_program_that_fails_in_an_evaluation_is_no_fault_of_the_data(tmp_path):
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
    broken = Breaking(8, 12, 16, broken=10**6, error=error)
    with pytest.raises(jax.errors.JaxRuntimeError):
        train(tmp_path / "run", validation=broken)


def test_parameters_that_an_update_breaks_are_not_saved(tmp_path):
    """Loss and gradient of the step are those of the parameters before it."""
    rate = {"optimizer": optax.sgd(lambda step: jnp.where(step == 5, jnp.inf, 1e-2))}
    with pytest.raises(errors.NonFiniteError, match="not finite after step 6.*checkpoint: step 4"):
        train(tmp_path / "run", **rate)


@pytest.mark.parametrize("poison", [4, pytest.param(11, marks=pytest.mark.slow)])
def test_a_step_that_is_skipped_leaves_all_as_it_was(tmp_path, poison):
    changes = {"skip_nonfinite": 1, "ema_decay": 0.5, "carry_state": True}
    train(tmp_path / "short", **changes, steps=poison)
    before = bits(tmp_path / "short", poison)
    bad = Counting(8, 12, 16, seed=0, poison=poison)
    _, lines = train(tmp_path / "run", **changes, steps=poison + 1, train=bad)
    after = bits(tmp_path / "run", poison + 1)
    counted = {name for name in after if after[name] != before[name]}
    # A step that was left out has a number and was evaluated, and nothing else.
    assert {name for name in counted if not name.startswith("stopping")} == {
        "step", "opt_state/notfinite_count", "opt_state/total_notfinite", "opt_state/last_finite",
    }  # fmt: skip
    told = f"at step {poison + 1}, batch {poison} of the training pipeline"
    assert any(told in line and "skipped, 1 in a row, 1 in all" in line for line in lines)
    records = [r for r in numbers(tmp_path / "run") if r["step"] == poison + 1]
    assert [r["split"] for r in records] == ["nonfinite", "validation"]


def test_a_run_goes_on_after_a_skipped_step_and_counts_it(tmp_path):
    bad = Counting(8, 12, 16, seed=0, poison=4)
    outcome, _ = train(tmp_path / "run", skip_nonfinite=1, train=bad)
    assert outcome.step == 12
    records = [r for r in numbers(tmp_path / "run") if r["split"] == "train"]
    assert [r["step"] for r in records] == [1, 2, 3, 4, *range(6, 13)]
    assert [r["skipped"] for r in records] == [0] * 4 + [1] * 7
    # Its schedule stood still too.
    moving = {"learning_rate": lambda step: 1e-2 * (step + 1), "skip_nonfinite": 1}
    train(tmp_path / "rates", **moving, train=bad, steps=6)
    rates = [r["learning_rate"] for r in numbers(tmp_path / "rates") if r["split"] == "train"]
    np.testing.assert_allclose(rates, [0.01, 0.02, 0.03, 0.04, 0.05], rtol=1e-6)


class Poisoned(Counting):
    """Nothing to learn from some batch on."""

    def batch(self, index):
        batch = super().batch(index)
        if 4 <= index < 10**6:
            batch["segments"] = batch["segments"] * 0
        return batch


def test_more_skipped_steps_in_a_row_than_allowed_stop_the_run(tmp_path):
    with pytest.raises(errors.NonFiniteError, match="at step 7, batch 6.*checkpoint: step 6"):
        train(tmp_path / "run", skip_nonfinite=2, train=Poisoned(8, 12, 16, seed=0))
    bad = [r["step"] for r in numbers(tmp_path / "run") if r["split"] == "nonfinite"]
    assert bad == [5, 6, 7]


def test_steps_are_not_skipped_where_that_tells_of_the_data():
    privacy = Privacy(1.0, 1.0, 1e-5)
    with pytest.raises(errors.UserError, match="no guarantee covers skipped steps"):
        toy(privacy=privacy, skip_nonfinite=1)
    with pytest.raises(errors.UserError, match="skip_nonfinite is -1"):
        toy(skip_nonfinite=-1)


def test_an_evaluation_without_a_number_stops_the_run(tmp_path):
    empty = Counting(8, 12, 16, seed=1, poison=10**6)
    empty.epoch = lambda: iter([empty.batch(10**6)])
    with pytest.raises(errors.NonFiniteError, match="validation loss is nan at step 4"):
        train(tmp_path / "run", validation=empty)
    assert numbers(tmp_path / "run")[-1]["split"] == "validation"  # with what else it says
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["3"]


def test_peaks_between_two_lines_are_told_whoever_was_interrupted(tmp_path):
    every = {"steps": 12, "evaluate_every": 12, "save_every": 5}
    train(tmp_path / "all", **every, log_every=1)
    losses = [r["loss"] for r in numbers(tmp_path / "all") if r["split"] == "train"]
    train(tmp_path / "few", **every, log_every=4)
    few = [r for r in numbers(tmp_path / "few") if r["split"] == "train"]
    assert [r["loss_peak"] for r in few] == [max(losses[i : i + 4]) for i in (0, 4, 8)]
    assert all(r["grad_norm_peak"] >= r["grad_norm"] for r in few)
    assert any(r["loss_peak"] > r["loss"] for r in few)
    with pytest.raises(Stops):
        # After the save at step 5, in the middle of the steps of one line.
        train(tmp_path / "run", **every, log_every=4, train=Breaking(8, 12, 16, broken=6))
    train(tmp_path / "run", **every, log_every=4)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "few")


def test_old_attempts_are_forgotten_but_for_their_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ATTEMPTS", 3)
    folder = run_folder(tmp_path)
    for _ in range(6):
        with folder.recording():
            folder.training_seconds = 2.0
    record = json.loads((tmp_path / "run.json").read_text())
    assert len(record["attempts"]) == 3 and record["forgotten"]["attempts"] == 3
    assert record["training_seconds"] == 12.0


class Signalling(Counting):
    """Sends this process a signal, or two, while a batch is made."""

    def __init__(self, *signals):
        super().__init__(8, 12, 16, seed=0)
        self.signals = signals

    def batch(self, index):
        if index == 4:
            for number in self.signals:
                os.kill(os.getpid(), number)
        return super().batch(index)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_saves_and_the_same_command_goes_on(tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(errors.Interrupted, match=f"{number.name} at step 5, saved") as caught:
        train(tmp_path / "run", steps=6, train=Signalling(number))
    assert caught.value.exit_code == 42
    assert signal.getsignal(number) is before
    outcome, lines = train(tmp_path / "run", steps=6)
    assert any(line.startswith("going on from step 5") for line in lines) and outcome.step == 6
    steps = [r["step"] for r in numbers(tmp_path / "run") if r["split"] == "train"]
    assert steps == list(range(1, 7))


def test_a_second_interrupt_is_a_keyboard_interrupt(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", train=Signalling(signal.SIGINT, signal.SIGINT))


def test_misfits_are_named_before_anything_is_written(tmp_path):
    wide = Counting(8, 24, 16, seed=0)
    experiment, data = toy()
    cases = {
        "validation split": (experiment, dataclasses.replace(data, evaluation={})),
        "the training pipeline gives": (experiment, dataclasses.replace(data, train=wide)),
        "batch of 8 rows": toy(accumulate=3),
        "carry_state needs a model that streams": toy(
            model=Backwards(vocabulary=16, width=64, dropout=0.0), carry_state=True
        ),
    }
    for words, (experiment, data) in cases.items():
        with pytest.raises(errors.UserError, match=words):
            fit(experiment, data, run_folder(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(errors.UserError, match="log_every is 0"):
        toy(log_every=0)


class Backwards(Recurrence):
    streams = False


def test_another_runs_weights_are_where_a_new_run_starts(tmp_path):
    experiment, data = toy(steps=4, evaluate_every=4)
    params = jax.device_get(init_params(experiment, 7))
    fit(experiment, data, run_folder(tmp_path / "a"), initial_params=params, profile_steps=(2, 3))
    train(tmp_path / "b", steps=4, evaluate_every=4)
    first = [numbers(tmp_path / name)[0]["loss"] for name in "ab"]
    assert first[0] != first[1]
    assert list((tmp_path / "a" / "profile").rglob("*.xplane.pb"))
    params.pop("readout")
    with pytest.raises(errors.UserError, match="initial parameters lack readout/bias"):
        fit(experiment, data, run_folder(tmp_path / "c"), initial_params=params)
    assert not (tmp_path / "c").exists()
