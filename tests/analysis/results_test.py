"""Committed results: lines, and what a run's folder tells for one."""

import dataclasses
import json
from pathlib import Path

import pytest

from recattn_jax.analysis import results
from recattn_jax.analysis.summaries import find_runs
from recattn_jax.errors import StorageError, UserError
from tests.analysis.run_folders import write_run

RESULT = results.Result(
    experiment="some",
    config_file="experiments/some.py",
    config={"folder": "FOLDER", "mixer": "hybrid", "seed": 0, "sizes": [1, 2], "width": 4},
    changed={},
    seed=0,
    data="words: examples: train 3, test 1; content 0123abcd",
    split="test",
    metrics={"accuracy": 0.75, "f1/no": 0.5, "loss": 0.6, "macro_f1": 0.7},
    validation=0.8,
    headline="accuracy",
    maximise=True,
    step=20,
    steps=30,
    training_minutes=1.25,
    parameters=12345,
    commit="093054d",
    hardware="1 of 2 cores of AMD EPYC",
    versions={"jax": "0.10.2", "python": "3.11.7"},
    command="python -m launch.train --config=experiments/some.py --config.folder=FOLDER",
)
DEFAULTS = {"data_dir": "~/.cache", "folder": "", "mixer": "hybrid", "seed": 0, "sizes": (1, 2)}
RECORD = {
    "argv": ["--config=experiments/some.py", "--workdir=/runs/a"],
    "attempts": [
        {"training_seconds": 60.0, "commit": "a" * 40, "hardware": "2 cores of X"},
        {"training_seconds": 30.0, "commit": "b" * 40 + "+", "hardware": "1 of 2 cores of X"},
        {"training_seconds": 0.0, "commit": "c" * 40, "hardware": "NVIDIA H200"},
    ],
    "commit": "c" * 40,
    "training_seconds": 90.0,
    "versions": {"jax": "0.10.2", "python": "3.11.7", "flax": "0.12.8"},
}


def told_of(folder, config=None, **record):
    values = [3.0, 1.0, 2.0]
    write_run(folder / "run", {"seed": 0} if config is None else config, values, **RECORD | record)
    (run,) = find_runs(folder / "run")
    results.check_finished(run)
    return results.tell(run, "experiments/some.py", DEFAULTS)


def test_lines_are_read_back(tmp_path):
    file = tmp_path / "results.jsonl"
    assert results.read_results(file) == []
    lost = dataclasses.replace(RESULT, metrics={"accuracy": 0.5, "perplexity": None}, seed=1)
    for result in (RESULT, lost):
        results.append_result(file, result)
    assert results.read_results(file) == [RESULT, lost]
    file.write_text(file.read_text().removesuffix("\n"))
    results.append_result(file, RESULT)
    assert results.read_results(file) == [RESULT, lost, RESULT]
    assert file.read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda line: line[:50], "Expecting|Unterminated"),
        (lambda line: "3\n", "no JSON object"),
        (lambda line: line.replace('"seed": 0, "data"', '"sede": 0, "data"'), "'sede', 'seed'"),
        (lambda line: line.replace('"step": 20', '"step": true'), "step is True, expected int"),
        (lambda line: line.replace('"step": 20', '"step": 2.5'), "step is 2.5, expected int"),
        (lambda line: line.replace('"headline": "acc', '"headline": "bcc'), "lack the headline"),
        (lambda line: line.replace('"loss": 0.6', '"loss": "0.6"'), "a metric is no number"),
        (lambda line: "\n" + line, "Expecting"),
        (lambda line: "\u00e4".encode("latin-1").decode("utf-8", "surrogateescape"), "decode"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, change, word):
    file = tmp_path / "results.jsonl"
    line = results.to_line(RESULT)
    file.write_bytes((line + change(line)).encode("utf-8", "surrogateescape"))
    with pytest.raises(StorageError, match=rf"results\.jsonl line 2 is damaged \(.*({word})"):
        results.read_results(file)


