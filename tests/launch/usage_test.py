"""Wrong usage: one clear line on stderr, exit code 2, nothing written."""

import json
import os
from pathlib import Path

import pytest

from launch import evaluate, generate, report, train
from tests.launch.commands import TINY, Result, everything_under, python_process

CONFIG = f"--config={TINY}"


@pytest.fixture
def refused(call):
    """Calls a command that must refuse, and checks how it does."""

    def check(module, *arguments):
        before = everything_under(Path())
        result = call(module, *arguments)
        assert result.code == 2, (result.code, result.err)
        assert result.out == ""
        assert result.err.count("\n") == 1 and result.err.startswith("error: "), result.err
        assert everything_under(Path()) == before
        return result.err

    return check


def test_an_unknown_config_key_names_the_nearest_one(refused):
    message = refused(train, CONFIG, "--config.peak_rl=1")
    assert "'peak_rl'" in message and "did you mean peak_lr?" in message and TINY in message


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.steps=1.5", ["--config.steps=1.5", "expected an integer"]),
        ("--config.steps=many", ["--config.steps=many", "expected an integer"]),
        ("--config.peak_lr=high", ["--config.peak_lr=high", "expected a number"]),
        ("--config.streams=perhaps", ["--config.streams=perhaps", "expected bool"]),
        ("--config.held_out=0.1,x", ["--config.held_out", "(0.1,0.1)"]),
        ("--config.steps", ["config.steps"]),
    ],
)
def test_a_wrong_type_names_the_key_and_what_was_expected(refused, argument, words):
    message = refused(train, CONFIG, argument)
    assert all(word in message for word in words), message


def test_a_missing_config_file_is_named(refused):
    assert "nowhere.py" in refused(train, "--config=nowhere.py")


def test_a_config_file_must_be_an_experiment(refused):
    Path("config.txt").write_text("")
    assert "config.txt" in refused(train, "--config=config.txt")
    Path("half.py").write_text("def get_config():\n    return None\n")
    message = refused(train, "--config=half.py")
    assert "half.py" in message and "build" in message
    Path("none.py").write_text("def get_config():\n    return None\n\ndef build(c):\n    pass\n")
    message = refused(train, "--config=none.py")
    assert "none.py" in message and "ConfigDict" in message
    Path("torn.py").write_text("def get_config(:\n")
    message = refused(train, "--config=torn.py")
    assert "torn.py" in message and "line 1" in message


def test_a_text_that_is_not_utf8_is_named_with_the_byte(refused):
    Path("text.txt").write_bytes(b"abc" * 100 + b"\xff" + b"abc" * 100)
    message = refused(train, CONFIG)
    assert "text.txt" in message and "300" in message and "0xff" in message


def test_an_empty_corpus_is_refused(refused):
    Path("text.txt").write_text("")
    message = refused(train, CONFIG)
    assert "text.txt" in message and "empty" in message


def test_a_missing_corpus_is_refused(refused):
    assert "other.txt" in refused(train, CONFIG, "--config.text=other.txt")


def test_a_sequence_longer_than_the_corpus_is_refused(call):
    # The corpus is prepared before it can be measured: the data folder is a cache, not the run.
    Path("text.txt").write_text("the cat sat on the mat\n" * 4)
    result = call(train, CONFIG, "--config.length=500", "--workdir=run")
    assert result.code == 2 and result.err.count("\n") == 1 and result.out == ""
    assert "500" in result.err and "length" in result.err
    assert not Path("run").exists() and not Path("runs").exists()


def test_a_batch_that_the_mesh_does_not_divide_is_refused(refused):
    message = refused(train, CONFIG, "--config.batch=12")
    assert "12" in message and "8" in message


def test_a_mesh_that_the_devices_do_not_make_up_is_refused(refused):
    assert "64" in refused(train, CONFIG, "--config.mesh=data:64")


def test_a_workdir_with_another_config_is_refused(refused, trained):
    message = refused(train, CONFIG, "--workdir=run", "--config.peak_lr=0.25")
    assert "run" in message and "peak_lr" in message and "0.5" in message and "0.25" in message


