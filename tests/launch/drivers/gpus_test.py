"""GPUs are counted, dealt out and never shared; there are none here, only a stand-in lists some."""

import contextlib
import os
import signal
import tempfile

import pytest

from launch.drivers import gpus, local
from launch.jobs import Job, State, Status
from recattn_jax.errors import UserError
from tests.launch.drivers.programs import COUNT, SAVE, SAVE_ONCE, job, over, ran, up
from tests.launch.drivers.waiting import until

LISTED = """
for n in range({count}):
    print(f"GPU {{n}}: Some (R) Name (UUID: GPU-{{n}}0aa-bb)")
    print(f"  MIG 1g.5gb     Device  0: (UUID: MIG-{{n}}0cc-dd)")
"""
# Fails where another has one of its GPUs; says which it had.
ALONE = (
    COUNT
    + """
mine = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
with (file.parent / "had").open("a") as had:
    had.write(f"{me}: {' '.join(mine)}\\n")
for gpu in mine:
    os.open(file.parent / f"has-{gpu}", os.O_CREAT | os.O_EXCL)
time.sleep(0.5)
for gpu in mine:
    (file.parent / f"has-{gpu}").unlink()
"""
)


@pytest.fixture
def machine(stand_ins, tmp_path, monkeypatch):
    """Says how many GPUs there are; nobody has one."""
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))  # of supervisors
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return lambda count: stand_ins.put("nvidia-smi", more=LISTED.format(count=count))


def test_what_is_visible(machine):
    machine(2)
    ids = {"0": "GPU-00aa-bb", "1": "GPU-10aa-bb"}
    assert gpus.visible({}) == ids
    for text, names in [
        ("1,0", ["1", "0"]),
        ("1,1", ["1"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
        ("NoDevFiles", []),
        ("7, GPU-10aa-bb,MIG-GPU-1/2/0", ["7", "GPU-10aa-bb", "MIG-GPU-1/2/0"]),
    ]:
        expected = {name: ids.get(name, name) for name in names}
        assert list(gpus.visible({gpus.VISIBLE: text}).items()) == list(expected.items())


def test_what_nvidia_smi_cannot_say(stand_ins, monkeypatch):
    monkeypatch.setenv("PATH", str(stand_ins.here / "bin"))
    assert gpus.visible({}) == {}
    assert gpus.visible({gpus.VISIBLE: "0,1"}) == {"0": "0", "1": "1"}
    stand_ins.put("nvidia-smi")
    stand_ins.answer({"-L": [{"code": 9, "out": "GPU 0: it has failed (UUID: GPU-0)\n"}]})
    assert gpus.visible({}) == {}


@pytest.mark.parametrize("wanted", ["gpu:3", "gpu:2"])
def test_more_than_there_are_is_refused_in_one_line(machine, tmp_path, monkeypatch, wanted):
    machine(3)
    work = job(tmp_path, COUNT, wanted, hosts=2)
    by = "nvidia-smi there are 3 here (0, 1, 2)"
    if wanted == "gpu:2":
        monkeypatch.setenv(gpus.VISIBLE, "7,5,4")
        by = "CUDA_VISIBLE_DEVICES there are 3 here (7, 5, 4)"
    for action in (local.Local().start, local.Local().plan):
        with pytest.raises(UserError) as refused:
            action(work)
        assert by in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "jobs").exists()


def test_all_are_taken_or_none(machine):
    machine(3)
    there = gpus.visible({})
    with contextlib.ExitStack() as held:

        def take(names, needed):
            taken = gpus.take(names, needed)
            for lock in (taken or {}).values():
                held.callback(lock.release)
            return taken and list(taken)

        assert take({"1": there["1"]}, 1) == ["1"]
        assert take(there, 3) is None
        assert take(there, 2) == ["0", "2"]
        assert take(there, 1) is None
    again = gpus.take({"GPU-00aa-bb": "GPU-00aa-bb"}, 1)
    assert gpus.take(there, 3) is None  # one of them goes by its other name
    again["GPU-00aa-bb"].release()


def test_jobs_wait_for_each_other(machine, tmp_path):
    machine(2)
    driver = local.Local(grace=1.0)
    works = [job(tmp_path, ALONE, "gpu:1", name=f"job-{n}") for n in range(4)]
    works.append(job(tmp_path, ALONE, "gpu:1", name="both", hosts=2))
    for work in works:
        driver.start(work)
    assert [over(driver, work) for work in works] == [Status(State.DONE, 0)] * 5
    had = (tmp_path / "had").read_text().split("\n")
    assert {line.split(": ")[1] for line in had if line} == {"0", "1"}


def test_a_job_that_waits_says_so_and_can_be_stopped(machine, tmp_path):
    machine(1)
    driver, says = local.Local(grace=1.0), "waits for 1 of the GPUs 0, which other jobs have"
    first, second = (job(tmp_path, SAVE, "gpu:1", name=name) for name in ("first", "second"))
    driver.start(first)
    up(tmp_path)
    driver.start(second)
    until(lambda: driver.status(second) == Status(State.WAITING, None, says), says)
    driver.start(second)  # it is there
    assert says in (tmp_path / "jobs" / "second" / "supervisor.log").read_text()
    driver.stop(second)
    assert over(driver, second) == Status(State.FAILED, None, "it was asked to stop")
    assert ran(tmp_path) == 1
    driver.stop(first)
    over(driver, first)


def test_who_uses_a_gpu_has_it_also_when_its_supervisor_was_killed(machine, tmp_path):
    machine(1)
    driver, work = local.Local(grace=1.0), job(tmp_path, SAVE_ONCE, "gpu:1", retries=1)
    driver.start(work)
    up(tmp_path)
    record = tmp_path / "jobs" / "job" / local.RECORD
    until(lambda: bool(local.read(record).processes), "the process noted")
    os.kill(local.read(record).supervisor.pid, signal.SIGKILL)
    until(lambda: not local.read(record).supervisor.alive, "the end of the supervisor")
    assert gpus.take(gpus.visible({}), 1) is None
    assert over(driver, work) == Status(State.DONE, 0)
    assert ran(tmp_path) == 2


def test_gpus_that_are_gone_fail_the_job(machine, tmp_path):
    machine(1)
    work = Job("job", ("true",), tmp_path / "jobs", "gpu:1")
    write, _ = local.Local().plan(work)
    machine(0)
    write.file.parent.mkdir(parents=True)
    write.file.write_text(
        write.text.replace('"supervisor": null', '"supervisor": {"pid": 1, "born": null}')
    )
    status = over(local.Local(), work)
    assert status.state is State.FAILED and "by nvidia-smi there are 0 here (none)" in status.reason
