"""A sweep over jobs that are curves: what is run, what is not, and what survives."""

import json
import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launch.jobs import Job, State
from launch.space import Space
from recattn_jax.errors import StorageError, UserError
from recattn_jax.training.space import Span
from tests.launch.fake_driver import FakeDriver
from tests.oracles import oracle

SPACE = Space({"x": (1, 2, 3, 4), "kind": ("a", "b", "c")})


def bowl(said, step):
    """Falls to (x - 3)^2, plus 1 or 2 for the kinds a and c."""
    return (int(said["x"]) - 3) ** 2 + abs("bac".index(said["kind"])) + 10 / step


@pytest.fixture
def study(tmp_path):
    oracle("optuna")
    from launch.study import Study

    def make(space=SPACE, sampler="tpe", pruner="none", maximise=False, seed=0, **identity):
        return Study(
            tmp_path / "sweep",
            {"sampler": sampler, "space": space.plain(), **identity},
            space,
            sampler=sampler,
            pruner=pruner,
            every=10,
            maximise=maximise,
            seed=seed,
        )

    return make


def sweep_of(study, driver, trials=12, workers=2, retries=0):
    from launch.trials import Plan, Sweep

    def job(name, argv, folder):
        return Job(name, argv, folder, "cpu", retries=retries)

    plan = Plan("some.py", (), "loss", trials, workers, 0.0, "python", job)
    return Sweep(study, driver, plan, lambda trials: None, lambda line: None)


def distinct(trials):
    return {tuple(sorted(trial.parameters.items())) for trial in trials}


def states(study):
    return [trial.state for trial in study.summaries()]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_every_configuration_is_run_once_and_the_best_is_found(study, sampler):
    here, driver = study(sampler=sampler), FakeDriver(bowl)
    sweep_of(here, driver, trials=12).run()
    trials = here.summaries()
    assert [trial.state for trial in trials] == ["finished"] * 12
    assert len(distinct(trials)) == 12 and len(driver.started) == len(set(driver.started)) == 12
    best = min(trials, key=lambda trial: trial.value)
    assert (best.parameters, best.value, best.step) == ({"x": 3, "kind": "b"}, 0.25, 40)
    assert here.importances().keys() == {"x", "kind"}


def test_the_value_is_the_best_of_the_run_and_not_the_last(study):
    here = study(maximise=True)
    rises_and_falls = FakeDriver(lambda said, step: -abs(step - 20) + int(said["x"]))
    sweep_of(here, rises_and_falls, trials=3).run()
    assert all(trial.value == trial.parameters["x"] for trial in here.summaries())


def test_a_space_without_more_ends_the_sweep(study):
    here, driver = study(Space({"x": (1, 2), "kind": ("a",)})), FakeDriver(bowl)
    sweep_of(here, driver, trials=12).run()
    assert states(here) == ["finished"] * 2


def test_spans_are_kept_and_what_is_tried_depends_on_the_trials_alone(study, tmp_path):
    from launch.study import propose

    space = Space({"lr": Span(1e-4, 1e-2, log=True), "depth": Span(1, 3)})
    here, driver = study(space), FakeDriver(lambda said, step: float(said["lr"]))
    sweep_of(here, driver, trials=12, workers=1).run()
    trials = here.summaries()
    assert len(distinct(trials)) == 12
    for trial in trials:
        assert 1e-4 <= trial.parameters["lr"] <= 1e-2 and trial.parameters["depth"] in (1, 2, 3)
        assert driver.jobs[f"{here.name}-{trial.number}"].argv[4:6] == (
            f"--config.lr={trial.parameters['lr']!r}",
            f"--config.depth={trial.parameters['depth']}",
        )
    offered = [propose(here.trials()[:n], space, "tpe", 0, False) for n in range(12)]
    assert offered == [trial.parameters for trial in trials]
    assert propose([], space, "tpe", 1, False) != offered[0]


def test_a_span_is_not_used_up(study):
    here = study(Space({"lr": Span(0.0, 1.0)}), sampler="random")
    sweep_of(here, FakeDriver(lambda said, step: float(said["lr"])), trials=30).run()
    assert states(here) == ["finished"] * 30 and len(distinct(here.summaries())) == 30


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_all_of_a_span_that_counts_is_tried(study, sampler):
    """The sampler offers what is good again and again, and there is more."""
    here = study(Space({"depth": Span(1, 20)}), sampler=sampler)
    sweep_of(here, FakeDriver(lambda said, step: float(said["depth"])), trials=30).run()
    assert len(states(here)) == len(distinct(here.summaries())) == 20


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_a_bad_trial_is_stopped_and_counts(study, pruner):
    here, driver = study(sampler="random", pruner=pruner), FakeDriver(bowl)
    sweep_of(here, driver, trials=12, workers=1).run()
    pruned = [trial for trial in here.summaries() if trial.state == "pruned"]
    assert len(states(here)) == 12 and 2 <= len(pruned) < 12
    assert driver.stopped == [f"{here.name}-{trial.number}" for trial in pruned]
    assert all(trial.step < 40 for trial in pruned)
    best = min(trial.value for trial in here.summaries() if trial.state == "finished")
    assert best == 0.25