def test_a_folder_tells_what_was_run(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("a")
    config = {"data_dir": "/caches", "folder": str(text), "mixer": "lstm"}
    told = told_of(tmp_path, config | {"seed": 3, "sizes": [1, 3]})
    assert told == {
        "experiment": "some",
        "config_file": "experiments/some.py",
        "config": {"folder": "FOLDER", "mixer": "lstm", "seed": 3, "sizes": [1, 3]},
        "changed": {"mixer": "lstm", "sizes": [1, 3]},
        "validation": 2.0,
        "headline": "bits_per_byte",
        "maximise": False,
        "steps": 3,
        "training_minutes": 1.5,
        "commit": "aaaaaaa, bbbbbbb+",
        "hardware": "2 cores of X, 1 of 2 cores of X",
        "versions": {"jax": "0.10.2", "python": "3.11.7"},
        "command": "python -m launch.train --config=experiments/some.py --config.folder=FOLDER"
        " --config.mixer=lstm --config.seed=3 '--config.sizes=(1,3)'",
    }


def test_the_files_own_values_are_no_change(tmp_path):
    told = told_of(tmp_path, json.loads(json.dumps(DEFAULTS)))
    assert told["changed"] == {}
    assert told["command"] == "python -m launch.train --config=experiments/some.py"


def test_a_start_from_other_weights_is_a_change(tmp_path):
    told = told_of(tmp_path, argv=["--init_from=/runs/b"])
    assert told["changed"] == {"--init_from": "RUN"}
    assert told["command"].endswith("some.py --init_from=RUN")


def test_a_run_from_before_hardware_was_written_down_shows_its_devices(tmp_path):
    attempts = [{"training_seconds": 60.0, "devices": ["cpu"]}]
    told = told_of(tmp_path, attempts=attempts, commit=None)
    assert (told["hardware"], told["commit"]) == ("cpu", "unknown")


def test_paths_are_told_from_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lstm").mkdir()
    Path("data").mkdir()
    Path("data/text.txt").write_text("a")
    paths = ["/", "/not/there", "~/there", "../x", "data/text.txt", "./lstm"]
    words = ["", "lstm", "lstm+attention", "glue/sst2", "v1.5", "data/other.txt", 3, 0.5, True]
    assert [value for value in [*paths, *words] if results.is_path(value)] == paths


@pytest.mark.parametrize(
    ("record", "word"),
    [
        ({"ended": "killed"}, "it has not finished: running or killed"),
        ({"ended": "Interrupted: SIGTERM at step 3"}, "not finished: Interrupted: SIGTERM"),
        ({"headline": "accuracy"}, "it is damaged: 3 lines of metrics.jsonl lack a number"),
    ],
)
def test_a_run_without_a_result_is_refused(tmp_path, record, word):
    with pytest.raises(UserError, match=word):
        told_of(tmp_path, **record)


def test_a_record_that_lacks_something_or_an_evaluation_is_refused(tmp_path):
    write_run(tmp_path / "a", {}, [1.0])
    (run,) = find_runs(tmp_path / "a")
    with pytest.raises(
        UserError, match="run.json lacks argv, attempts, commit, training_seconds, ver"
    ):
        results.check_finished(run)
    write_run(tmp_path / "b", {}, [float("nan")], **RECORD)
    (run,) = find_runs(tmp_path / "b")
    with pytest.raises(UserError, match="no evaluation whose bits_per_byte is finite"):
        results.check_finished(run)


def test_what_was_measured_completes_it(tmp_path):
    told = told_of(tmp_path)
    measured = dict(seed=0, data="x", split="test", step=2, parameters=5)
    metrics = {"bits_per_byte": 2.5, "perplexity": float("inf")}
    result = results.complete(told, metrics=metrics, **measured)
    assert result.metrics == {"bits_per_byte": 2.5, "perplexity": None}
    assert json.loads(results.to_line(result)) == dataclasses.asdict(result)
    with pytest.raises(UserError, match="bits_per_byte on test is nan"):
        results.complete(told, metrics={"bits_per_byte": float("nan")}, **measured)


def test_a_run_is_recorded_once(tmp_path):
    told = told_of(tmp_path)
    measured = dict(seed=0, data="x", split="test", step=2, parameters=5)
    result = results.complete(told, metrics={"bits_per_byte": 2.5}, **measured)
    others = [
        dataclasses.replace(result, **change)
        for change in ({"commit": "1234567"}, {"config": {"seed": 1}}, {"validation": 2.1})
    ]
    assert results.recorded(told, [*others, result])
    assert not results.recorded(told, others)
