"""A stand-in for SLURM that really runs the tasks, and submitit in between."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from launch.drivers.slurm import Slurm, devices
from launch.jobs import Job, State, Status
from recattn_jax.errors import UserError
from tests.launch.drivers.programs import COUNT, SAVE, SAVE_ONCE, WORK, job, over, ran, saved, up
from tests.launch.drivers.waiting import until

pytestmark = pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed")

SBATCH = """
script, number = argv[1], 4242 + len(list(here.glob("script-*")))
shutil.copy(script, here / f"script-{number}")
subprocess.Popen([str(here / "bin" / "node"), str(here / f"script-{number}"), str(number)],
                 start_new_session=True, stdin=-3, stdout=-3, stderr=-3)
print("Submitted batch job", number)
"""
# Runs a script until nobody has it requeued.
NODE = """
script, number = sys.argv[1:]
nodes = [l.split("=")[1] for l in open(script).read().splitlines() if "--nodes=" in l]
environment = {**os.environ, "SLURM_JOB_ID": number, "SLURM_NTASKS": nodes[0],
               "SLURM_JOB_NUM_NODES": nodes[0], "SLURM_JOB_NODELIST": "localhost"}
requeue, restarts = here / f"requeue-{number}", 0
while True:
    code = subprocess.run(["bash", script], env=environment).returncode
    if not requeue.exists():
        break
    requeue.unlink()
    restarts += 1
    environment["SLURM_RESTART_COUNT"] = str(restarts)
