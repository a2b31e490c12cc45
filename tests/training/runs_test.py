"""Run folders: who may write where, and what can be loaded again."""

import json
import os
import re
import socket
import subprocess
import types

import numpy as np
import pytest

from recattn_jax.errors import StorageError, UserError
from recattn_jax.locks import FileLock
from recattn_jax.training import (
    RunFolder,
    evaluate,
    fit,
    load_experiment_file,
    load_run,
    machine,
)
from recattn_jax.training.runs import parameter_table
from tests.training.toy import run_folder, toy

EXPERIMENT = """
from ml_collections import config_dict
from tests.training.toy import toy

def get_config():
    return config_dict.create(steps=8, width=64, sizes=(1, 2))

def build(c):
    return toy(steps=c.steps, ema_decay=0.9)[0]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "toy_experiment.py").write_text(EXPERIMENT)
    module = load_experiment_file(folder / "toy_experiment.py")
    config = module.get_config()
    run = RunFolder.open(
        folder / "run",
        config=config.to_dict(),
        config_file=str(folder / "toy_experiment.py"),
        argv=["--config=toy"],
    )
    experiment = module.build(config)
    outcome = fit(experiment, experiment.data(), run)
    return folder, outcome


def test_a_run_is_loaded_with_all_that_it_takes(finished):
    folder, outcome = finished
    run = load_run(folder / "run", config_file=folder / "toy_experiment.py")
    assert run.step == outcome.best_step == 8
    assert run.config.steps == 8 and run.config.sizes == (1, 2)
    assert run.vocabularies["text"].vocabulary_size == 257
    tokens = np.zeros((2, 5), np.int32)
    logits, _ = run.experiment.model.apply({"params": run.params}, tokens, None, tokens + 1)
    assert logits.shape == (2, 5, 16)
    # Evaluating what was loaded gives what the run said of it, to the last bit.
    data = run.experiment.data()
    assert (
        evaluate(run.experiment, run.params, data.evaluation["validation"], run.vocabularies)
        == outcome.metrics
    )
    assert (
        load_run(folder / "run", config_file=folder / "toy_experiment.py", checkpoint="last").step
        == 8
    )
    assert (
        load_run(folder / "run", config_file=folder / "toy_experiment.py", checkpoint=6).step == 6
    )
    with pytest.raises(UserError, match="no checkpoint 5"):
        load_run(folder / "run", config_file=folder / "toy_experiment.py", checkpoint=5)


def test_an_experiment_file_that_changed_is_refused(finished):
    folder, _ = finished
    file = folder / "toy_experiment.py"
    file.write_text(EXPERIMENT.replace("width=64", "breadth=64"))
    with pytest.raises(UserError, match=r"has changed since .* keys \['breadth', 'width'\]"):
        load_run(folder / "run", config_file=folder / "toy_experiment.py")
    file.write_text(EXPERIMENT)


def test_no_run_is_no_run(tmp_path):
    with pytest.raises(UserError, match="no run in"):
        load_run(tmp_path)


def test_another_config_is_refused_with_the_keys_that_differ(tmp_path):
    experiment, data = toy()
    with run_folder(tmp_path / "run", width=64, seed=0).begin(experiment, data):
        pass
    run_folder(tmp_path / "run", width=64, seed=0)
    with pytest.raises(UserError, match=r"another config \(seed: 0 there, 1 now; x: absent there"):
        run_folder(tmp_path / "run", width=64, seed=1, x=2)


def test_a_folder_that_cannot_be_written_is_refused_and_left_alone(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder"):
        run_folder(tmp_path / "file" / "run")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="no permission to write in"):
        run_folder(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_opening_writes_nothing(tmp_path):
    run_folder(tmp_path / "a" / "run", seed=0)
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_file_is_checked(tmp_path):
    with pytest.raises(UserError, match="no experiment file"):
        load_experiment_file(tmp_path / "missing.py")
    (tmp_path / "half.py").write_text("def get_config(): pass\n")
    with pytest.raises(UserError, match=r"has no function build\(\)"):
        load_experiment_file(tmp_path / "half.py")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="not a Python file"):
        load_experiment_file(tmp_path / "notes.txt")


def test_run_json_counts_attempts(finished):
    folder, outcome = finished
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["ended"] == "done" and record["argv"] == ["--config=toy"]
    assert record["training_seconds"] == pytest.approx(outcome.training_seconds, abs=0.01)
    assert record["wall_seconds"] >= record["training_seconds"]
    assert {"host", "devices", "started"} <= record["attempts"][0].keys()
    assert record["attempts"][0]["hardware"] == machine.hardware()
    assert record["attempts"][0]["commit"] == record["commit"]
    assert {"jax", "flax", "python"} <= record["versions"].keys()


def test_a_commit_has_a_plus_where_programs_differ_and_pages_do_not_count(monkeypatch, tmp_path):
    def git(*words):
        who = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "core.hooksPath="]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(machine, "CHECKOUT", tmp_path)
    assert machine.commit() is None
    program, page = tmp_path / "program.py", tmp_path / "deep" / "RESULTS.md"
    page.parent.mkdir()
    program.touch(), page.touch()
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    page.write_text("more")
    assert re.fullmatch("[0-9a-f]{40}", str(machine.commit()))
    program.write_text("pass")
    assert re.fullmatch("[0-9a-f]{40}[+]", str(machine.commit()))


def test_a_process_on_one_core_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "arm")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {2})
    assert machine.hardware() == "1 of 4 cores of arm"
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some  CPU\nflags\t: x\n")
    assert machine.hardware() == "4 cores of Some CPU"
    gpu = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H200")
    monkeypatch.setattr("jax.devices", lambda: [gpu])
    assert machine.hardware() == "NVIDIA H200"
    monkeypatch.setattr("jax.devices", lambda: [gpu, gpu])
    assert machine.hardware() == "2 x NVIDIA H200"


def test_the_parameter_table_adds_up():
    params = {"a": {"kernel": np.zeros((2, 3), np.float32)}, "b": np.zeros(4, np.float32)}
    lines = parameter_table(params).splitlines()
    assert lines[0].split() == ["a/kernel", "(2,", "3)", "float32", "6"]
    assert lines[-1].split() == ["total", "10"]


def test_a_read_only_folder_while_running_is_a_storage_error(tmp_path, monkeypatch):
    def read_only(*_):
        raise OSError(30, "Read-only file system")

    experiment, data = toy()
    run = run_folder(tmp_path / "run")
    monkeypatch.setattr("os.replace", read_only)
    with pytest.raises(StorageError, match=r"cannot write .*Read-only file system"):
        fit(experiment, data, run)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path):
    experiment, data = toy()
    path = tmp_path / "run"
    with run_folder(path).begin(experiment, data):
        before = content(path)
        with pytest.raises(UserError) as caught, run_folder(path).begin(experiment, data):
            pass
        assert content(path) == before
    owner = f"run is in use by process {os.getpid()} on {socket.gethostname()}, since 20"
    words = str(caught.value)
    assert owner in words and "or use another workdir" in words and "\n" not in words, words
    # The file stays, and stands in nobody's way.
    assert (path / "run.lock").exists()
    with run_folder(path).begin(experiment, data):
        pass


def test_an_owner_that_has_not_said_its_name_yet_is_one_too(tmp_path):
    experiment, data = toy()
    with FileLock(tmp_path / "run.lock"):
        with (
            pytest.raises(UserError, match="in use by another process;"),
            run_folder(tmp_path).begin(experiment, data),
        ):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


def test_the_first_error_is_the_one_that_is_heard(tmp_path, monkeypatch):
    """A full disk is met again when it is written down how the run ended."""

    def full(*_):
        raise OSError(28, "No space left on device")

    run = run_folder(tmp_path)
    with pytest.raises(ZeroDivisionError), run.recording():
        monkeypatch.setattr("os.replace", full)
        raise ZeroDivisionError
    assert json.loads((tmp_path / "run.json").read_text())["ended"] == "killed"
    with pytest.raises(StorageError, match="cannot write"), run.recording():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
