"""Run folders as anybody left them: what each tells, and what of it cannot be read."""

import dataclasses
import datetime
import functools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recattn_jax.errors import StorageError
from recattn_jax.training.metrics import Record, read_records
from recattn_jax.untrusted import JSON_BYTES, Unreadable, is_there, read_bytes, read_object

# What is shown for a run.json that is lost.
_UNKNOWN: dict[str, Any] = {
    "config_file": "unknown",
    "ended": "unknown",
    "headline": "loss",
    "maximise": False,
}
_MOST_STEPS = 1 << 53  # beyond, a number of steps is damage, and no axis shows it
LARGEST = 1e30
"""Numbers beyond are of runs that fell apart: no axis shows them, and no mean takes them."""
_TOTAL = re.compile(r"^total +([0-9,]{1,20})$", re.MULTILINE)  # of model.txt


@dataclasses.dataclass(frozen=True)
class Mark:
    """Something to know of a run before its numbers are believed.

    Args:
      word: what it is.
      bad: whether the numbers may be wrong, or the run failed; else it may go on.
      reason: more of it, text of anybody; may be empty.

    >>> Mark("interrupted", bad=False, reason="").word
    'interrupted'
    """

    word: str
    bad: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """What a run folder tells, whether its run ended, goes on, or left damage behind.

    Args:
      name: the folder, relative to where runs were looked for.
      path: the folder.
      experiment: the stem of the experiment file; "unknown" if the folder does not say.
      config: the numbers of the run.
      record: what `run.json` holds.
      ended: how it ended; "running or killed" if it did not.
      headline: the metric by which runs are compared.
      maximise: whether more of it is better.
      records: the lines of `metrics.jsonl` that could be read.
      nonfinite: the steps whose loss or gradient was not finite.
      damage: what could not be read; empty if all could.
      parameters: how many numbers the model learns; None if the folder does not say.
      written: when `metrics.jsonl` was last written; None if there is none.

    >>> run = find_runs(Path("runs/a"))[0]  # doctest: +SKIP
    >>> run.best  # doctest: +SKIP
    (1.52, 2000)
    """

    name: str
    path: Path
    experiment: str
    config: Mapping[str, Any]
    record: Mapping[str, Any]
    ended: str
    headline: str
    maximise: bool
    records: Sequence[Record]
    nonfinite: Sequence[int]
    damage: Sequence[str]
    parameters: int | None
    written: datetime.datetime | None

    @functools.cached_property
    def best(self) -> tuple[float, int] | None:
        """The best validation headline and its step, if there was an evaluation."""
        found = [
            (record[self.headline], record["step"])
            for record in self.records
            if record["split"] == "validation" and abs(record[self.headline]) < LARGEST
        ]
        # Of equal ones the first.
        return min(found, key=lambda pair: (self._rank(pair[0]), pair[1]), default=None)

    @property
    def rank(self) -> float:
        """What runs of one headline are sorted by, the best first."""
        return self._rank(self.best[0]) if self.best else math.inf

    def _rank(self, headline: float) -> float:
        return -headline if self.maximise else headline

    @property
    def speed(self) -> float | None:
        """Targets a second: the median of its training lines, if there are any."""
        found = [
            record.get("targets_per_second")
            for record in self.records
            if record["split"] == "train"
        ]
        numbers = [number for number in map(finite, found) if number is not None]
        return statistics.median(numbers) if numbers else None

    @property
    def training_minutes(self) -> float | None:
        """From the first step to the last, evaluations included, compilation not; once it ended."""
        ended = self.ended not in ("running or killed", "unknown")
        seconds = finite(self.record.get("training_seconds")) if ended else None
        return None if seconds is None else seconds / 60

    @property
    def from_weights(self) -> bool:
        """Whether it started from the weights of another run."""
        words = self.record.get("argv")
        return isinstance(words, list) and any(
            str(word).lstrip("-").startswith("init_from") for word in words
        )

    @property
    def traceback(self) -> str:
        """Of a crash, the last one; empty if there is none."""
        match self.record:
            case {"attempts": [*_, {"traceback": str(text)}]}:
                return text
        return ""

    @property
    def unstable(self) -> str:
        """That steps were not finite; empty if all were."""
        if len(self.nonfinite) > 1:
            return f"{len(self.nonfinite)} steps were not finite, the last {self.nonfinite[-1]}"
        return f"step {self.nonfinite[0]} was not finite" if self.nonfinite else ""

    @property
    def marks(self) -> list[Mark]:
        """How it ended, and whatever else is not as it should be; the last word first."""
        word, _, reason = self.ended.partition(":")
        bad = word not in ("done", "running or killed", "Interrupted")
        if word == "running or killed" and self.written:
            reason = f"last wrote numbers at {self.written:%Y-%m-%d %H:%M} UTC"
        marks = [Mark(word, bad, reason.strip())]
        if self.damage:
            marks.insert(0, Mark("damaged", True, "; ".join(self.damage)))
        if self.unstable:
            marks.append(Mark("not finite", word != "done", self.unstable))
        return marks


