"""A stand-in cloud of two workers: the script really runs, gcloud is called in order."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch.drivers.tpu_vm import TpuVm
from launch.jobs import Job, State, Status
from recattn_jax.errors import UserError
from tests.launch.drivers import programs
from tests.launch.drivers.programs import COUNT, SAVE, SAVE_ONCE, WORK, over, ran, up
from tests.launch.drivers.waiting import until

# Two folders are the workers; copying and running there is done in earnest.
WORKERS = """
words = [word for word in argv if not word.startswith("--")]
homes = [here / "worker-0", here / "worker-1"]
if words[3:5] == ["queued-resources", "create"]:
    for home in homes:
        home.mkdir()
elif words[3:5] == ["queued-resources", "delete"]:
    for home in homes:
        for file in home.glob("recattn-jobs/*/*/pid"):  # what runs on a machine goes with it
            try:
                os.killpg(int(file.read_text()), 9)
            except ProcessLookupError:
                pass
        shutil.rmtree(home, ignore_errors=True)
elif words[3:5] == ["queued-resources", "describe"]:
    print(json.dumps({"name": words[5], "state": {"state": "ACTIVE"}}))
elif words[4] == "scp":
    for home in homes:
        for file in words[5:-1]:
            shutil.copy(file, home)
elif words[4] == "ssh":
    (command,) = [word[len("--command="):] for word in argv if word.startswith("--command=")]
    for number, home in enumerate(homes):
        print(f"worker {number} says", flush=True)
        subprocess.run(["bash", "-c", command], cwd=home, check=True,
                       env={**os.environ, "HOME": str(home), "WORKER": str(number)})
