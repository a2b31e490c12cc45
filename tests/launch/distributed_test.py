"""One run on several processes of this machine: the same numbers, whatever the mesh."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import portpicker
import pytest
from absl import flags
from jax._src import xla_bridge
from jax._src.lib import _jax

from launch import distributed
from launch.configs import load
from launch.jobs import worth_another
from recattn_jax.errors import UserError
from recattn_jax.locks import FileLock
from recattn_jax.training import sharding
from recattn_jax.training.checkpoints import Checkpoints
from recattn_jax.training.experiment import MeshShape
from recattn_jax.training.metrics import read_records
from recattn_jax.training.state import abstract_state, state_shardings
from tests.launch.commands import TEXT

ROOT = Path(__file__).parents[2]
SPREAD = str(Path(__file__).with_name("spread_experiment.py"))


def start(folder, name, mesh, processes, devices, *arguments):
    """Starts the processes of a run."""
    (folder / "text.txt").write_text(TEXT * 10, encoding="utf-8")
    port = portpicker.pick_unused_port()
    line = [sys.executable, "-m", "launch.train", f"--config={SPREAD}", f"--workdir={name}"]
    here = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    several = {"RECATTN_COORDINATOR": f"localhost:{port}", "RECATTN_PROCESSES": str(processes)}
    started = []
    for process in range(processes):
        more = several | {"RECATTN_PROCESS": str(process)} if processes > 1 else {}
        log = (folder / f"{name}-{process}.log").open("a")
        started.append(
            subprocess.Popen(
                [*line, f"--config.mesh={mesh}", *arguments],
                cwd=folder,
                env=os.environ | here | more,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        )
        log.close()
    return started


def train(folder, name, mesh, processes, devices, *arguments):
    """Trains to the end, and gives the losses of all steps."""
    started = start(folder, name, mesh, processes, devices, *arguments)
    codes = ended(started)
    logs = [(folder / f"{name}-{n}.log").read_text() for n in range(processes)]
    assert codes == [0] * processes, logs
    return losses(folder / name)


def ended(started, seconds=150):
    """The exit codes; what has not ended by then is killed, so that no test leaves it behind."""
    try:
        return [process.wait(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()


def losses(run):
    records = read_records(run / "metrics.jsonl")
    train = [record for record in records if record["split"] == "train"]
    assert [record["step"] for record in train] == list(range(1, len(train) + 1))
    return np.array([record["loss"] for record in train])


def first_gradient(run, steps):
    """What the optimizer of the experiment kept of the first step."""
    module, config = load(SPREAD)
    config.steps, config.mesh = steps, "data:1"
    experiment = module.build(config)
    mesh = sharding.make_mesh(experiment.layout.mesh)
    abstract = abstract_state(experiment)
    with jax.set_mesh(mesh):
        wanted = jax.tree.map(
            lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p),
            abstract,
            state_shardings(experiment, abstract, mesh),
        )
        checkpoints = Checkpoints(run / "checkpoints", keep=steps, say=print, read_only=True)
        state, _, reason = checkpoints._read(1, wanted)
        checkpoints.close()
    assert state is not None, reason
    return jax.device_get(state.opt_state[0].trace)


def check_same(one, other):
    """Losses to 1e-4, the first gradient to 1e-5 of its norm."""
    (own_losses, own), (losses, gradient) = one, other
    np.testing.assert_allclose(losses, own_losses, rtol=1e-4)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(own)))
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * norm)


LAYOUTS = [
    ("data:8", 1, 8),
    ("fsdp:8", 1, 8),
    ("data:2,fsdp:2,model:2", 1, 8),
    ("data:2,sequence:4", 1, 8),
    ("data:8", 2, 4),
    ("fsdp:8", 2, 4),
    ("data:2,fsdp:2,model:2", 2, 4),
    ("data:2,sequence:4", 2, 4),
    ("model:8", 2, 4),
    ("data:2,fsdp:2,model:2", 4, 2),
    ("data:2,sequence:4", 4, 2),
]


def test_two_processes_do_what_one_does(tmp_path):
    steps = "--config.steps=3"
    one = train(tmp_path, "one", "data:1", 1, 1, steps), first_gradient(tmp_path / "one", 3)
    two = train(tmp_path, "two", "fsdp:2,model:2", 2, 2, steps), first_gradient(tmp_path / "two", 3)
    check_same(one, two)
    lines = (tmp_path / "two-1.log").read_text()
    assert "step 3/3" not in lines  # only the first process speaks


@pytest.mark.slow
def test_every_layout_does_what_one_device_does(tmp_path):
    one = train(tmp_path, "one", "data:1", 1, 1), first_gradient(tmp_path / "one", 20)
    for number, (mesh, processes, devices) in enumerate(LAYOUTS):
        name = f"run-{number}"
        other = train(tmp_path, name, mesh, processes, devices), first_gradient(tmp_path / name, 20)
        try:
            check_same(one, other)
        except AssertionError as error:
            raise AssertionError(f"{mesh} on {processes} x {devices}") from error


def reached(run, step, started, seconds=300):
    """Waits until a step is logged; where it does not come, the processes are killed."""
    deadline = time.monotonic() + seconds
    while not any(record["step"] >= step for record in read_records(run / "metrics.jsonl")):
        if time.monotonic() > deadline or any(p.poll() is not None for p in started):
            for process in started:
                process.kill()
            pytest.fail(f"step {step} did not come")
        time.sleep(0.05)


def interrupted(folder, name, mesh, processes, devices, *, after, whom):
    """Starts a run, asks a process of it to stop once a step is logged; gives the last step."""
    started = start(folder, name, mesh, processes, devices, "--config.steps=40")
    reached(folder / name, after, started)
    started[whom].send_signal(signal.SIGTERM)
    assert ended(started) == [42] * processes
    saved = sorted(int(p.name) for p in (folder / name / "checkpoints").iterdir())
    text = [(folder / f"{name}-{n}.log").read_text() for n in range(processes)]
    assert all(f"at step {saved[-1]}, saved" in log for log in text), text
    return saved[-1]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_asked_again_and_again_a_run_saves_once_and_ends_with_forty_two(tmp_path, processes):
    """A cluster may ask each process, and the script that started it passes the same on."""
    started = start(tmp_path, "run", "data:-1", processes, 1, "--config.steps=1000000")
    try:
        reached(tmp_path / "run", 1, started)
        while any(process.poll() is None for process in started):
            for process in started:
                process.send_signal(signal.SIGTERM)
            time.sleep(0.001)
    finally:
        codes = ended(started)
    assert codes == [42] * processes
    assert any((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_run_goes_on_with_other_hosts_and_another_mesh(tmp_path):
    whole = train(tmp_path, "whole", "data:1", 1, 1, "--config.steps=40")
    run = tmp_path, "moved"
    first = interrupted(*run, "data:2,fsdp:2", 2, 2, after=5, whom=1)
    second = interrupted(*run, "data:1", 1, 1, after=first + 5, whom=0)
    assert 5 <= first < second < 40
    moved = train(*run, "fsdp:4,model:2", 4, 2, "--config.steps=40")
    np.testing.assert_allclose(moved, whole, rtol=1e-4)


@pytest.mark.slow
def test_where_the_first_cannot_begin_all_end_at_once_and_say_so(tmp_path):
    """What jax does at the end of a process would wait for the others, and then abort."""
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / "run.lock"):
        assert ended(start(tmp_path, "run", "data:-1", 2, 1)) == [1, 1]
    first, second = ((tmp_path / f"run-{n}.log").read_text().splitlines()[-1] for n in range(2))
    assert first.startswith("error: run is in use by another process"), first
    assert second == "error: the first process of this run cannot begin, and says why"


@pytest.mark.slow
def test_one_that_cannot_read_its_data_leaves_and_the_others_say_why_they_end(tmp_path):
    mistake = ["--config.fails=5"]
    assert ended(start(tmp_path, "run", "data:-1", 2, 1, *mistake)) == [1, 1]
    first, second = ((tmp_path / f"run-{n}.log").read_text().splitlines()[-1] for n in range(2))
    assert "another process of this run is gone" in first, first
    assert "batch 5 of the training pipeline cannot be read: OSError" in second, second
    assert "last checkpoint: step " in second, second


def flag_values(**given):
    values = flags.FlagValues()
    distributed.define_flags(values)
    values(["train", *(f"--{name}={value}" for name, value in given.items())])
    return values


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"processes": 2}, "--coordinator is missing"),
        ({"coordinator": "host", "processes": 2, "process": 0}, "expected HOST:PORT"),
        ({"coordinator": "host:1", "processes": 2, "process": 2}, "it is 0 to 1"),
    ],
)
def test_half_of_what_is_needed_is_refused(given, words):
    with pytest.raises(UserError, match=words), distributed.joined(flag_values(**given)):
        pass


def test_alone_nothing_is_joined(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_: pytest.fail("joined"))
    with distributed.joined(flag_values()):
        pass
    with distributed.joined(flag_values(coordinator="host:1", processes=1, process=0)):
        pass


def test_who_is_told_all_has_all_its_devices(monkeypatch):
    """jax gives a process that it finds to be SLURM's one GPU of its host, whoever told it more."""
    slurm = {"JOB_ID": "7", "NTASKS": "2", "STEP_NODELIST": "a,b", "PROCID": "1", "LOCALID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    seen = []

    class NoClient:
        def __init__(self, *arguments, **_):
            seen.append((arguments[:2], xla_bridge.CUDA_VISIBLE_DEVICES.value))
            raise RuntimeError("nobody is there")

    monkeypatch.setattr(_jax, "get_distributed_runtime_client", NoClient)
    monkeypatch.setattr(xla_bridge, "backends_are_initialized", lambda: False)
    before = xla_bridge.CUDA_VISIBLE_DEVICES.value
    told = flag_values(coordinator="host:1", processes=2, process=1)
    refusal = pytest.raises(distributed.NotJoined, match="nobody is there")
    with refusal as refused, distributed.joined(told):
        pass
    assert seen == [(("host:1", 1), before)]
    assert worth_another(refused.value.exit_code, attempt=1, retries=1)


def test_an_open_mpi_that_jax_does_not_know_is_refused():
    five = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "JAX_PLATFORMS": "cpu"}
    with pytest.raises(UserError, match="tell each process: --coordinator"):
        distributed.found(five)
    assert not distributed.found(five | {"OMPI_COMM_WORLD_SIZE": "1"})


