"""`launch.submit`: dry runs as a person has read them, and jobs that are started and asked for."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from absl import flags

from launch import drivers, submit
from launch.drivers import Gke, Local, Slurm, TpuVm
from launch.jobs import Job, State, Status
from recattn_jax.errors import UserError
from tests.launch.commands import everything_under
from tests.launch.drivers import golden

# Words that a shell would read, which the dry run shows quoted.
TRAIN = ("--", "--config=experiments/char_lm.py", '--config.note=it\'s $(x); "y"', "--workdir=a b")
DRY_RUNS = {
    "local.txt": ("--driver=local", "--hosts=2", "--accelerator=cpu:4"),
    "slurm.txt": ("--driver=slurm", "--hosts=2", "--accelerator=gpu:8", "--partition=long"),
    "tpu_vm.txt": (
        *("--driver=tpu_vm", "--hosts=4", "--accelerator=v5litepod-16", "--zone=us-east5-b"),
        *("--runtime=v2-alpha-tpuv5-lite", "--spot", "--setup=setup.sh"),
    ),
    "gke_tpu.txt": (
        *("--driver=gke", "--hosts=4", "--accelerator=v5litepod-16", "--image=image:1"),
        *("--claim=runs", "--queue=research"),
    ),
    "gke_gpu.txt": ("--driver=gke", "--hosts=2", "--accelerator=nvidia-l4:2", "--image=image:1"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", DRY_RUNS)
def test_dry_runs(call, here, name):
    if name == "slurm.txt" and find_spec("submitit") is None:
        pytest.skip("submitit is not installed")
    Path("setup.sh").write_text("pip install --quiet --editable '.[tpu]'\n")
    before = everything_under(here)
    result = call(submit, "--name=lm", *DRY_RUNS[name], "--dry_run", *TRAIN)
    assert (result.code, result.err) == (0, "")
    assert everything_under(here) == before
    golden.check(name, result.out, here)


def test_a_job_is_started_asked_for_and_waited_for(call, here):
    """The command line is wrong, which `launch.train` says, and its exit code is the job's."""
    own = ("--name=lm", "--accelerator=cpu", "--retries=3")
    assert "job lm: unknown" in call(submit, *own, "--action=status").out
    started = call(submit, *own, "--", "--config=nowhere.py")
    assert started.code == 0 and f"logs in {here}/runs/jobs/lm" in started.out
    assert "python -m launch.submit --name=lm --accelerator=cpu" in started.out
    waited = call(submit, *own, "--action=wait", "--poll=1")
    assert waited.code == 2 and "job lm: failed, exit code 2 (attempt 1 ended with 2" in waited.out
    assert "nowhere.py" in (here / "runs/jobs/lm/process-0.log").read_text()
    stopped = call(submit, *own, "--action=stop")
    assert stopped.code == 0 and "job lm: failed" in stopped.out


@pytest.mark.parametrize("one", ["local", "slurm"])
def test_a_record_of_another_driver_is_refused_in_one_line(call, here, one):
    folder = here / "runs/jobs/a"
    folder.mkdir(parents=True)
    record = {"local": '{"id": "1", "stopping": false}', "slurm": '{"phase": "queued"}'}
    (folder / "job.json").write_text(record[one])
    result = call(submit, "--name=a", f"--driver={one}", "--action=status")
    assert result.code == 4 and result.err.count("\n") == 1 and "another driver" in result.err


class Scripted:
    """A driver whose job stands as it is told."""

    def __init__(self, *statuses):
        self._statuses = list(statuses)

    def status(self, job):
        return self._statuses.pop(0)


def test_waiting_says_what_changes(capsys):
    work = Job("lm", ("true",), Path("runs"), "cpu")
    waiting, running, done = (Status(s) for s in (State.WAITING, State.RUNNING, State.DONE))
    driver = Scripted(waiting, waiting, running, running, running, done)
    assert submit.wait(driver, work, poll=0) == done
    assert capsys.readouterr().out == "job lm: waiting\njob lm: running\njob lm: done\n"
    assert submit.wait(Scripted(Status(State.UNKNOWN)), work, poll=0).state is State.UNKNOWN


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--name is missing"),
        (("--name=A",), "job name 'A'"),
        (("--name=a", "--driver=cloud"), "expected"),
        (("--name=a", "--driver=gke"), "--image is missing"),
        (("--name=a", "--driver=tpu_vm", "--zone=z"), "--runtime is missing"),
        (("--name=a", "--zone=z"), "--zone: the local driver has no use for it"),
        (("--name=a", "--driver=slurm", "--image=i"), "--image: the slurm driver"),
        (("--name=a", "--accelerator=tpu"), "the local driver knows"),
        (("--name=a", "--hosts=0"), "--hosts=0"),
        (("--name=a", "--action=stop", "--dry_run"), "--dry_run shows"),
        (("--name=a", "train"), "unexpected argument 'train'"),
        (("--name=a", "--", "--x=\n"), "control character"),
        (("--name=a", "--", "--x=\udc80"), "no UTF-8"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(call, here, arguments, words):
    before = everything_under(here)
    result = call(submit, *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1 and words in result.err
    assert everything_under(here) == before


def chosen(*arguments):
    flag_values = flags.FlagValues()
    drivers.define_flags(flag_values)
    flag_values(["it", *arguments])
    return drivers.from_flags(flag_values)


def test_flags_choose_a_driver():
    assert chosen() == Local()
    assert chosen("--driver=slurm", "--minutes=5", "--account=a") == Slurm(minutes=5, account="a")
    assert chosen("--driver=gke", "--image=i", "--claim=c") == Gke("i", claim="c")
    assert chosen(
        "--driver=tpu_vm", "--zone=z", "--runtime=r", "--spot", "--setup=s", "--directory=d"
    ) == TpuVm("z", "r", spot=True, setup=Path("s"), directory="d")
    with pytest.raises(UserError, match="--spot: the local driver has no use"):
        chosen("--spot")