"""


def state(name):
    return {"out": json.dumps({"state": {"state": name}})}


@pytest.fixture
def gcloud(stand_ins):
    stand_ins.put("gcloud", more=WORKERS)
    return stand_ins


# The grace is patience with a busy machine: who saves is over long before.
DRIVER = TpuVm("zone", "runtime", project="project", grace=60, timeout=100)


def job(folder, code, **more):
    return programs.job(folder, code, "v5litepod-8", hosts=2, **more)


def verbs(gcloud):
    """What was done, in words; looking does not count."""
    done = []
    for call in gcloud.calls():
        (line,) = [w.removeprefix("--command=bash ") for w in call if "--command" in w] or [""]
        done.append(line or call[4])
    return [verb for verb in done if verb != "describe" and " poll " not in verb]


def test_machines_are_asked_for_used_and_given_back(gcloud, tmp_path):
    work = job(tmp_path, COUNT)
    assert DRIVER.status(work) == Status(State.UNKNOWN)
    gcloud.answer({"describe": [state("ACCEPTED"), state("PROVISIONING")]})
    DRIVER.start(work)
    DRIVER.start(work)
    assert verbs(gcloud) == ["create"]
    assert DRIVER.status(work) == DRIVER.status(work) == Status(State.WAITING)
    assert over(DRIVER, work) == Status(State.DONE, 0)
    assert verbs(gcloud) == ["scp", "job.sh start 1", "delete"]
    DRIVER.start(work)
    assert DRIVER.status(work) == Status(State.DONE, 0)
    assert verbs(gcloud) == []
    assert [ran(tmp_path, n) for n in range(2)] == [1, 1]


def test_the_plan_is_what_is_done(gcloud, tmp_path):
    work = job(tmp_path, COUNT)
    setup = tmp_path / "my setup.sh"
    setup.write_text("echo set up > here")
    driver = TpuVm("zone", "runtime", spot=True, setup=setup, directory="a b")
    gcloud.answer({"scp": [{}], "ssh": [{}]})
    driver.start(work)
    driver.status(work)
    plan = driver.plan(work)
    assert [a.file.read_text() for a in plan if a.file] == [a.text for a in plan if a.file]
    calls = [call for call in gcloud.calls() if "describe" not in call]
    assert calls == [list(a.argv) for a in plan if a.argv]
    assert "--spot" in calls[0]


def test_an_interrupted_job_goes_on_where_it_is(gcloud, tmp_path):
    work = job(tmp_path, COUNT + "sys.exit(42 if attempt == 1 else 0)", retries=1)
    DRIVER.start(work)
    assert over(DRIVER, work) == Status(State.DONE, 0)
    steps = ["create", "scp", "job.sh start 1", "job.sh start 2", "delete"]
    assert verbs(gcloud) == steps
    assert [ran(tmp_path, n) for n in range(2)] == [2, 2]


@pytest.mark.parametrize(("code", "attempts"), [(2, 1), (3, 1), (1, 2)])
def test_a_failing_job_fails_and_gives_the_machines_back(gcloud, tmp_path, code, attempts):
    work = job(tmp_path, COUNT + f"sys.exit({code} if me == '1' else 0)", retries=1)
    DRIVER.start(work)
    assert over(DRIVER, work) == Status(State.FAILED, code, f"a process ended with {code}")
    assert ran(tmp_path, 1) == attempts
    assert verbs(gcloud)[-1] == "delete"


def test_a_failure_stops_the_other_workers(gcloud, tmp_path):
    work = job(tmp_path, COUNT + "me == '0' and sys.exit(3)\n" + WORK)
    DRIVER.start(work)
    assert over(DRIVER, work).exit_code == 3
    assert "job.sh stop 1" in verbs(gcloud)


def test_machines_that_are_taken_away_are_replaced(gcloud, tmp_path):
    work = job(tmp_path, SAVE_ONCE, retries=1)
    DRIVER.start(work)
    DRIVER.status(work)
    up(tmp_path, 0), up(tmp_path, 1)
    gcloud.calls()
    gcloud.answer({"describe": [state("SUSPENDED")]})
    assert DRIVER.status(work).state is State.WAITING
    assert verbs(gcloud) == ["delete", "create"]
    assert over(DRIVER, work) == Status(State.DONE, 0)
    assert verbs(gcloud) == ["scp", "job.sh start 2", "delete"]


def test_machines_that_are_taken_away_too_often_end_the_job(gcloud, tmp_path):
    work = job(tmp_path, COUNT, retries=1)
    gone = {"code": 1, "err": "ERROR: (gcloud) NOT_FOUND: no such resource\n"}
    gcloud.answer({"describe": [state("FAILED"), gone]})
    DRIVER.start(work)
    assert DRIVER.status(work).state is State.WAITING
    assert DRIVER.status(work) == Status(State.FAILED, None, "the machines are gone")
    assert verbs(gcloud) == ["create", "delete", "create", "delete"]
    DRIVER.start(work)  # anew
    assert over(DRIVER, work) == Status(State.DONE, 0)


def test_a_cloud_that_hangs_or_stumbles_is_asked_again(gcloud, tmp_path):
    driver = TpuVm("zone", "runtime", grace=1, timeout=1)
    work = job(tmp_path, COUNT)
    stumble = {"code": 1, "err": "ERROR: 503 try again\n"}
    hang = {"sleep": 1000}
    gcloud.answer(
        {"describe": [hang, stumble], "scp": [stumble], "start 1": [stumble], "delete": [hang]}
    )
    driver.start(work)
    reasons = []
    until(lambda: reasons.append(driver.status(work).reason) or driver.status(work).over, "end")
    assert any("did not answer within 1 s" in reason for reason in reasons)
    assert driver.status(work) == Status(State.DONE, 0)
    assert [ran(tmp_path, n) for n in range(2)] == [1, 1]


def test_machines_of_somebody_else_are_left_alone(gcloud, tmp_path):
    work = job(tmp_path, COUNT)
    exists = {"code": 1, "err": "ERROR: ALREADY_EXISTS: Resource 'job' already exists\n- more\n"}
    gcloud.answer({"create": [exists, exists]})
    for _ in range(2):
        with pytest.raises(UserError, match="machines of this name already"):
            DRIVER.start(work)
    assert DRIVER.status(work).state is State.FAILED
    DRIVER.stop(work)
    assert verbs(gcloud) == ["create", "create"]


def test_machines_that_were_asked_for_before_a_crash_are_its_own(gcloud, tmp_path):
    work, driver = job(tmp_path, COUNT), TpuVm("zone", "runtime", grace=1, timeout=1)
    exists = {"code": 1, "err": "ERROR: ALREADY_EXISTS: Resource 'job' already exists\n"}
    gcloud.answer({"create": [{"sleep": 1000}, exists]})
    with pytest.raises(UserError, match="did not answer within 1 s and was killed; start it again"):
        driver.start(work)
    driver.start(work)
    assert verbs(gcloud) == ["create", "create"]
    assert DRIVER.status(work).state is State.WAITING


def test_a_worker_that_does_not_answer_has_not_ended(gcloud, tmp_path):
    work = job(tmp_path, COUNT)
    gcloud.answer({"job.sh poll": [{"out": "recattn: exit 0\n"}]})
    DRIVER.start(work)
    DRIVER.status(work)
    silent = "1 of 2 workers say how they stand"
    assert DRIVER.status(work) == Status(State.RUNNING, None, silent)
    assert over(DRIVER, work) == Status(State.DONE, 0)


def test_a_worker_that_forgot_all_is_told_again(gcloud, tmp_path):
    work = job(tmp_path, COUNT)
    gcloud.answer({"start 1": [{}]})  # and nothing is started
    DRIVER.start(work)
    assert over(DRIVER, work) == Status(State.DONE, 0)


def test_stopping_saves_and_then_gives_back(gcloud, tmp_path):
    work = job(tmp_path, SAVE, retries=3)
    DRIVER.stop(work)
    DRIVER.start(work)
    DRIVER.status(work)
    up(tmp_path, 0), up(tmp_path, 1)
    assert DRIVER.status(work) == Status(State.RUNNING)
    DRIVER.stop(work)
    assert over(DRIVER, work) == Status(State.FAILED, 42, "it was asked to stop")
    DRIVER.stop(work)
    steps = ["create", "scp", "job.sh start 1", "job.sh stop 1", "delete"]
    assert verbs(gcloud) == steps


def test_who_is_asked_to_stop_while_it_starts_says_how_it_ended(tmp_path):
    work = job(tmp_path, "import time; time.sleep(1000)")
    slow = DRIVER.script(work).replace("work &\n", "work &\n    sleep 0.5\n")
    (tmp_path / "job.sh").write_text(slow)

    def worker(verb):
        environment = {**os.environ, "HOME": str(tmp_path)}
        command = ["bash", "job.sh", verb, "1"]
        return subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)

    worker("start")
    until(
        lambda: "attempt 1" in "".join(f.read_text() for f in tmp_path.rglob("process-*.log")),
        "the start",
    )
    worker("stop")
    until(lambda: worker("poll") != "recattn: running\n", "the end")
    assert worker("poll") == f"recattn: exit {128 + signal.SIGTERM}\n"


def test_a_deaf_process_is_killed_and_one_that_waits_is_let_go(gcloud, tmp_path):
    deaf = SAVE.replace("signal.SIGTERM, save", "signal.SIGTERM, signal.SIG_IGN")
    work, driver = job(tmp_path, deaf, retries=3), TpuVm("zone", "runtime", grace=1, timeout=100)
    driver.start(work)
    driver.status(work)
    up(tmp_path, 0), up(tmp_path, 1)
    driver.stop(work)
    assert over(driver, work) == Status(State.FAILED, None, "it was asked to stop")
    driver.start(work)  # the machines are not there yet
    gcloud.calls()
    driver.stop(work)
    assert driver.status(work) == Status(State.FAILED, None, "it was asked to stop")
    assert verbs(gcloud) == ["delete"]


def test_the_setup_comes_first_and_the_log_tells(gcloud, tmp_path, monkeypatch):
    setup = tmp_path / "setup.sh"
    setup.write_text("echo ready >> setup.txt; echo preparing")
    show = ("cat", "../setup.txt")
    work = Job("job", show, Path("jobs"), "v5litepod-8", hosts=2)
    driver = TpuVm("zone", "runtime", setup=setup, directory="code")
    monkeypatch.chdir(tmp_path)  # the job's folder is from here, and from the workers' directory
    driver.start(work)
    for worker in range(2):
        (tmp_path / f"worker-{worker}" / "code").mkdir()
    work_done = over_with_log(driver, work, tmp_path)
    assert "preparing" in work_done


def over_with_log(driver, work, folder):
    seen = []

    def ended():
        seen.extend(log.read_text() for log in folder.glob("worker-*/code/jobs/job/*.log"))
        return driver.status(work).over

    until(ended, "the end of the job")
    return "".join(seen)


def test_hostile_words_arrive_as_they_are(gcloud, tmp_path):
    hostile = ["; touch pwned", "$(touch pwned)", "`touch pwned`", "--x='\"", "-c", "", "@ARGV@"]
    hostile += ["@EXPORT@", "\u00e4\u2028 *", "\\", "!!"]
    show = "import json, os, sys; said = json.dumps([sys.argv[2:], os.environ['W']])"
    show += "; open(sys.argv[1], 'w').write(said)"
    argv = (sys.executable, "-c", show, str(tmp_path / "seen"), *hostile)
    environment = {"W": "$(touch pwned)'"}
    folder = tmp_path / "a 'folder'; touch pwned"
    driver = TpuVm("zone; touch pwned", "$(touch pwned)", directory="'; touch pwned; '")
    work = Job("job", argv, folder, "v5litepod-8", hosts=1, environment=environment)
    gcloud.answer({"start 1": [{}]})
    driver.start(work)
    for worker in range(2):
        (tmp_path / f"worker-{worker}" / driver.directory).mkdir(parents=True)
    driver.status(work)
    assert over(driver, work) == Status(State.DONE, 0)
    assert json.loads((tmp_path / "seen").read_text()) == [hostile, environment["W"]]
    assert not list(tmp_path.rglob("pwned")) and not Path("pwned").exists()


def test_refusals_are_one_line(gcloud, tmp_path):
    for accelerator in ("any", "cpu", "gpu:8", "v6e"):
        with pytest.raises(UserError, match="wants the type of a TPU slice"):
            DRIVER.start(Job("job", ("true",), tmp_path / "jobs", accelerator))
    assert not (tmp_path / "jobs").exists()
    with pytest.raises(UserError, match="--setup=nowhere cannot be read"):
        TpuVm("zone", "runtime", setup=Path("nowhere")).start(job(tmp_path, ""))
    gcloud.answer({"create": [{"code": 1, "err": "ERROR: PERMISSION_DENIED: no\n"}]})
    with pytest.raises(UserError, match=r"^job job: ERROR: PERMISSION_DENIED: no; start it again"):
        DRIVER.start(job(tmp_path, ""))


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_itself_knows_every_command(tmp_path):
    setup = tmp_path / "setup.sh"
    setup.touch()
    work = job(tmp_path, "")
    driver = TpuVm("us-east5-b", "v2-alpha-tpuv6e", project="p", spot=True, setup=setup)
    commands = [list(action.argv) for action in driver.plan(work) if action.argv]
    commands += [
        list(driver._resource("delete", work, "--force")),
        list(driver._resource("describe", work, "--format=json")),
    ]
    environment = {**os.environ, "CLOUDSDK_CONFIG": str(tmp_path / "config")}

    def lint(line):
        command = ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={line}"]
        said = subprocess.run(command, capture_output=True, text=True, env=environment)
        (found,) = json.loads(said.stdout)
        return found

    assert not lint("gcloud compute tpus queued-resources create a --nodeid=a")["success"]
    for words in commands:
        # The linter takes a line apart in its own way, so that only simple words are given to it.
        line = " ".join(word.replace("bash job.sh start 1", "true") for word in words)
        found = lint(line)
        assert found["success"], (line, found["error_message"])
