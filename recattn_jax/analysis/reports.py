"""Many run folders side by side: what each reached, and its curves."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recattn_jax.analysis.figures import Curve
from recattn_jax.errors import StorageError
from recattn_jax.training.metrics import Record, read_records
from recattn_jax.untrusted import Unreadable, is_there, markdown, one_line, read_object

# What is shown for a run.json that is lost.
_UNKNOWN: dict[str, Any] = {
    "config_file": "unknown",
    "ended": "unknown",
    "headline": "loss",
    "maximise": False,
}
_MOST_STEPS = 1 << 53  # beyond, a number of steps is damage, and no axis shows it
_LONGEST = 200  # characters of a value
_DRAWN = 1e30  # and so is a loss
COLUMNS = ("run", "experiment", "changed", "ended", "step", "validation", "train loss", "minutes")


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

    @property
    def best(self) -> tuple[float, int] | None:
        """The best validation headline and its step, if there was an evaluation."""
        found = [
            (record[self.headline], record["step"])
            for record in self.records
            if record["split"] == "validation" and math.isfinite(record[self.headline])
        ]
        # Of equal ones the first.
        return min(found, key=lambda pair: (self._rank(pair[0]), pair[1]), default=None)

    @property
    def rank(self) -> float:
        """What runs of one headline are sorted by, the best first."""
        return self._rank(self.best[0]) if self.best else math.inf

    def _rank(self, headline: float) -> float:
        return -headline if self.maximise else headline


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
            possible = 0 <= step < _MOST_STEPS and math.isfinite(seconds)
            return possible and (split != "validation" or isinstance(record.get(headline), float))
    return False


def table(runs: Sequence[RunSummary]) -> list[tuple[str, ...]]:
    """One row a run, under `COLUMNS`.

    Args:
      runs: from `find_runs`.

    Returns:
      The cells, as text; the column "changed" has the config's values that differ among the runs
      of one experiment.

    >>> table(find_runs(Path("runs")))
    []
    """
    return [
        _row(run, [other for other in runs if other.experiment == run.experiment]) for run in runs
    ]


def _row(run: RunSummary, peers: Sequence[RunSummary]) -> tuple[str, ...]:
    keys = sorted({key for peer in peers for key in peer.config})
    changed = [
        f"{key}={str(run.config[key]):.{_LONGEST}}"
        for key in keys
        if key in run.config
        and any(key in peer.config and peer.config[key] != run.config[key] for peer in peers)
    ]
    training = [record for record in run.records if record["split"] == "train"]
    last = max((record["step"] for record in run.records), default=0)
    return (
        run.name,
        run.experiment,
        " ".join(changed),
        "damaged" if run.damage else run.ended.partition(":")[0],
        str(last),
        f"{run.headline} {run.best[0]:.4f} at {run.best[1]}" if run.best else "none yet",
        f"{training[-1]['loss']:.4f}" if training else "none yet",
        f"{run.records[-1]['seconds'] / 60:.1f}" if run.records else "none yet",
    )


def numbers(run: RunSummary) -> list[str]:
    """All numbers of the best evaluation and, where it is another, of the last one.

    Where steps were not finite, a line says so.

    Args:
      run: from `find_runs`.

    Returns:
      A line each; where steps were not finite, one says so.

    >>> numbers(run)  # doctest: +SKIP
    ['a, step 2000: loss 1.052, bits_per_byte 1.518']
    """
    records = [record for record in run.records if record["split"] == "validation"]
    best = [record for record in records if run.best and record["step"] == run.best[1]]
    lines = []
    for record in [*best[:1], *(last for last in records[-1:] if last not in best[:1])]:
        values = ", ".join(
            f"{name} {value:.4g}"
            for name, value in record.items()
            if name not in ("step", "split", "seconds") and isinstance(value, float)
        )
        lines.append(f"{run.name}, step {record['step']}: {values}")
    if run.nonfinite:
        last = run.nonfinite[-1]
        lines.append(f"{run.name}: {len(run.nonfinite)} steps were not finite, the last {last}")
    return lines


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """The table for a terminal.

    Args:
      rows: the cells.

    Returns:
      Its lines.

    >>> as_text([]).split()[:2]
    ['run', 'experiment']
    """
    lines = _aligned([list(map(one_line, row)) for row in rows], "-")
    return "\n".join("  ".join(cells).rstrip() for cells in lines)


def as_markdown(
    rows: Sequence[Sequence[str]], columns: Sequence[str] = COLUMNS, markup: bool = False
) -> str:
    """The table for a page.

    Args:
      rows: the cells. What runs say of themselves is text, and no markup.
      columns: their names.
      markup: whether the cells are Markdown, as our own may be.

    Returns:
      Its lines.

    >>> print(as_markdown([["lstm", "0.5"]], ["mixer", "loss"]))
    | mixer | loss |
    | ----- | ---- |
    | lstm  | 0.5  |
    """

    def cell(text: str) -> str:
        return text.replace("|", "\\|") if markup else markdown(text)

    lines = _aligned([list(map(cell, row)) for row in rows], "-", list(map(cell, columns)))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _aligned(
    rows: Sequence[Sequence[str]], rule: str, columns: Sequence[str] = COLUMNS
) -> list[list[str]]:
    lines = [list(columns), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    lines.insert(1, [rule * width for width in widths])
    return [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]


def curves(run: RunSummary) -> list[Curve]:
    """The losses of a run by split, for `figures.loss_curves`.

    Args:
      run: from `find_runs`.

    Returns:
      A curve for each split.

    >>> [curve.split for curve in curves(run)]  # doctest: +SKIP
    ['train', 'validation']
    """
    splits = dict.fromkeys(record["split"] for record in run.records)
    found = []
    for split in splits:
        records = [record for record in run.records if record["split"] == split]
        found.append(
            Curve(
                run=run.name,
                split=split,
                steps=[record["step"] for record in records],
                seconds=[record["seconds"] for record in records],
                values=[
                    record["loss"] if abs(record["loss"]) < _DRAWN else math.nan
                    for record in records
                ],
            )
        )
    return found
