"""Where numbers go: `metrics.jsonl` (every step once, whatever happens), TensorBoard, console."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import tensorboardX
from tqdm import tqdm

from recattn_jax.errors import StorageError
from recattn_jax.files import write_atomically
from recattn_jax.tasks.base import reported

Record = dict[str, Any]


def mean_values(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What metrics of one batch, as host numbers, amount to; a weight of zero gives nan."""
    return {name: reported([metric]) for name, metric in metrics.items()}


def read_records(path: Path) -> list[Record]:
    """Reads `metrics.jsonl`; a torn last line, which only a killed process leaves, is dropped.

    Raises:
      StorageError: another line is no JSON.
    """
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    whole = lines[:-1]  # what follows the last newline is empty or torn
    records = []
    for number, line in enumerate(whole, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise StorageError(f"{path} line {number} is no JSON: {line[:80]!r}") from error
    return records


class MetricsLog:
    """Numbers by step and split, on disk. Only process 0 writes.

    Each line on disk also has `seconds`: wall time of the run so far, lost attempts not counted.

    Lines wait in memory until `flush`, which the loop calls before each evaluation and save, so
    the file never lacks a line that a checkpoint has passed.

    Args:
      path: the run's folder.
      step: step that the run goes on from; later lines, of an attempt that was lost, are cut off.

    Raises:
      StorageError: the folder cannot be written, or the file is no metrics file.
    """

    def __init__(self, path: Path, step: int):
        self._pending: list[str] = []
        self._file: Any = None
        self._board: Any = None
        if jax.process_index() != 0:
            return
        file = path / "metrics.jsonl"
        kept = [record for record in read_records(file) if record["step"] <= step]
        self._start = time.monotonic() - (kept[-1]["seconds"] if kept else 0.0)
        write_atomically(file, "".join(json.dumps(record) + "\n" for record in kept))
        try:
            self._file = file.open("a")
            self._board = tensorboardX.SummaryWriter(
                str(path / "tensorboard"), purge_step=step + 1 if step else None
            )
        except OSError as error:
            raise StorageError(f"cannot write to {path}: {error}") from error

    def write(self, record: Record) -> None:
        """Takes a line: `{"step": 10, "split": "train", "loss": 2.3, ...}`."""
        if self._file is None:
            return
        seconds = round(time.monotonic() - self._start, 3)
        self._pending.append(json.dumps({**record, "seconds": seconds}) + "\n")
        for name, value in record.items():
            if name not in ("step", "split") and isinstance(value, int | float):
                self._board.add_scalar(f"{record['split']}/{name}", value, record["step"])

    def flush(self) -> None:
        """Brings all lines to disk.

        Raises:
          StorageError: they cannot be written.
        """
        if not self._pending:
            return
        try:
            self._file.write("".join(self._pending))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._board.flush()
        except OSError as error:
            raise StorageError(f"cannot write {self._file.name}: {error}") from error
        self._pending.clear()

    def close(self) -> None:
        """Flushes and closes."""
        if self._file is None:
            return
        self.flush()
        self._file.close()
        self._board.close()


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
        if jax.process_index() == 0 and sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True)

    def line(self, text: str) -> None:
        """Prints a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.clear()
        if jax.process_index() == 0:
            self._say(text)
        if self._bar is not None:
            self._bar.refresh()

    def train(self, record: Record) -> None:
        """Shows a training line: in the bar, or as a line of its own."""
        if self._bar is None:
            self.line(self._describe(record))
        else:
            speed = f"{record['targets_per_second']:,.0f} targets/s"
            self._bar.set_postfix_str(f"loss {record['loss']:.4f}, {speed}", refresh=False)
            self._bar.update(record["step"] - self._bar.n)

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
            if name not in ("step", "split")
        )
        return f"step {record['step']}/{self._steps} {record['split']}: {numbers}"
