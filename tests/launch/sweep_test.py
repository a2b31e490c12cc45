"""The command: what it says, writes and refuses; its jobs are curves, but for the slow test."""

import csv
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from launch import drivers, sweep
from launch.board import Board
from launch.jobs import Status
from recattn_jax.analysis.sweeps import Trial
from tests.launch.commands import TEXT, TINY, everything_under, python_process
from tests.launch.drivers.waiting import until
from tests.launch.fake_driver import FakeDriver, arguments
from tests.oracles import oracle

CONFIG = f"--config={TINY}"


def curve(said, step):
    return abs(float(said.get("peak_lr", 0.5)) - 0.2) + int(said["width"]) / 100 + 1 / step


@pytest.fixture
def driver(monkeypatch):
    oracle("optuna")
    found = FakeDriver(curve)
    monkeypatch.setattr(drivers, "from_flags", lambda flag_values: found)
    return found


def searched(call, *more):
    return call(sweep, CONFIG, "--folder=here", "--workers=3", "--poll=0.01", *more)


def test_it_says_the_best_how_to_repeat_it_and_writes_a_page(call, driver):
    result = searched(call, "--trials=24", "--config.steps=6", "--pruner=median", "--sampler=grid")
    assert result.code == 0, result.err
    assert result.out.startswith("24 configurations: peak_lr 4 x width 3 x streams 2; 24 trials in")
    *_, best, again, written = result.out.splitlines()
    assert re.fullmatch(r"best bits_per_byte 0.045 in trial \d+; again with:", best)
    assert again == (
        f"python -m launch.train {CONFIG} --config.steps=6 --config.peak_lr=0.2 --config.width=2"
        " --config.streams=true --workdir=here/best"
    )
    assert written == "written: here/sweep.md"
    assert all(arguments(job)["steps"] == "6" for job in driver.jobs.values())
    rows = list(csv.DictReader(Path("here/sweep.csv").read_text().splitlines()))
    assert [int(row["trial"]) for row in rows] == list(range(24))
    assert {row["state"] for row in rows} == {"finished", "pruned"}
    page = Path("here/sweep.md").read_text()
    assert f"\n\nBest {best.removeprefix('best ')}\n\n" in page  # a paragraph of its own
    assert page.count("\n| ") == 26 and f"    {again}\n" in page
    table = [line.split(" | ")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert table[2:] == sorted(table[2:], key=["finished", "pruned"].index)
    for figure in ("parallel.png", "importance.png"):
        assert f"({figure})" in page
        assert Path("here", figure).read_bytes().startswith(b"\x89PNG")

    before = everything_under(Path("here"))
    again = searched(call, "--trials=24", "--config.steps=6", "--pruner=median", "--sampler=grid")
    assert (again.code, again.out.splitlines()[-4:]) == (0, result.out.splitlines()[-4:])
    assert len(driver.started) == 24 and everything_under(Path("here")) == before


def test_some_keys_and_more_trials_than_there_are(call, driver):
    result = searched(call, "--space=width", "--trials=9", "--config.peak_lr=0.3")
    assert result.code == 0, result.err
    assert "3 trials: 3 finished; the space has no more than these 3" in result.out
    assert not Path("here/importance.png").exists()
    assert {arguments(job)["peak_lr"] for job in driver.jobs.values()} == {"0.3"}


def test_without_a_value_there_is_no_best(call, driver):
    driver.exit_code = lambda said, attempt: 1 if float(said["peak_lr"]) == 0.1 else 0
    result = searched(call, "--space=width", "--config.peak_lr=0.1", "--retries=0")
    assert result.code == 1 and result.err == "error: no trial finished; here/sweep.md says why\n"
    assert "3 trials: 3 failed" in result.out and "best" not in result.out
    assert Path("here/sweep.md").read_text().count("exit code 1: it broke") == 3


def test_trial_after_trial_that_fails_ends_it(call, driver):
    driver.exit_code = lambda said, attempt: 2
    result = searched(call)
    assert result.code == 2 and result.err.count("\n") == 1
    assert result.err.startswith("error: 5 trials in a row failed") and "it broke" in result.err
    table = Path("here/sweep.md").read_text()
    assert table.count("| failed ") == 5 and "5 failed" in table and "no more" not in table


@pytest.mark.parametrize("heard", [signal.SIGINT, signal.SIGTERM])
def test_one_request_to_stop_lets_the_jobs_save(call, driver, heard):
    looks = []

    def status(job):
        looks.append(job.name)
        if len(looks) == 4:
            os.kill(os.getpid(), heard)
        return FakeDriver.status(driver, job)

    driver.status = status
    result = searched(call)
    assert result.code == 42, result.err
    assert result.err.count("\n") == 1 and heard.name in result.err and "here" in result.err
    assert f"{heard.name}: waiting for 3 jobs to save and stop; Ctrl-C leaves them" in result.out
    assert len(driver.stopped) == 3
    done = searched(call)
    assert done.code == 0 and "12 trials: 12 finished" in done.out


def test_a_second_ctrl_c_leaves_the_jobs_alone(call, driver):
    def status(job):
        os.kill(os.getpid(), signal.SIGINT)
        return Status(FakeDriver.status(driver, job).state)

    driver.status = status
    assert searched(call).code == 130
    assert driver.stopped == []


def test_a_dry_run_shows_the_first_job_and_writes_nothing(call, driver):
    before = everything_under(Path())
    result = searched(call, "--dry_run", "--accelerator=cpu:2", "--sampler=grid")
    assert result.code == 0, result.err
    said, first, command = result.out.splitlines()
    assert said.startswith("24 configurations") and re.search(r"would be here-[0-9a-f]{6}-0", first)
    assert shlex.split(command)[2:] == [
        *("-m", "launch.train", CONFIG, "--config.peak_lr=0.1", "--config.width=2"),
        *("--config.streams=true", f"--workdir={Path.cwd()}/here/trial-0"),
    ]
    assert driver.started == [] and everything_under(Path()) == before


def test_a_dry_run_looks_at_what_is_in_the_folder(call, driver):
    assert searched(call, "--space=width", "--trials=1").code == 0
    before = everything_under(Path())
    other = searched(call, "--space=width", "--sampler=grid", "--dry_run")
    assert other.code == 2 and "here holds another sweep" in other.err
    result = searched(call, "--space=width", "--dry_run")
    assert f"the first job was {driver.started[0]}:" in result.out
    assert everything_under(Path()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.peak_lr=0.3"], ["--config.peak_lr", "--space=width,streams"]),
        (["--space=peak_rl"], ["peak_rl", "did you mean peak_lr?"]),
        (["--trails=3"], ["--trails", "did you mean --trials?"]),
        (["--poll=nan"], ["--poll=nan", "seconds"]),
        (["--config.width=a"], ["--config.width=a", "expected an integer"]),
        (["--trials=0"], ["--trials=0", "expected a positive integer"]),
        (["--sampler=tbe"], ["--sampler=tbe", "expected one of tpe, "]),
        (["--workdir=run"], ["--workdir"]),
    ],
)
def test_what_makes_no_sense_is_refused(call, arguments, words):
    before = everything_under(Path())
    result = call(sweep, CONFIG, *arguments)
    assert result.code == 2 and result.out == "" and result.err.count("\n") == 1
    assert all(word in result.err for word in words), result.err
    assert everything_under(Path()) == before