def finite(value: Any) -> float | None:
    """A number that can be shown and compared, or None.

    Args:
      value: what a file held.

    Returns:
      It, if it is a number of a size that is no damage.

    >>> [finite(value) for value in (2, 0.5, math.nan, 1e300, True, "3")]
    [2.0, 0.5, None, None, None, None]
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < LARGEST else None


def find_runs(root: Path) -> list[RunSummary]:
    """Reads every run folder under `root`, or `root` itself if it is one.

    Args:
      root: a folder.

    Returns:
      The runs, by experiment, the best first; damaged ones are there, and say so.

    >>> for run in find_runs(Path("runs")):
    ...     print(run.name, run.best)
    """
    marks = ("config.json", "run.json", "metrics.jsonl")
    folders = {path.parent for mark in marks for path in root.rglob(mark)}
    runs = [_read_run(folder, root) for folder in sorted(folders)]
    return sorted(runs, key=lambda run: (run.experiment, run.headline, run.rank))


def _read_run(folder: Path, root: Path) -> RunSummary:
    damage: list[str] = []
    config = _read_object(folder / "config.json", damage)
    record = _UNKNOWN | _read_object(folder / "run.json", damage)
    headline = str(record["headline"])
    records, nonfinite = _read_metrics(folder / "metrics.jsonl", headline, damage)
    return RunSummary(
        name=str(folder.relative_to(root)) if folder != root else folder.absolute().name,
        path=folder,
        experiment=Path(str(record["config_file"])).stem,
        config=config,
        record=record,
        ended="running or killed" if record["ended"] == "killed" else str(record["ended"]),
        headline=headline,
        maximise=record["maximise"] is True,
        records=records,
        nonfinite=nonfinite,
        damage=damage,
        parameters=_read_parameters(folder / "model.txt"),
        written=_written(folder / "metrics.jsonl"),
    )


def _read_object(path: Path, damage: list[str]) -> dict[str, Any]:
    if not is_there(path):
        damage.append(f"{path.name} is missing")
        return {}
    try:
        return read_object(path)
    except Unreadable as error:
        damage.append(f"{path.name} cannot be read ({error})")
        return {}


def _read_metrics(path: Path, headline: str, damage: list[str]) -> tuple[list[Record], list[int]]:
    """Its lines that have their numbers, and the steps that were not finite."""
    if is_there(path) and not path.is_file():
        damage.append(f"{path.name} is no file")
        return [], []
    try:
        records = read_records(path)
    except (StorageError, OSError, ValueError, RecursionError) as error:
        damage.append(f"{path.name} cannot be read ({error})")
        return [], []
    whole = [record for record in records if _is_whole(record, headline)]
    lacking = sum(record["split"] != "nonfinite" for record in records) - len(whole)
    if lacking:
        damage.append(f"{lacking} lines of {path.name} lack a number")
    return whole, [record["step"] for record in records if record["split"] == "nonfinite"]


def _is_whole(record: Any, headline: str) -> bool:
    match record:
        case {"step": int(step), "seconds": float(seconds), "split": str(split), "loss": float()}:
            possible = 0 <= step < _MOST_STEPS and 0 <= seconds < LARGEST
            return possible and (split != "validation" or isinstance(record.get(headline), float))
    return False


def _read_parameters(path: Path) -> int | None:
    try:
        found = _TOTAL.findall(read_bytes(path, JSON_BYTES).decode(errors="replace"))
    except Unreadable:
        return None
    return int(found[-1].replace(",", "") or 0) if found else None


def _written(path: Path) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    except (OSError, ValueError, OverflowError):
        return None