(here / f"over-{number}").write_text("FAILED" if code else "COMPLETED")
"""
# Ends all tasks when one fails, or when the job is requeued.
SRUN = """
number = os.environ["SLURM_JOB_ID"]
output = argv[argv.index("--output") + 1]
command = argv[argv.index("--kill-on-bad-exit=1") + 1:]
tasks = []
for rank in range(int(os.environ["SLURM_NTASKS"])):
    place = {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0"}
    log = open(output.replace("%j", number).replace("%t", str(rank)), "a")
    tasks.append(subprocess.Popen(command, env={**os.environ, **place}, stdout=log, stderr=log,
                                  start_new_session=True))
(here / f"tasks-{number}").write_text(json.dumps([task.pid for task in tasks]))
while any(task.poll() is None for task in tasks):
    if any(task.poll() for task in tasks) or (here / f"requeue-{number}").exists():
        time.sleep(0.3)
        for task in tasks:
            try:
                os.killpg(task.pid, 9)
            except ProcessLookupError:
                pass
    time.sleep(0.02)
sys.exit(max(abs(task.returncode) for task in tasks))
"""
SCONTROL = """
(here / f"requeue-{argv[2]}").touch()
"""
SQUEUE = """
number = argv[2].split("=")[1]
if (here / f"over-{number}").exists():
    sys.exit("slurm_load_jobs error: Invalid job id specified")
print("RUNNING")
"""
SACCT = """
number = [word for word in argv if word.startswith("--jobs=")][0].split("=")[1]
print((here / f"over-{number}").read_text())
"""
SCANCEL = """
if argv[1] == "--signal=TERM":
    for pid in json.loads((here / f"tasks-{argv[2]}").read_text()):
        os.killpg(pid, 15)
"""
DRIVER = Slurm(grace=5)  # enough to save in on a busy machine


@pytest.fixture
def cluster(stand_ins):
    programs = {
        "sbatch": SBATCH,
        "node": NODE,
        "srun": SRUN,
        "scontrol": SCONTROL,
        "squeue": SQUEUE,
        "sacct": SACCT,
        "scancel": SCANCEL,
    }
    for name, more in programs.items():
        stand_ins.put(name, more=more)
    yield stand_ins
    for tasks in stand_ins.here.glob("tasks-*"):  # whatever a test that failed has left
        for pid in json.loads(tasks.read_text()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def called(cluster, name):
    return [call for call in cluster.calls() if call[0] == name]


def test_an_interrupted_job_is_requeued_and_goes_on(cluster, tmp_path):
    work = job(tmp_path, COUNT + "sys.exit(42 if attempt == 1 else 0)", hosts=2, retries=1)
    assert DRIVER.status(work) == Status(State.UNKNOWN)
    DRIVER.start(work)
    DRIVER.start(work)
    assert over(DRIVER, work) == Status(State.DONE, 0)
    DRIVER.start(work)
    assert [ran(tmp_path, n) for n in range(2)] == [2, 2]
    calls = [call[:2] for call in cluster.calls()]
    assert [call[0] for call in calls].count("sbatch") == 1
    assert ["scontrol", "requeue"] in calls


@pytest.mark.parametrize(("code", "attempts"), [(3, 1), (1, 2)])
def test_a_failure_anywhere_ends_all_tasks(cluster, tmp_path, code, attempts):
    fails = COUNT + f"me == '1' and sys.exit({code})\n" + WORK
    work = job(tmp_path, fails, hosts=2, retries=1)
    DRIVER.start(work)
    status = over(DRIVER, work)
    assert (status.state, status.exit_code) == (State.FAILED, code)
    assert [ran(tmp_path, n) for n in range(2)] == [attempts, attempts]


def test_when_time_is_up_the_job_saves_and_is_requeued(cluster, tmp_path):
    work = job(tmp_path, SAVE_ONCE, hosts=2, retries=1)
    DRIVER.start(work)
    up(tmp_path, 0), up(tmp_path, 1)
    first, _ = json.loads((tmp_path / "tasks-4242").read_text())
    os.kill(first, signal.SIGUSR2)
    assert over(DRIVER, work) == Status(State.DONE, 0)
    assert ran(tmp_path) == 2


def test_a_signal_to_all_processes_of_a_task_lets_it_save(cluster, tmp_path):
    work = job(tmp_path, SAVE_ONCE, retries=1)
    DRIVER.start(work)
    up(tmp_path)
    (task,) = json.loads((tmp_path / "tasks-4242").read_text())
    os.killpg(task, signal.SIGUSR2)
    assert over(DRIVER, work) == Status(State.DONE, 0)
    assert saved(tmp_path) and ran(tmp_path) == 2


def test_a_final_end_is_final_also_when_time_is_up(cluster, tmp_path):
    work = job(tmp_path, SAVE.replace("os._exit(42)", "os._exit(3)"), retries=3)
    DRIVER.start(work)
    up(tmp_path)
    (task,) = json.loads((tmp_path / "tasks-4242").read_text())
    os.kill(task, signal.SIGUSR2)
    assert over(DRIVER, work).exit_code == 3
    assert ran(tmp_path) == 1


def test_who_is_asked_to_stop_before_it_listens_stops(cluster, tmp_path):
    node = (tmp_path / "bin" / "node").read_text()
    wait = "while not (here / 'go').exists(): time.sleep(0.02)\n"
    (tmp_path / "bin" / "node").write_text(node.replace(NODE, wait + NODE))
    work = job(tmp_path, SAVE, retries=3)
    DRIVER.start(work)
    cluster.answer({"scancel": [{}]})
    DRIVER.stop(work)
    (tmp_path / "go").touch()
    status = over(DRIVER, work)
    assert status.state is State.FAILED and "it was asked to stop" in status.reason
    until((tmp_path / "over-4242").exists, "the end of the tasks")
    attempt = ran(tmp_path) + 1
    DRIVER.start(work)  # and that is forgotten when it is started anew
    up(tmp_path, attempt=attempt)
    DRIVER.stop(work)
    assert over(DRIVER, work).exit_code == 42


def test_time_that_is_up_too_often_ends_the_job(cluster, tmp_path):
    work = job(tmp_path, SAVE, hosts=1)
    DRIVER.start(work)
    up(tmp_path)
    (first,) = json.loads((tmp_path / "tasks-4242").read_text())
    os.kill(first, signal.SIGUSR2)
    assert over(DRIVER, work).exit_code == 42
    assert ran(tmp_path) == 1


def test_stopping_saves_and_starts_nothing_again(cluster, tmp_path):
    work = job(tmp_path, SAVE, hosts=2, retries=3)
    DRIVER.stop(work)
    DRIVER.start(work)
    up(tmp_path, 0), up(tmp_path, 1)
    assert DRIVER.status(work).state is State.RUNNING
    DRIVER.stop(work)
    status = over(DRIVER, work)
    assert status.exit_code == 42 and "it was asked to stop" in status.reason, status
    assert called(cluster, "scancel") == [["scancel", "--signal=TERM", "4242"]]
    until((tmp_path / "over-4242").exists, "the end of the tasks")
    assert not (tmp_path / "requeue-4242").exists()
    assert ran(tmp_path) == 1


def test_a_job_that_waits_is_cancelled(cluster, tmp_path):
    cluster.put("sbatch", more="print('Submitted batch job 1')\n")
    work = job(tmp_path, COUNT, hosts=2)
    DRIVER.start(work)
    cluster.answer({"squeue": [{"out": "PENDING\n"}] * 2})
    assert DRIVER.status(work) == Status(State.WAITING, None, "PENDING")
    DRIVER.stop(work)
    assert called(cluster, "scancel") == [["scancel", "1"]]
    gone = {"code": 1, "err": "slurm_load_jobs error: Invalid job id specified\n"}
    cluster.answer({"squeue": [gone], "sacct": [{"out": "CANCELLED by 0\n"}]})
    assert DRIVER.status(work).state is State.FAILED
    assert called(cluster, "sbatch") == []


def test_a_job_that_ends_while_it_is_asked_for_is_not_sent_again(cluster, tmp_path):
    """The queue forgets it after its verdict was looked for, and found not to be there yet."""
    end = "(here / 'jobs/job/outcome.json').write_text('{\"attempt\": 1, \"exit_code\": 0}')\n"
    cluster.put("sbatch", more="print('Submitted batch job 1')\n")
    cluster.put("squeue", more=end + "sys.exit('Invalid job id specified')\n")
    work = job(tmp_path, COUNT, hosts=2, retries=3)
    DRIVER.start(work)
    assert DRIVER.status(work) == Status(State.DONE, 0)
    assert len(called(cluster, "sbatch")) == 1


def test_a_lost_host_costs_an_attempt(cluster, tmp_path):
    cluster.put("sbatch", more="print('Submitted batch job 1')\n")
    work = job(tmp_path, COUNT, hosts=2, retries=1)
    DRIVER.start(work)
    cluster.calls()
    cluster.answer({"squeue": [{"code": 1, "err": "Unable to contact slurm controller\n"}]})
    away = "Unable to contact slurm controller"
    assert DRIVER.status(work) == Status(State.WAITING, None, away)
    lost = {
        "squeue": [{"code": 1, "err": "Invalid job id specified\n"}] * 2,
        "sacct": [{"out": "NODE_FAIL\n"}] * 2,
    }
    busy = {"sbatch": [{"code": 1, "err": "sbatch: error: try again later\n"}]}
    cluster.answer({name: answers[:1] for name, answers in lost.items()} | busy)
    status = DRIVER.status(work)
    assert status.state is State.WAITING and "not submitted: sbatch: error: try" in status.reason
    cluster.calls()
    cluster.answer(lost)
    assert DRIVER.status(work) == Status(State.WAITING, None, "SLURM says NODE_FAIL")
    assert len(called(cluster, "sbatch")) == 1
    assert DRIVER.status(work) == Status(State.FAILED, None, "SLURM says NODE_FAIL")
    assert called(cluster, "sbatch") == []


def test_the_plan_is_what_is_done(cluster, tmp_path):
    work = job(tmp_path, COUNT, hosts=2)
    driver = Slurm(partition="a b", account="c", minutes=5, grace=1)
    attempt, script, submit = driver.plan(work)
    driver.start(work)
    assert over(driver, work).state is State.DONE
    assert (tmp_path / "script-4242").read_text() == script.text
    (call,) = called(cluster, "sbatch")
    assert re.sub(r"_[0-9a-f]{32}", "", call[1]) == submit.argv[1] == str(script.file)
    assert str(work.argv) in attempt.text


@pytest.mark.parametrize("level", [None, "INFO", "NOCONFIG"])
def test_planning_leaves_logging_and_the_environment_alone(tmp_path, level):
    """Once in a process of its own, since what is imported stays so."""
    code = f"""
import logging, os
from pathlib import Path
from launch.drivers import Slurm
from launch.jobs import Job
before = dict(os.environ)
Slurm().plan(Job("a", ("b",), Path({str(tmp_path)!r}), "any"))
assert dict(os.environ) == before, "the environment"
assert not logging.getLogger("submitit").handlers, "logging"
"""
    variable = {"SUBMITIT_LOG_LEVEL": level} if level else {}
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **variable})
    assert not list(tmp_path.iterdir())


# submitit leaves its processes to whoever comes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_submitits_own_executor_runs_two_tasks(tmp_path):
    driver = Slurm(cluster="local", grace=1, minutes=5)
    work = job(tmp_path, COUNT + "sys.exit(42 if attempt == 1 else 0)", hosts=2, retries=2)
    driver.start(work)
    driver.start(work)
    assert over(driver, work) == Status(State.DONE, 0)
    assert [ran(tmp_path, n) for n in range(2)] == [2, 2]


def test_hostile_words_arrive_as_they_are(cluster, tmp_path):
    hostile = ["; touch pwned", "$(touch pwned)", "`touch pwned`", "--x='\"", "-c", "\u00e4\u2028"]
    show = "import json, os, sys; said = json.dumps([sys.argv[2:], os.environ['W']])"
    show += "; open(sys.argv[1], 'w').write(said)"
    argv = (sys.executable, "-c", show, str(tmp_path / "seen"), *hostile)
    folder = tmp_path / "a 'folder'; touch pwned"
    work = Job("job", argv, folder, "any", environment={"W": "$(touch pwned)"})
    driver = Slurm(partition="$(touch pwned)", account="'; touch pwned", grace=1)
    driver.start(work)
    assert over(driver, work) == Status(State.DONE, 0)
    assert json.loads((tmp_path / "seen").read_text()) == [hostile, "$(touch pwned)"]
    assert not list(tmp_path.rglob("pwned")) and not Path("pwned").exists()


def test_refusals_are_one_line(cluster, tmp_path, monkeypatch):
    cluster.answer({"sbatch": [{"code": 1, "err": "sbatch: error: invalid partition\n"}]})
    with pytest.raises(UserError, match=r"^job job: not submitted: .*invalid partition"):
        DRIVER.start(job(tmp_path, COUNT, hosts=2))
    with pytest.raises(UserError, match="SLURM reads % in names"):
        DRIVER.start(Job("job", ("true",), tmp_path / "%j", "cpu"))
    for names in ({"partition": "a\ntouch pwned #"}, {"account": "a\r#SBATCH --uid=0"}):
        with pytest.raises(UserError, match="holds a control character"):
            Slurm(**names)
    (tmp_path / "bin" / "srun").unlink()
    with pytest.raises(UserError, match="srun"):
        DRIVER.start(job(tmp_path, COUNT, hosts=2))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"needs submitit: pip install -e '.\[launch\]'"):
        DRIVER.start(job(tmp_path, COUNT, hosts=2))


@pytest.mark.parametrize("accelerator", ["gpu", "cpu:0", "any:1", "v6e-4", "gpu:8;x", "gpu:a b:1"])
def test_an_unknown_accelerator_is_refused(accelerator):
    with pytest.raises(UserError, match="the slurm driver knows"):
        devices(Job("a", ("b",), Path("c"), accelerator))


def test_what_the_accelerator_asks_for():
    asked = {a: devices(Job("a", ("b",), Path("c"), a)) for a in ("any", "cpu:4", "gpu:a100:4")}
    assert asked == {"any": {}, "cpu:4": {"cpus_per_task": 4}, "gpu:a100:4": {"gres": "gpu:a100:4"}}
