"""Where numbers go: `metrics.jsonl` (every step once, whatever happens), TensorBoard, console."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar
from tqdm import tqdm

from recattn_jax.errors import StorageError
from recattn_jax.files import write_atomically
from recattn_jax.tasks.base import reported
from recattn_jax.untrusted import METRICS_BYTES, Unreadable, is_there, read_bytes, shown

Record = dict[str, Any]
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}, {elapsed}{postfix}"


def mean_values(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What metrics of one batch, as host numbers, amount to; a weight of zero gives nan."""
    return {name: reported([metric]) for name, metric in metrics.items()}


def read_records(path: Path) -> list[Record]:
    """Reads `metrics.jsonl`; a torn last line, which only a killed process leaves, is dropped.

    Raises:
      StorageError: the file cannot be read, or a line is damaged.
    """
    records = []
    for number, line in enumerate(_whole_lines(path), start=1):
        record = _parse(line)
        if record is None:
            raise StorageError(
                f"{path} line {number} is damaged: {_start(line)}; delete that line, or train"
                " further, which leaves it out"
            )
        records.append(record)
    return records


def _whole_lines(path: Path) -> list[bytes]:
    """The lines that end; what follows the last newline is empty or torn."""
    try:
        return read_bytes(path, METRICS_BYTES).split(b"\n")[:-1] if is_there(path) else []
    except Unreadable as error:
        raise StorageError(f"cannot read {path}: {error}") from error


