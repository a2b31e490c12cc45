"""`metrics.jsonl` has every step once; the console fits a terminal and a log."""

import json

import numpy as np
import pytest

from recattn_jax.errors import StorageError
from recattn_jax.training.metrics import Console, MetricsLog, read_records


def line(step, split="train", loss=1.0):
    return {"step": step, "split": split, "loss": loss}


def steps(path):
    return [record["step"] for record in read_records(path / "metrics.jsonl")]


def log_of(path, first, last, start):
    log = MetricsLog(path, start)
    for step in range(first, last + 1):
        log.write(line(step))
    log.close()


def test_lines_after_the_restored_step_are_cut(tmp_path):
    log_of(tmp_path, 1, 9, start=0)
    log_of(tmp_path, 7, 8, start=6)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6, 7, 8]
    log_of(tmp_path, 1, 2, start=0)
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("torn", ['{"step": 10, "sp', '{"step": 10, "split": "train"}'])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    """Even one that happens to be whole but for its newline: nobody knows what else it lacks."""
    log_of(tmp_path, 1, 9, start=0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert steps(tmp_path) == list(range(1, 10))
    log_of(tmp_path, 10, 11, start=9)
    assert steps(tmp_path) == list(range(1, 12))


def test_a_line_that_is_no_json_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nrubbish\n{"step": 3}\n')
    with pytest.raises(StorageError, match="metrics.jsonl line 2 is no JSON: 'rubbish'"):
        read_records(tmp_path / "metrics.jsonl")


def test_lines_wait_for_a_flush(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write(line(1))
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    log.flush()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 1.0
    log.close()


def test_numbers_reach_tensorboard(tmp_path):
    log_of(tmp_path, 1, 3, start=0)
    [events] = (tmp_path / "tensorboard").iterdir()
    assert events.read_bytes().count(b"train/loss") == 3


def test_a_log_is_plain_lines(capsys):
    console = Console(10, 0, print)
    console.train({**line(3, loss=np.pi), "targets_per_second": 12345.6})
    console.evaluation(line(4, split="validation"))
    console.close()
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "step 3/10 train: loss 3.142, targets per second 12,346",
        "step 4/10 validation: loss 1",
    ]
    assert err == ""


def test_a_terminal_has_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    console = Console(10, 2, print)
    console.train({**line(5, loss=np.pi), "targets_per_second": 12345.6})
    console.line("hello")
    console.close()
    out, err = capsys.readouterr()
    assert out == "hello\n"
    assert "5/10" in err and "loss 3.1416, 12,346 targets/s" in err
