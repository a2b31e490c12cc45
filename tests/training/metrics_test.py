"""`metrics.jsonl` has every step once; the console fits a terminal and a log."""

import contextlib
import errno
import fcntl
import functools
import json
import os
import pty
import re
import struct
import termios
import threading

import numpy as np
import pytest

from recattn_jax.errors import StorageError
from recattn_jax.training.metrics import Console, MetricsLog, read_records


def line(step, split="train", loss=1.0):
    return {"step": step, "split": split, "loss": loss}


def steps(path):
    return [record["step"] for record in read_records(path / "metrics.jsonl")]


def log_of(path, first, last, start):
    log = MetricsLog(path, start, None, print)
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


RUBBISH = [b"rubbish", b'"a string"', b'{"step": 2}', b'{"step": "2", "split": ""}', b"\xff{}"]


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_a_damaged_line_is_named_and_costs_no_other(tmp_path, rubbish):
    file = tmp_path / "metrics.jsonl"
    log_of(tmp_path, 1, 3, start=0)
    first, _, third = file.read_bytes().splitlines()
    damaged = b"\n".join((first, rubbish, third, b""))
    file.write_bytes(damaged)
    start = re.escape(repr(rubbish.decode(errors="replace")))
    with pytest.raises(StorageError, match=f"metrics.jsonl line 2 is damaged: {start}; delete"):
        read_records(file)
    said = []
    MetricsLog(tmp_path, 3, None, said.append).close()
    assert steps(tmp_path) == [1, 3]
    assert len(said) == 1 and "metrics.jsonl: line 2 is damaged" in said[0], said
    assert (tmp_path / "damaged" / "metrics.jsonl").read_bytes() == damaged


def marked(path, last):
    """A log of so many steps; what is told of it later on."""
    log = MetricsLog(path, 0, None, print)
    for step in range(1, last + 1):
        log.write(line(step))
    log.flush()
    mark = log.mark()
    log.write(line(last + 1))
    log.close()
    return mark