def test_jax_may_be_told_to_look_for_the_others(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a: asked.append(a))
    monkeypatch.setenv("RECATTN_COORDINATOR", "auto")
    with distributed.joined(flag_values()):
        pass
    assert asked == [()]


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, False),  # no srun
        (
            {
                "SLURM_JOB_ID": "7",
                "SLURM_NTASKS": "2",
                "SLURM_STEP_NODELIST": "a,b",
                "SLURM_PROCID": "0",
                "SLURM_LOCALID": "0",
            },
            True,
        ),
        (
            {
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_RANK": "1",
                "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:3",
            },
            True,
        ),
        (
            {
                "OMPI_COMM_WORLD_SIZE": "1",
                "OMPI_COMM_WORLD_RANK": "0",
                "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:3",
            },
            False,
        ),
    ],
)
def test_clusters_are_found(environment, several):
    assert distributed.found(environment | {"JAX_PLATFORMS": "cpu"}) is several


def test_a_mesh_is_read_from_text():
    assert MeshShape.parse("data:2,fsdp:-1") == MeshShape(data=2, fsdp=-1)
    for text in ("", "data", "data:0", "data:2,data:2", "datum:2", "data:2;fsdp:2", "data:1.5"):
        with pytest.raises(UserError, match="data:2,fsdp:4"):
            MeshShape.parse(text)