def _parse(line: bytes) -> Record | None:
    """A line of the file, or None if it is none that was ever written."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # no UTF-8, or no JSON
        return None
    if not isinstance(record, dict) or not isinstance(record.get("split"), str):
        return None
    return record if type(record.get("step")) is int else None


class MetricsLog:
    """Numbers by step and split, on disk. Only process 0 writes.

    Each line on disk also has `seconds`: wall time of the run so far, lost attempts not counted.

    Lines wait in memory until `flush`, which the loop calls before each evaluation and save, so
    the file never lacks a line that a checkpoint has passed. What it then holds is kept with the
    checkpoint as a `mark`, so that damage to the file is seen. Damage is said, and what cannot be
    read is left out; a run needs none of these numbers to go on.

    Args:
      path: the run's folder.
      step: step that the run goes on from; later lines, of an attempt that was lost, are cut off.
      mark: what `mark` gave at that step; None where nobody knows.
      say: where a line about damage goes.

    Raises:
      StorageError: the folder cannot be written.
    """

    def __init__(
        self, path: Path, step: int, mark: Mapping[str, Any] | None, say: Callable[[str], None]
    ):
        self._pending: list[str] = []
        self._file: Any = None
        if jax.process_index() != 0:
            return
        file = path / "metrics.jsonl"
        kept, damage = _keep(file, step, mark)
        if damage:
            _copy_aside(file)
            say(f"{file}: {damage}; going on with what is left, the file as it was is in damaged/")
        seconds = kept[-1].get("seconds", 0.0) if kept else 0.0
        self._start = time.monotonic() - (seconds if isinstance(seconds, int | float) else 0.0)
        write_atomically(file, _text(kept))
        self._lines, self._sum = len(kept), hashlib.sha256(_text(kept).encode())
        try:
            # Without a buffer, which would be written once more when it is closed.
            self._file = file.open("ab", buffering=0)
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error}") from error
        self._board = Board(path / "tensorboard", step, say)

    def mark(self) -> dict[str, Any]:
        """What is on disk: the number of lines, and their checksum; nothing but on process 0."""
        if self._file is None:
            return {}
        return {"lines": self._lines, "checksum": self._sum.hexdigest()}

    def write(self, record: Record) -> None:
        """Takes a line: `{"step": 10, "split": "train", "loss": 2.3, ...}`."""
        if self._file is None:
            return
        seconds = round(time.monotonic() - self._start, 3)
        self._pending.append(json.dumps({**record, "seconds": seconds}) + "\n")
        self._board.write(record)

    def flush(self) -> None:
        """Brings all lines to disk; those that cannot be written are lost, and none is halved.

        Raises:
          StorageError: they cannot be written.
        """
        if not self._pending:
            return
        content = "".join(self._pending).encode()
        count = len(self._pending)
        self._pending.clear()
        size: int | None = None
        try:
            size = os.fstat(self._file.fileno()).st_size
            left = content
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                if size is not None:
                    self._file.truncate(size)
            raise StorageError(f"cannot write {self._file.name}: {error.strerror}") from error
        self._lines += count
        self._sum.update(content)
        self._board.flush()

    def close(self) -> None:
        """Flushes and closes."""
        if self._file is None:
            return
        try:
            self.flush()
        finally:
            self._file.close()
            self._board.close()


def _keep(file: Path, step: int, mark: Mapping[str, Any] | None) -> tuple[list[Record], str]:
    """The records up to a step, and what is wrong with them, if anything."""
    kept, damage = [], ""
    for number, line in enumerate(_whole_lines(file), start=1):
        record = _parse(line)
        if record is None:
            damage = damage or f"line {number} is damaged: {_start(line)}"
        elif record["step"] <= step:
            kept.append(record)
    if not mark:
        return kept, damage
    if _checksum(_text(kept)) == mark["checksum"]:
        return kept, ""  # what is damaged is of an attempt that was lost
    gone = mark["lines"] - len(kept)
    return kept, damage or (
        f"{gone} of {mark['lines']} lines up to step {step} are gone"
        if gone > 0
        else f"a line up to step {step} is not what was written"
    )


def _start(line: bytes) -> str:
    return repr(line[:80].decode(errors="replace"))


def _text(records: list[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _copy_aside(file: Path) -> None:
    """Keeps a damaged file for whoever wants to mend it by hand."""
    if not file.exists():
        return
    aside = file.parent / "damaged" / file.name
    try:
        aside.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, aside)
    except OSError as error:
        raise StorageError(f"cannot write {aside}: {error}") from error


class Board:
    """The same numbers for TensorBoard. Where they cannot be written, that is said, and it ends.

    tensorboardX's own writer has a queue and threads, whose failure nobody hears of: a full disk
    would end in a traceback, and then in a queue that is full for ever. So its files are written
    here, at once.

    Args:
      path: folder of the event files.
      step: step that the run goes on from; TensorBoard forgets what it knows of later ones.
      say: where the line goes.
    """

    def __init__(self, path: Path, step: int, say: Callable[[str], None]):
        self._path = path
        self._say = say
        self._writer: Any = None
        with self._guard():
            path.mkdir(exist_ok=True)
            # TensorBoard takes files by the order of their names, and none may be written twice.
            name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
            self._writer = RecordWriter(str(path / f"{name}.{uuid.uuid4().hex[:8]}"))
            self._event(file_version="brain.Event:2")
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._event(step=step + 1, session_log=start)

    def write(self, record: Record) -> None:
        """Takes all numbers of a line."""
        with self._guard():
            for name, value in record.items():
                number = name not in ("step", "split") and isinstance(value, int | float)
                if self._writer is not None and number:
                    summary = scalar(f"{record['split']}/{name}", value)
                    self._event(step=record["step"], summary=summary)

    def flush(self) -> None:
        """Brings them to disk."""
        with self._guard():
            if self._writer is not None:
                self._writer.flush()

    def close(self) -> None:
        """Brings them to disk and ends."""
        writer, self._writer = self._writer, None
        with self._guard():
            if writer is not None:
                writer.close()

    def _event(self, **fields: Any) -> None:
        event = event_pb2.Event(wall_time=time.time(), **fields)
        self._writer.write(event.SerializeToString())

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            writer, self._writer = self._writer, None
            with contextlib.suppress(OSError):  # what its buffer holds cannot be written either
                if writer is not None:
                    writer.close()
            self._say(
                f"no more TensorBoard events in {self._path}: {error.strerror}; all numbers are in"
                " metrics.jsonl"
            )


def _on_terminal() -> bool:
    """Whether a bar can be drawn, on stderr, and lines above it, on stdout.

    Through a pipe the lines would come at any time. A terminal of no size, which containers may
    have, shows no bar.
    """
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).lines > 1
    except OSError:
        return False


class Console:
    """A progress bar on a terminal, plain lines in a log; silent on all hosts but the first.

    Args:
      steps: length of the run.
      start: step that it goes on from.
      say: where plain lines go.
    """

    def __init__(self, steps: int, start: int, say: Any):
        self._say = say
        self._steps = steps
        self._bar = None
        if jax.process_index() == 0 and _on_terminal():
            self._bar = tqdm(total=steps, initial=start, dynamic_ncols=True, bar_format=_BAR)
            self._bar.set_postfix_str("compiling")

    def line(self, text: str) -> None:
        """Prints a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.clear()
        if jax.process_index() == 0:
            self._say(shown(text))  # names of classes may come from anybody
        if self._bar is not None:
            self._bar.refresh()

    def step(self, step: int) -> None:
        """Moves the bar, where there is one."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def train(self, record: Record, expected: str) -> None:
        """Shows a training line: in the bar, or as a line of its own.

        Args:
          record: the line.
          expected: what is to come, as `Clock.expected` says it.
        """
        if self._bar is None:
            self.line(", ".join(filter(None, (self._describe(record), expected))))
        else:
            speed = f"{record['targets_per_second']:,.0f} targets/s"
            parts = (f"loss {record['loss']:.4f}", speed, expected)
            self._bar.set_postfix_str(", ".join(filter(None, parts)))
            self.step(record["step"])

    def evaluation(self, record: Record) -> None:
        """Shows an evaluation as a line."""
        self.line(self._describe(record))

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _describe(self, record: Record) -> str:
        numbers = ", ".join(
            f"{name.replace('_', ' ')} {value:,.0f}"
            if name == "targets_per_second"
            else f"{name.replace('_', ' ')} {value:.4g}"
            for name, value in record.items()
            if name not in ("step", "split") and not name.endswith("_peak")
        )
        return f"step {record['step']}/{self._steps} {record['split']}: {numbers}"
