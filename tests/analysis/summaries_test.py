"""What run folders tell, whatever they hold."""

import json
import math
import os

import numpy as np
import pytest

from recattn_jax.analysis import arms, reports
from recattn_jax.analysis.summaries import Mark, find_runs
from tests.analysis.run_folders import write_run


def test_runs_are_found_at_any_depth_best_first_within_an_experiment(root):
    runs = find_runs(root)
    assert [run.name for run in runs] == ["other", "deep/better", "worse"]
    assert [run.best for run in runs] == [(2.0, 1), (6.0, 2), (8.0, 2)]
    assert not any(run.damage for run in runs)


def test_more_may_be_better_and_all_numbers_are_shown(tmp_path):
    write_run(tmp_path / "lower", {}, [5.0, 4.0], maximise=True)
    write_run(tmp_path / "higher", {}, [5.0, 6.0, 6.0, 3.0], maximise=True)
    runs = find_runs(tmp_path)
    assert [run.name for run in runs] == ["higher", "lower"]
    assert [run.best for run in runs] == [(12.0, 2), (10.0, 1)]
    assert reports.numbers(runs[0]) == [
        "higher, step 2: loss 6, bits_per_byte 12",
        "higher, step 4: loss 3, bits_per_byte 6",
    ]
    write_run(tmp_path / "one", {}, [5.0])
    assert len(reports.numbers(find_runs(tmp_path / "one")[0])) == 1


def test_steps_that_were_not_finite_are_told_and_are_no_damage(tmp_path):
    write_run(tmp_path / "run", {}, [5.0, 4.0])
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        for step in (3, 7):
            record = {"step": step, "split": "nonfinite", "what": "loss is nan", "seconds": 200.0}
            file.write(json.dumps(record) + "\n")
    (run,) = find_runs(tmp_path)
    assert not run.damage and run.marks == [
        Mark("done", False, ""),
        Mark("not finite", False, "2 steps were not finite, the last 7"),
    ]
    assert reports.numbers(run)[-1] == "run: 2 steps were not finite, the last 7"


def test_one_folder_can_be_the_root(root):
    (run,) = find_runs(root / "worse")
    assert run.name == "worse"


@pytest.mark.parametrize(
    ("file", "content", "word"),
    [
        ("config.json", "{", "config.json cannot be read"),
        ("run.json", "[]", "run.json cannot be read (no JSON object)"),
        ("run.json", None, "run.json is missing"),
        ("config.json", b"\xff\xfe", "config.json cannot be read"),
        ("metrics.jsonl", "no json\n", "metrics.jsonl cannot be read"),
        ("metrics.jsonl", b"\xff\n", "metrics.jsonl cannot be read"),
        (
            "metrics.jsonl",
            '{"split": "train", "step": 1}\n' * 2,
            "2 lines of metrics.jsonl lack a number",
        ),
        (
            "metrics.jsonl",
            '{"step": 1, "split": "validation", "loss": 1.0, "seconds": 1.0}\n',
            "1 lines of metrics.jsonl lack a number",
        ),
    ],
)
def test_damage_is_named_and_the_rest_is_shown(tmp_path, file, content, word):
    write_run(tmp_path / "good", {}, [4.0])
    write_run(tmp_path / "bad", {}, [4.0])
    damaged = tmp_path / "bad" / file
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(content if isinstance(content, bytes) else content.encode())
    runs = {run.name: run for run in find_runs(tmp_path)}
    assert not runs["good"].damage and any(word in line for line in runs["bad"].damage)
    rows = {row[0]: row[3] for row in reports.table(list(runs.values()))}
    assert rows == {"good": "done", "bad": "damaged"}
    arms.sections(list(runs.values()))[0].curves("loss")


def test_how_a_run_ended_is_said_with_its_reason(tmp_path):
    ends = {
        "done": Mark("done", False, ""),
        "killed": Mark("running or killed", False, "last wrote numbers at 2001-09-09 01:46 UTC"),
        "Interrupted: SIGTERM at step 3": Mark("Interrupted", False, "SIGTERM at step 3"),
        "NonFiniteError: loss is nan": Mark("NonFiniteError", True, "loss is nan"),
        "crashed: KeyError: 'a'": Mark("crashed", True, "KeyError: 'a'"),
    }
    for number, ended in enumerate(ends):
        write_run(tmp_path / str(number), {}, [1.0], ended=ended)
        os.utime(tmp_path / str(number) / "metrics.jsonl", (1e9, 1e9))
    runs = {run.name: run for run in find_runs(tmp_path)}
    assert [runs[str(number)].marks for number in range(len(ends))] == [[m] for m in ends.values()]
    (tmp_path / "4" / "config.json").unlink()
    (run,) = find_runs(tmp_path / "4")
    assert run.marks == [
        Mark("damaged", True, "config.json is missing"),
        ends["crashed: KeyError: 'a'"],
    ]


def test_speed_is_the_median_of_training_lines(tmp_path):
    write_run(tmp_path / "run", {}, [], training_seconds=90.0)
    speeds = [10.0, 900.0, 30.0, 20.0]
    lines = [
        {"step": step, "split": split, "loss": 1.0, "seconds": 1.0, "targets_per_second": speed}
        for step, speed in enumerate([*speeds, math.nan, 1e300, "fast"])
        for split in ("train", "other")
        if split == "train" or step == 0
    ]
    with (tmp_path / "run" / "metrics.jsonl").open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "run" / "model.txt").write_text(
        "total of it\n\na/kernel  (2, 3)  6\ntotal  1,234\n"
    )
    (run,) = find_runs(tmp_path)
    assert run.speed == np.median(speeds)
    assert (run.training_minutes, run.parameters) == (1.5, 1234)
    (tmp_path / "run" / "model.txt").write_text("no table")
    write_run(tmp_path / "killed", {}, [], training_seconds=0, ended="killed")
    killed, run = find_runs(tmp_path)
    assert (run.parameters, killed.speed, killed.training_minutes) == (None, None, None)