def test_a_workdir_that_cannot_be_made_is_refused(refused):
    Path("file").write_text("")
    assert "file" in refused(train, CONFIG, "--workdir=file/run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_workdir_without_permission_is_refused(refused):
    Path("locked").mkdir(mode=0o500)
    assert "locked" in refused(train, CONFIG, "--workdir=locked/run")


@pytest.mark.parametrize("module", [train, evaluate, generate, report])
@pytest.mark.parametrize(
    ("argument", "words"),
    [("--wrokdir=a", ["--wrokdir", "did you mean --workdir?"]), ("stray", ["'stray'"])],
)
def test_unknown_flags_and_stray_arguments_are_refused(refused, module, argument, words):
    arguments = [CONFIG] if module is train else []
    message = refused(module, *arguments, argument)
    assert all(word in message for word in words)


@pytest.mark.parametrize("module", [evaluate, generate])
def test_a_run_must_be_named_and_exist(refused, module):
    assert "--workdir" in refused(module)
    assert "nowhere" in refused(module, "--workdir=nowhere")
    assert "--checkpoint=worst" in refused(module, "--workdir=nowhere", "--checkpoint=worst")


def test_what_a_run_does_not_have_is_refused(refused, trained):
    assert "validation" in refused(evaluate, "--workdir=run", "--split=tset")
    assert "3" in refused(generate, "--workdir=run", "--checkpoint=3")
    assert "temperature" in refused(generate, "--workdir=run", "--temperature=-1")
    assert "top_p" in refused(generate, "--workdir=run", "--top_p=2")
    assert "tokens" in refused(generate, "--workdir=run", "--tokens=-1")


def test_vocabularies_that_are_not_the_runs_are_refused(refused, trained):
    record = json.loads(Path("run/run.json").read_text())
    record.pop("vocabularies")  # or the file would be said to be damaged
    Path("run/run.json").write_text(json.dumps(record))
    stored = {"text": {"kind": "char", "characters": "abc"}}
    Path("run/vocabularies.json").write_text(json.dumps(stored))
    message = refused(evaluate, "--workdir=run")
    assert "vocabulary 'text' of run is not the one" in message
    stored["label"] = {"kind": "labels", "names": ["bad", "good"]}
    Path("run/vocabularies.json").write_text(json.dumps(stored))
    assert "vocabulary 'label' of run" in refused(evaluate, "--workdir=run")
    assert "this run has label, text" in refused(generate, "--workdir=run")


def test_a_model_that_does_not_stream_is_refused(call, refused):
    assert call(train, CONFIG, "--workdir=run", "--config.streams=false").code == 0
    assert "does not stream" in refused(generate, "--workdir=run")


@pytest.mark.parametrize("steps", ["3", "3:2", "0:4", "a:b"])
def test_steps_to_profile_are_two_rising_numbers(refused, steps):
    assert f"--profile_steps={steps}" in refused(train, CONFIG, f"--profile_steps={steps}")


def test_a_start_must_be_a_run(refused):
    assert "nowhere" in refused(train, CONFIG, "--init_from=nowhere")
    assert "--init_from" in refused(train, CONFIG, "--checkpoint=best")


def test_weights_of_another_model_are_refused(refused, trained):
    message = refused(train, CONFIG, "--workdir=next", "--init_from=run", "--config.width=6")
    assert "Dense_0/kernel" in message and "(4, 257)" in message and "(6, 257)" in message


def test_a_report_needs_runs(refused):
    assert "runs" in refused(report)
    Path("runs").mkdir()
    assert "no run" in refused(report)


def python(*arguments, cwd):
    with python_process(*arguments, cwd=cwd) as process:
        out, err = process.communicate(timeout=60)
    return Result(process.returncode, out, err)


def test_in_a_process_of_its_own_the_same_holds(tmp_path):
    done = python("launch.train", CONFIG, "--config.peak_rl=1", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1 and "did you mean peak_lr?" in done.err
    assert not everything_under(tmp_path)


def test_help_of_a_process_is_zero(tmp_path):
    done = python("launch.generate", "--help", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "--temperature" in done.out and "launch.generate" in done.out