def test_what_fails_is_tried_again_then_marked_and_does_not_count(study):
    ends = {"2": lambda attempt: 0 if attempt == 3 else 1, "4": lambda attempt: 3}
    driver = FakeDriver(bowl, lambda said, n: ends.get(said["x"], lambda attempt: 0)(n))
    here = study(Space({"x": (1, 2, 3, 4), "kind": ("a",)}), sampler="grid")
    sweep_of(here, driver, trials=4, retries=2).run()
    assert states(here) == ["finished"] * 3 + ["failed"]
    assert list(driver.attempts.values()) == [1, 3, 1, 1]
    assert here.summaries()[3].reason == "exit code 3: it broke"


@pytest.mark.parametrize(("ends", "code"), [(2, 2), (3, 3), (1, 1), (-9, 1)])
def test_when_all_fail_the_sweep_ends_with_their_code(study, ends, code):
    from launch.trials import TrialsFailed

    here, driver = study(), FakeDriver(bowl, lambda *_: ends)
    with pytest.raises(TrialsFailed, match="5 trials in a row failed, .*it broke") as failed:
        sweep_of(here, driver, workers=1).run()
    assert failed.value.exit_code == code
    assert states(here) == ["failed"] * 5


def test_one_that_fails_alone_is_told_so(study):
    from launch.trials import TrialsFailed

    with pytest.raises(TrialsFailed, match="^trial 0 failed with exit code 1: it broke; the same"):
        sweep_of(study(), FakeDriver(bowl, lambda *_: 1), trials=1).run()


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        ("NonFiniteError: loss is nan", "exit code 3: NonFiniteError: loss is nan; it broke"),
        ("crashed: KeyError: 'a'", "exit code 3: crashed: KeyError: 'a'; it broke"),
        ("killed", "exit code 3: it broke"),
        ("Interrupted: stopped by SIGTERM", "exit code 3: it broke"),
    ],
)
def test_the_reason_is_in_the_words_of_the_run(study, ended, reason):
    def fails(said, attempt):
        if said["kind"] == "b":
            return 0
        run = Path(said["workdir"])
        run.mkdir(exist_ok=True)
        (run / "run.json").write_text(json.dumps({"ended": ended}))
        return 3

    here = study(Space({"x": (3,), "kind": ("a", "b")}), sampler="grid")
    sweep_of(here, FakeDriver(bowl, fails), trials=2).run()
    assert [trial.reason for trial in here.summaries()] == [reason, ""]


def test_a_request_to_stop_is_heard_between_two_looks(study, monkeypatch):
    from launch import trials

    slept = []

    def sleep(seconds):
        assert not slept, "it was asked to stop, and sleeps on"
        slept.append(seconds)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trials.time, "sleep", sleep)
    with trials.asked_to_stop() as asked:
        trials.pause(3600.0, asked)
    assert asked == ["SIGTERM"] and slept[0] < 1


def test_failures_that_are_not_in_a_row_do_not_end_it(study):
    driver = FakeDriver(bowl, lambda said, attempt: 1 if said["x"] != "3" else 0)
    here = study(Space({"kind": ("a", "b", "c"), "x": (1, 2, 4, 3)}), sampler="grid")
    sweep_of(here, driver, workers=1).run()
    assert states(here) == [*["failed"] * 3, "finished"] * 3


def test_a_run_without_a_number_has_failed(study):
    here = study(Space({"x": (3,), "kind": ("a", "b")}))
    driver = FakeDriver(lambda said, step: float("nan") if said["kind"] == "a" else 1.0)
    sweep_of(here, driver, trials=2).run()
    by_kind = {trial.parameters["kind"]: trial for trial in here.summaries()}
    assert by_kind["b"].state == "finished"
    assert "no finite loss" in by_kind["a"].reason


@pytest.mark.parametrize("pruner", ["none", "median"])
def test_a_sweep_that_is_killed_again_and_again_loses_and_repeats_nothing(study, pruner):
    """A process that is killed leaves its jobs and the journal; its locks are free."""
    driver, chance = FakeDriver(bowl), random.Random(0)
    while True:
        sweep = sweep_of(study(pruner=pruner), driver, workers=3)
        going = all(sweep.step() for _ in range(chance.randrange(4)))
        sweep.close()
        if not going:
            break
    here = study(pruner=pruner)
    assert len(distinct(here.summaries())) == 12
    assert set(states(here)) <= {"finished", "pruned"}
    assert len(driver.started) == len(set(driver.started)) == 12