def test_what_was_marked_is_what_must_be_there(tmp_path):
    mark = marked(tmp_path, 9)
    file, said = tmp_path / "metrics.jsonl", []
    good = file.read_text()

    def told(text):
        said.clear()
        file.write_text(text) if text is not None else file.unlink()
        log = MetricsLog(tmp_path, 9, mark, said.append)
        again = log.mark()
        log.close()
        return " ".join(said), again

    assert told(good) == ("", mark)
    assert told(good + "rubbish after what counts\n") == ("", mark)
    assert "line up to step 9 is not what was written" in told(good.replace("1.0", "7.0", 1))[0]
    assert "line 1 is damaged" in told(good.replace('"step"', '"stop"', 1))[0]
    assert "2 of 9 lines up to step 9 are gone" in told("".join(good.splitlines(True)[2:]))[0]
    assert "4 of 9 lines up to step 9 are gone" in told(good[: len(good) // 2])[0]
    for nothing in ("", None):
        assert "9 of 9 lines up to step 9 are gone" in told(nothing)[0]
    # Once said, it is not said again.
    short, remarked = told("".join(good.splitlines(True)[2:]))
    assert short and remarked != mark
    again = []
    MetricsLog(tmp_path, 9, remarked, again.append).close()
    assert again == []


class Full:
    """A file on a disk that is full after so many bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room
        self.name = file.name

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        size = self.file.write(data[: self.room])
        self.room -= size
        return size

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_leaves_no_half_of_a_line_and_is_said_once(tmp_path):
    log = MetricsLog(tmp_path, 0, None, print)
    log.write(line(1))
    log.flush()
    before = log.mark()
    log._file = Full(log._file, 10)
    log.write(line(2))
    with pytest.raises(StorageError, match=r"cannot write .*metrics.jsonl: No space left"):
        log.flush()
    log.close()
    assert steps(tmp_path) == [1] and log.mark() == before
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"step") == 1


def test_tensorboard_ends_with_one_line_and_nothing_else_does(tmp_path, monkeypatch):
    said = []
    log = MetricsLog(tmp_path, 0, None, said.append)
    log._board._writer._writer = Full(log._board._writer._writer, 0)
    for step in range(1, 100):
        log.write(line(step))
    log.close()
    assert steps(tmp_path) == list(range(1, 100))
    assert len(said) == 1 and "no more TensorBoard events" in said[0] and "No space" in said[0]

    (tmp_path / "tensorboard").rename(tmp_path / "moved")
    (tmp_path / "tensorboard").touch()
    MetricsLog(tmp_path, 0, None, said.append).close()
    assert len(said) == 2 and "File exists" in said[1], said


def test_attempts_within_one_second_have_a_file_each(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1e9)
    log_of(tmp_path, 1, 3, start=0)
    log_of(tmp_path, 4, 6, start=3)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_lines_wait_for_a_flush(tmp_path):
    log = MetricsLog(tmp_path, 0, None, print)
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
    console.step(2)
    console.train({**line(3, loss=np.pi), "targets_per_second": 12345.6}, "")
    console.train({**line(3, loss=np.pi), "targets_per_second": 12345.6}, "about 7 s left")
    console.evaluation(line(4, split="validation"))
    console.close()
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "step 3/10 train: loss 3.142, targets per second 12,346",
        "step 3/10 train: loss 3.142, targets per second 12,346, about 7 s left",
        "step 4/10 validation: loss 1",
    ]
    assert err == ""


def test_a_terminal_has_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("recattn_jax.training.metrics._on_terminal", lambda: True)
    console = Console(10, 2, print)
    console.train({**line(5, loss=np.pi), "targets_per_second": 12345.6}, "about 7 s left")
    console.line("hello")
    console.step(8)
    console.close()
    out, err = capsys.readouterr()
    assert out == "hello\n"
    assert "2/10" in err and "compiling" in err
    assert "5/10" in err and "loss 3.1416, 12,346 targets/s, about 7 s left" in err
    assert "8/10" in err.splitlines()[-1]


def screen(text):
    """What a terminal shows of a text with carriage returns."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for piece in line.split("\r"):
            shown = piece + shown[len(piece) :]
        lines.append(shown.rstrip())
    return lines


def read_all(reader, pieces):
    """Reads what is drawn until the terminal is closed, which Linux tells by an error."""
    with contextlib.suppress(OSError):
        while piece := os.read(reader, 1 << 16):
            pieces.append(piece)


def on_a_terminal(rows, columns=100):
    """What a console draws on a terminal of this size, as it is read in the end."""
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    pieces = []
    reading = threading.Thread(target=read_all, args=(reader, pieces))
    reading.start()
    with open(terminal, "w") as file, pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stdout", file)
        patched.setattr("sys.stderr", file)
        console = Console(3, 0, functools.partial(print, flush=True))
        for step in (1, 2, 3):
            console.step(step)
            console.train({**line(step), "targets_per_second": 9.0}, "about 7 s left")
            console.evaluation(line(step, split="validation"))
        console.close()
        print("the end", flush=True)
    reading.join()
    os.close(reader)
    text = b"".join(pieces).decode().replace("\r\n", "\n")
    return [shown for shown in screen(text) if shown]


def test_a_bar_and_lines_do_not_garble_each_other():
    lines = on_a_terminal(rows=40)
    assert lines[:3] == [f"step {step}/3 validation: loss 1" for step in (1, 2, 3)]
    assert re.fullmatch(
        r"100%\|.+\| 3/3, 00:00, loss 1.0000, 9 targets/s, about 7 s left", lines[3]
    )
    assert lines[4:] == ["the end"]


def test_a_terminal_of_no_size_has_lines():
    lines = on_a_terminal(rows=0)
    assert (
        len(lines) == 7 and lines[6] == "the end" and lines[0].startswith("step 1/3 train: loss 1")
    )
