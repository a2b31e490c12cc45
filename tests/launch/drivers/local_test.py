"""Local jobs really run: what is started once, again, or not, and what outlives what."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from launch.drivers import local, records
from launch.jobs import Job, State, Status
from recattn_jax.errors import StorageError, UserError
from tests.launch.drivers.programs import COUNT, SAVE, SAVE_ONCE, WORK, job, over, ran, saved, up
from tests.launch.drivers.waiting import until

ROOT = Path(__file__).parents[3]
KEPT = "jobs/job"  # what the driver keeps of a job


@pytest.fixture
def driver(tmp_path):
    yield local.Local(grace=5.0)  # enough to save in on a busy machine
    for file in tmp_path.rglob(local.RECORD):  # whatever a test that failed has left
        with contextlib.suppress(StorageError):
            record = local.read(file)
            for process in (record.supervisor, *record.processes):
                if process is not None and process.alive:
                    os.kill(process.pid, signal.SIGKILL)


def test_two_processes_that_were_interrupted_go_on(driver, tmp_path):
    work = job(tmp_path, COUNT + "sys.exit(42 if attempt == 1 else 0)", hosts=2, retries=1)
    assert driver.status(work) == Status(State.UNKNOWN)
    driver.start(work)
    assert over(driver, work) == Status(State.DONE, 0)
    assert [ran(tmp_path, n) for n in range(2)] == [2, 2]
    log = (tmp_path / KEPT / "process-1.log").read_text()
    assert "== attempt 1, " in log and "== attempt 2, " in log


@pytest.mark.parametrize(
    ("code", "retries", "attempts"), [(2, 3, 1), (3, 3, 1), (1, 1, 2), (42, 0, 1)]
)
def test_some_ends_are_not_worth_another_attempt(driver, tmp_path, code, retries, attempts):
    work = job(tmp_path, COUNT + f"sys.exit({code})", retries=retries)
    driver.start(work)
    status = over(driver, work)
    assert (status.state, status.exit_code) == (State.FAILED, code)
    assert f"attempt {attempts} ended with {code}" in status.reason
    assert ran(tmp_path) == attempts


def test_a_failure_stops_the_other_processes(driver, tmp_path):
    first = "me == '0' and sys.exit(3)\n"
    work = job(tmp_path, COUNT + first + WORK, hosts=2, retries=2)
    driver.start(work)
    assert over(driver, work).exit_code == 3
    assert [p.exit_code for p in local.read(tmp_path / KEPT / local.RECORD).processes] == [3, 42]


def test_a_process_that_does_not_listen_is_killed_with_what_it_started(driver, tmp_path):
    deaf = COUNT + (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        "(file.parent / f'up-{me}-{attempt}').write_text(str(child.pid))\n"
        "time.sleep(1000)\n"
    )
    work, driver = job(tmp_path, deaf, retries=2), dataclasses.replace(driver, grace=1.0)
    driver.start(work)
    child = up(tmp_path)
    assert local.born(child) is not None
    driver.stop(work)
    assert over(driver, work) == Status(State.FAILED, -signal.SIGKILL, "it was asked to stop")
    until(lambda: local.born(child) is None, "the end of the child")
    assert ran(tmp_path) == 1


def test_a_killed_process_is_started_again(driver, tmp_path):
    work = job(tmp_path, SAVE_ONCE, retries=1)
    driver.start(work)
    os.kill(up(tmp_path), signal.SIGKILL)
    assert over(driver, work) == Status(State.DONE, 0)
    assert ran(tmp_path) == 2


def test_a_signal_without_a_name_is_told(driver, tmp_path):
    work = job(tmp_path, COUNT + "os.kill(os.getpid(), signal.SIGRTMIN + 3)")
    driver.start(work)
    number = signal.SIGRTMIN + 3
    status = over(driver, work)
    assert status.exit_code == -number and f"was ended by signal {number}" in status.reason


def test_whoever_takes_over_starts_it_where_it_was(driver, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    place = COUNT + "(file.parent / f'at-{attempt}').write_text(os.getcwd())\n"
    work = job(tmp_path, place + SAVE_ONCE.removeprefix(COUNT), retries=1)
    driver.start(work)
    os.kill(up(tmp_path), signal.SIGSTOP)  # so that the supervisor is killed before it ends
    record = local.read(tmp_path / KEPT / local.RECORD)
    os.kill(record.supervisor.pid, signal.SIGKILL)
    os.kill(up(tmp_path), signal.SIGKILL)
    monkeypatch.chdir(tmp_path)
    assert over(driver, work) == Status(State.DONE, 0)
    assert (tmp_path / "at-2").read_text() == str(tmp_path / "there")


def test_a_job_of_another_machine_is_left_alone(driver, tmp_path):
    """Folders and locks may be shared between machines, processes are not."""
    work = job(tmp_path, COUNT)
    write, _ = driver.plan(work)
    elsewhere = json.loads(write.text) | {"state": "running", "attempt": 1, "host": "elsewhere"}
    elsewhere["supervisor"] = {"pid": os.getpid(), "born": "another boot 1", "exit_code": None}
    with records.locked(write.file.parent, wait=True):
        write.file.write_text(json.dumps(elsewhere))
        driver.start(work)
        assert driver.status(work) == Status(State.RUNNING)
        with pytest.raises(UserError, match="job job runs on elsewhere; stop it from there"):
            driver.stop(work)
    assert ran(tmp_path) == 0


def test_stopping_saves_and_starts_nothing_again(driver, tmp_path):
    work = job(tmp_path, SAVE, hosts=2, retries=5)
    driver.stop(work)  # there is none
    driver.start(work)
    up(tmp_path, 0), up(tmp_path, 1)
    assert driver.status(work) == Status(State.RUNNING)
    driver.stop(work)
    assert over(driver, work) == Status(State.FAILED, 42, "it was asked to stop")
    driver.stop(work)  # again, harmless
    assert [ran(tmp_path, n) for n in range(2)] == [1, 1]
    driver.start(work)  # goes on
    up(tmp_path, 0, attempt=2)
    driver.stop(work)
    over(driver, work)


def test_starting_twice_runs_once(driver, tmp_path):
    slow = COUNT + "while not (file.parent / 'go').exists(): time.sleep(0.02)"
    work = job(tmp_path, slow)
    starters = [threading.Thread(target=driver.start, args=(work,)) for _ in range(8)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    driver.start(work)
    (tmp_path / "go").touch()
    assert over(driver, work) == Status(State.DONE, 0)
    driver.start(work)
    assert driver.status(work) == Status(State.DONE, 0)
    assert ran(tmp_path) == 1


def test_the_job_outlives_whoever_started_it(driver, tmp_path):
    work = job(tmp_path, COUNT + "while not (file.parent / 'go').exists(): time.sleep(0.02)")
    starter = (
        "import os, signal; from pathlib import Path; from launch.drivers.local import Local\n"
        f"from launch.jobs import Job\nLocal().start({work!r})\nos.kill(os.getpid(), 9)"
    )
    starter = starter.replace("PosixPath", "Path")
    ended = subprocess.run([sys.executable, "-c", starter], start_new_session=True)
    assert ended.returncode == -signal.SIGKILL
    assert driver.status(work).state in (State.WAITING, State.RUNNING)
    (tmp_path / "go").touch()
    assert over(driver, work) == Status(State.DONE, 0)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_killed_supervisor_costs_an_attempt_and_leaves_no_stray_process(
    driver, tmp_path, retries
):
    work = job(tmp_path, SAVE_ONCE, retries=retries)
    driver.start(work)
    stray = up(tmp_path)
    until(
        lambda: bool(local.read(tmp_path / KEPT / local.RECORD).processes),
        "the processes noted",
    )
    os.kill(local.read(tmp_path / KEPT / local.RECORD).supervisor.pid, signal.SIGKILL)
    assert local.born(stray) is not None
    status = over(driver, work)
    assert local.born(stray) is None
    assert ran(tmp_path) == 1 + retries
    assert status.state is (State.DONE if retries else State.FAILED)


def test_a_job_without_supervisor_can_be_stopped(driver, tmp_path):
    work = job(tmp_path, SAVE, retries=5)
    driver.start(work)
    stray, file = up(tmp_path), tmp_path / KEPT / local.RECORD
    until(lambda: bool(local.read(file).processes), "the processes noted")
    os.kill(local.read(file).supervisor.pid, signal.SIGKILL)
    until(lambda: not local.read(file).supervisor.alive, "the end of the supervisor")
    driver.stop(work)
    assert over(driver, work) == Status(State.FAILED, -signal.SIGKILL, "it was asked to stop")
    assert local.born(stray) is None and saved(tmp_path) and ran(tmp_path) == 1


def test_a_number_that_was_given_away_again_is_another_process():
    me = local.Process(os.getpid(), local.born(os.getpid()))
    assert me.alive
    assert not local.Process(os.getpid(), "another boot 1").alive
    assert not local.Process(os.getpid(), None).alive


def test_hostile_words_arrive_as_they_are(driver, tmp_path):
    hostile = [
        "; touch pwned",
        "$(touch pwned)",
        "`touch pwned`",
        "--x='\"",
        "-c",
        "\u00e4\u00f6 \u2028*",
    ]
    show = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['WORD']]))"
    argv = (sys.executable, "-c", show, *hostile)
    work = Job("job", argv, tmp_path / "jobs", "cpu", environment={"WORD": hostile[1]})
    driver.start(work)
    assert over(driver, work) == Status(State.DONE, 0)
    last = (tmp_path / KEPT / "process-0.log").read_text().splitlines()[-1]
    assert json.loads(last) == [hostile, hostile[1]]
    assert not list(ROOT.glob("pwned")) and not list(tmp_path.rglob("pwned"))


def test_each_process_knows_its_place(driver, tmp_path):
    show = "import json, os; print(json.dumps({k: v for k, v in os.environ.items()}))"
    work = Job("job", (sys.executable, "-c", show), tmp_path / "jobs", "cpu:4", hosts=2)
    driver.start(work)
    over(driver, work)
    logs = [(tmp_path / KEPT / f"process-{n}.log").read_text().splitlines()[-1] for n in range(2)]
    seen = [json.loads(log) for log in logs]
    assert [one["RECATTN_PROCESS"] for one in seen] == ["0", "1"]
    assert {one["RECATTN_PROCESSES"] for one in seen} == {"2"}
    assert {one["JAX_PLATFORMS"] for one in seen} == {"cpu"}
    assert {one["JAX_NUM_CPU_DEVICES"] for one in seen} == {"4"}
    (coordinator,) = {one["RECATTN_COORDINATOR"] for one in seen}
    host, port = coordinator.split(":")
    assert host == "localhost" and 1024 <= int(port) < 65536


@pytest.mark.parametrize("accelerator", ["gpu", "any:2", "cpu:0", "v5litepod-16", ""])
def test_an_unknown_accelerator_is_refused(driver, tmp_path, accelerator):
    with pytest.raises(UserError, match="the local driver knows any, cpu, cpu:K and gpu:K"):
        driver.start(job(tmp_path, "", accelerator=accelerator))
    assert not (tmp_path / KEPT).exists()


def test_a_missing_command_and_a_torn_record_are_named(driver, tmp_path):
    with pytest.raises(UserError, match="there is no command 'no-such-command'"):
        driver.start(Job("job", ("no-such-command",), tmp_path / "jobs", "cpu"))
    assert not (tmp_path / KEPT).exists()
    work = job(tmp_path, "")
    records.make(tmp_path / KEPT)
    for torn in ("{", "[]", '{"argv": []}'):
        (tmp_path / KEPT / local.RECORD).write_text(torn)
        with pytest.raises(StorageError, match="job.json"):
            driver.start(work)


def test_the_plan_is_what_is_done(driver, tmp_path, monkeypatch):
    work = job(tmp_path, COUNT)
    write, run = driver.plan(work)
    seen = []
    monkeypatch.setattr(
        local.subprocess,
        "run",
        lambda argv, **_: seen.append(argv) or subprocess.CompletedProcess(argv, 0),
    )
    driver.start(work)
    assert seen == [run.argv]
    assert write.file.read_text() == write.text
