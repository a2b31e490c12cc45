"""Many run folders side by side: what each reached, as a table."""

from collections.abc import Sequence

from recattn_jax.analysis.arms import differing
from recattn_jax.analysis.summaries import RunSummary
from recattn_jax.untrusted import markdown, one_line

_LONGEST = 200  # characters of a value
COLUMNS = ("run", "experiment", "changed", "ended", "step", "validation", "train loss", "minutes")


def table(runs: Sequence[RunSummary]) -> list[tuple[str, ...]]:
    """One row a run, under `COLUMNS`.

    Args:
      runs: from `find_runs`.

    Returns:
      The cells, as text; the column "changed" has the config's values that differ among the runs
      of one experiment.

    >>> table([])
    []
    """
    return [
        _row(run, [other for other in runs if other.experiment == run.experiment]) for run in runs
    ]


def _row(run: RunSummary, peers: Sequence[RunSummary]) -> tuple[str, ...]:
    keys = differing([peer.config for peer in peers if peer.config])
    changed = [f"{key}={str(run.config[key]):.{_LONGEST}}" for key in keys if key in run.config]
    training = [record for record in run.records if record["split"] == "train"]
    last = max((record["step"] for record in run.records), default=0)
    return (
        run.name,
        run.experiment,
        " ".join(changed),
        run.marks[0].word,
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
    if run.unstable:
        lines.append(f"{run.name}: {run.unstable}")
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