def test_a_trial_that_was_written_down_and_not_started_is_started(study):
    driver, here = FakeDriver(bowl), study()
    _, lock = here.ask(12)
    lock.release()
    assert driver.started == []
    sweep_of(study(), driver).run()
    assert states(study()) == ["finished"] * 12 and driver.started[0] == f"{here.name}-0"


def test_a_trial_that_ends_while_nobody_looks_is_told(study):
    here, driver = study(), FakeDriver(bowl)
    sweep = sweep_of(here, driver, trials=1)
    sweep.step()
    sweep.close()
    (job,) = driver.jobs.values()
    while not driver.status(job).over:
        pass
    sweep_of(study(), driver, trials=1).run()
    assert states(study()) == ["finished"]
    assert study().trial(0).intermediate_values.keys() == {10, 20, 30, 40}


def test_sweeps_on_one_folder_share_the_trials(study):
    driver = FakeDriver(bowl)
    most = []

    def work(sweep):
        while sweep.step():
            most.append(sum(status.state == State.RUNNING for status in driver.statuses.values()))

    sweeps = [sweep_of(study(pruner="median"), driver, trials=9, workers=2) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, sweeps))
    assert 2 < max(most) <= 6
    assert len(states(study())) == len(driver.started) == 9
    assert set(states(study())) <= {"finished", "pruned"}


def test_a_trial_is_looked_after_by_one_of_them(study):
    driver = FakeDriver(bowl)
    first, second = (sweep_of(study(), driver, trials=2, workers=2) for _ in range(2))
    first.step()
    assert second.step()
    assert len(driver.started) == 2 and second._locks == {} and len(first._locks) == 2
    first.close()
    second.step()
    assert len(driver.started) == 2 and len(second._locks) == 2
    second.close()


def test_a_trial_that_another_has_just_told_is_not_adopted(study):
    here = study()
    sweep_of(here, FakeDriver(bowl), trials=1).run()
    assert here.adopt(0) is None and here.adopt(0) is None


@pytest.mark.parametrize("deaf", [0, 3])
def test_asked_to_stop_it_lets_the_jobs_save_and_the_next_one_goes_on(study, deaf):
    here, driver = study(), FakeDriver(bowl)
    sweep = sweep_of(here, driver, trials=3, workers=2)
    sweep.step()
    sweep.leave()
    assert driver.stopped == driver.started and states(here) == ["running"] * 2
    driver.deaf = deaf  # whoever looked after the stopped job may be about to end
    sweep_of(study(), driver, trials=3, workers=1).run()
    assert states(here) == ["finished"] * 3
    assert sorted(driver.started) == sorted([*driver.stopped, *here_jobs(here)])


def test_what_fails_after_it_was_interrupted_has_failed(study):
    here, driver = study(), FakeDriver(bowl)
    sweep = sweep_of(here, driver, trials=1, workers=1)
    sweep.step()
    sweep.leave()
    looks = []

    def exit_code(said, attempt):
        looks.append(said["workdir"])
        return 1 if len(looks) == 2 else 0

    driver.exit_code = exit_code
    sweep_of(study(), driver, trials=2, workers=1).run()
    assert states(here) == ["failed", "finished", "finished"] and len(driver.started) == 4


def here_jobs(study):
    return [trial.user_attrs["job"] for trial in study.trials()]


def test_a_folder_of_another_sweep_is_refused_with_what_differs(study):
    study()
    with pytest.raises(UserError, match='another sweep .sampler: "tpe" there, "grid" now'):
        study(sampler="grid")
    with pytest.raises(UserError, match=r"space: .*\[1, 2\].* now"):
        study(Space({"x": (1, 2)}))
    assert study().name == study().name


def test_a_torn_line_in_the_journal_is_cut_off(study, tmp_path):
    here, driver = study(), FakeDriver(bowl)
    sweep_of(here, driver, trials=1).run()
    journal = tmp_path / "sweep" / "journal.log"
    with journal.open("a") as file:
        file.write('{"op_code": 4, "wor')
    sweep_of(study(), driver, trials=2).run()
    assert states(study()) == ["finished"] * 2


@pytest.mark.parametrize(("name", "text"), [("sweep.json", ""), ("journal.log", "{no json\n")])
def test_a_folder_that_is_damaged_is_refused(study, tmp_path, name, text):
    study()
    (tmp_path / "sweep" / name).write_text(text)
    with pytest.raises(StorageError, match=f"{name} is damaged .*; use another --folder"):
        study()


def test_a_folder_of_somebody_else_is_refused(study, monkeypatch):
    from recattn_jax.locks import FileLock

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    study()
    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(UserError, match="cannot write in the folder .*sweep: .*denied"):
        study()