def test_a_span_has_no_grid(call):
    text = Path(TINY).read_text()
    Path("spans.py").write_text(
        text + "    return {}\n\n\nfrom recattn_jax.training import Span\n\n\ndef sweep():\n"
        "    return {'peak_lr': Span(0.1, 1.0)}\n"
    )
    result = call(sweep, "--config=spans.py", "--sampler=grid")
    assert result.code == 2 and "peak_lr has no end of values" in result.err


def test_without_optuna_the_line_says_what_to_install(call, monkeypatch):
    for module in ("launch.study", "launch.trials"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = call(sweep, CONFIG)
    assert result.code == 2 and result.err.count("\n") == 1
    assert "pip install -e '.[launch]'" in result.err


def test_another_sweep_in_the_folder_is_refused(call, driver):
    assert searched(call, "--space=width", "--trials=1").code == 0
    for more, words in (
        (["--space=streams"], "space.streams: absent there"),
        (["--space=width", "--config.steps=9"], "config.steps: 4 there, 9 now"),
        (["--space=width", "--sampler=random"], 'sampler: "tpe" there, "random" now'),
        (["--space=width", "--seed=1"], "seed: 0 there, 1 now"),
    ):
        result = searched(call, *more)
        assert result.code == 2 and words in result.err, result.err
    more = searched(call, "--space=width", "--trials=3")
    assert more.code == 0 and "3 trials: 3 finished" in more.out


class Screen(list):
    def __init__(self, terminal):
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.append(text)

    def flush(self):
        pass


def shown(screen, *rounds):
    board = Board(screen, "loss", maximise=False)
    for trials in rounds:
        board.show(trials)
        board.show(trials)
    return board


ROUNDS = (
    [Trial(0, "running", {"width": 8}, None, None)],
    [Trial(0, "running", {"width": 8}, 10, 1.5), Trial(1, "running", {"width": 4}, None, None)],
    [
        Trial(0, "finished", {"width": 8}, 10, 1.5),
        Trial(1, "failed", {"width": 4}, None, None, "it broke"),
    ],
)


def test_a_log_has_a_line_for_each_change():
    log = Screen(False)
    shown(log, *ROUNDS).say("stopping")
    assert "".join(log).splitlines() == [
        "trial 0 running: width=8",
        "trial 0 running: width=8, step 10, loss 1.5",
        "trial 1 running: width=4",
        "trial 0 finished: width=8, step 10, loss 1.5",
        "trial 1 failed: width=4, it broke",
        "stopping",
    ]


def test_a_terminal_has_a_table_that_is_drawn_over(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    terminal = Screen(True)
    board = shown(terminal, *ROUNDS)
    assert len(terminal) == 3 and terminal[1].startswith("\x1b[3F\x1b[J2 running\n")
    assert terminal[2].removeprefix("\x1b[4F\x1b[J").splitlines() == [
        "1 finished, 1 failed; best loss 1.5 in trial 0",
        "trial  state     loss  step  width",
        "0      finished  1.5   10    8",
        "1      failed                4      it broke",
    ]
    board.say("stopping")
    board.show([])
    board.show(ROUNDS[0])
    assert terminal[3] == "stopping\n" and not terminal[4].startswith("\x1b")


@pytest.mark.parametrize("lines", [1, 2, 6])
def test_a_small_terminal_shows_what_runs_and_what_is_new(monkeypatch, lines):
    monkeypatch.setenv("COLUMNS", "24")
    monkeypatch.setenv("LINES", str(lines))
    trials = [Trial(n, "finished", {"width": 1 / 3}, 10, 1.5) for n in range(9)]
    trials[2] = Trial(2, "running", {"width": 1 / 3}, None, None)
    terminal = Screen(True)
    shown(terminal, trials)
    said, names, *rows = terminal[0].splitlines()
    assert said == "8 finished, 1 running; " and names.startswith("trial  state ")
    assert [row[0] for row in rows] == (["2", "7", "8"] if lines == 6 else ["2"])
    assert all(len(row) < 24 for row in rows)


@pytest.mark.slow
def test_twelve_trials_survive_a_kill_and_the_best_is_found_again(call):
    """Real jobs: the sweep is killed twice, its jobs are not; nothing is lost or run twice."""
    oracle("optuna")
    Path("text.txt").write_text(TEXT)
    command = ("launch.sweep", CONFIG, "--folder=here", "--trials=12", "--workers=2", "--poll=0.2")
    journal = Path("here/journal.log")

    def finished():
        lines = journal.read_text().splitlines() if journal.exists() else []
        return sum('"op_code":6,' in line for line in lines)

    for enough in (2, 6):
        with python_process(*command, cwd=Path.cwd()) as process:
            until(lambda: finished() >= enough or process.poll() is not None, "trials")  # noqa: B023
            assert process.poll() is None, process.stderr.read()
            process.kill()
    with python_process(*command, cwd=Path.cwd()) as process:
        out, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "12 trials: 12 finished" in out

    rows = list(csv.DictReader(Path("here/sweep.csv").read_text().splitlines()))
    assert len({(row["peak_lr"], row["width"], row["streams"]) for row in rows}) == 12
    for number in range(12):
        run = json.loads(Path(f"here/trial-{number}/run.json").read_text())
        assert len(run["attempts"]) == 1 and run["ended"] == "done"
    for figure in ("parallel.png", "importance.png"):
        assert Path("here", figure).read_bytes().startswith(b"\x89PNG")

    *_, best, again, _ = out.splitlines()
    value = float(best.split()[2])
    assert value == min(float(row["bits_per_byte"]) for row in rows)
    with python_process(*shlex.split(again)[2:], cwd=Path.cwd()) as process:
        out, errors = process.communicate()
    assert process.returncode == 0, errors
    lines = Path("here/best/metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    values = [record["bits_per_byte"] for record in records if record["split"] == "validation"]
    assert min(values) == value
