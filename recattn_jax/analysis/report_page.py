"""The report on many runs, for a browser and as Markdown; figures are beside it."""

import datetime
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recattn_jax.analysis.arms import Arm, Section
from recattn_jax.analysis.figures import POINTS, Curve, Panel, axis_floor, better
from recattn_jax.analysis.page import write_page
from recattn_jax.analysis.reports import as_markdown, numbers, table
from recattn_jax.analysis.results_page import rounded
from recattn_jax.analysis.summaries import RunSummary, finite
from recattn_jax.untrusted import markdown, one_line, shown

_LONGEST = 1000  # characters of what a run says of its end
_TRACEBACK = 6000  # the last characters of it
_MOST_BARS = 12  # in a figure; a page scrolls
BAND = (
    "Lines are means over runs that differ in nothing but their seed, bands reach from the least of"
    " them to the largest, and a line is dotted where not all of its runs have a number; nan and"
    " numbers beyond 1e30 are none. Minutes are of the mean run, compilation and evaluations"
    " included."
)
THINNED = f"Of more than {POINTS} points neighbours are drawn as their mean, at the last of them."
SPREAD = (
    "Values are means over runs, each at its best evaluation, ± their standard deviation (of a"
    " sample). A run's speed is the median of its training lines; training minutes are from the"
    " first step to the last, evaluations included and compilation not."
)


def write_report_page(path: Path, title: str, found: Sequence[Section]) -> None:
    """Writes the report as a page that sorts, filters and draws by itself.

    Args:
      path: the file, whose name ends in `.html`.
      title: of the page, any text.
      found: from `sections`.

    Raises:
      StorageError: it cannot be written.

    >>> write_report_page(Path("report.html"), "Runs", [])
    """
    now = datetime.datetime.now(datetime.UTC)
    data = {
        "title": one_line(title, _LONGEST),
        "written": f"{now:%Y-%m-%d %H:%M} UTC",
        "notes": {"band": BAND, "thinned": THINNED},
        "sections": [_section(section) for section in found],
    }
    write_page(path, one_line(title, _LONGEST), data, ["report.css", "report.js"])


def _section(section: Section) -> dict[str, Any]:
    metrics = list(dict.fromkeys([section.headline, "loss"]))
    curves = {metric: section.curves(metric) for metric in metrics}
    places = {arm.name: place for place, arm in enumerate(section.arms)}
    values = [value for arm in section.arms for value in arm.reached]
    return {
        "experiment": one_line(section.experiment, _LONGEST),
        "headline": one_line(section.headline, _LONGEST),
        "better": better(section.maximise),
        "floor": axis_floor(values) if values else 0.0,
        "arms": [
            {"name": arm.name, "runs": [_run(run) for run in arm.runs]} for arm in section.arms
        ],
        "splits": [one_line(split, _LONGEST) for split in section.splits],
        "thinned": any(len(curve.steps_T) > POINTS for some in curves.values() for curve in some),
        # By metric, as the page names them: what it calls the headline may be anybody's word.
        "curves": {
            kind: [_curve(curve.thinned(POINTS), places) for curve in curves[metric]]
            for kind, metric in (("headline", section.headline), ("loss", "loss"))
        },
    }


def _run(run: RunSummary) -> dict[str, Any]:
    seed = run.config.get("seed")
    training = [record["loss"] for record in run.records if record["split"] == "train"]
    value, step = run.best or (None, None)
    return {
        "name": one_line(run.name),
        "seed": one_line(str(seed), 40) if finite(seed) is None and seed is not None else seed,
        "marks": [
            {
                "word": one_line(mark.word, 80),
                "kind": "bad" if mark.bad else "good" if mark.word == "done" else "open",
                "reason": one_line(mark.reason, _LONGEST),
            }
            for mark in run.marks
        ],
        "step": max((record["step"] for record in run.records), default=None),
        "best": value,
        "at": step,
        "loss": finite(training[-1]) if training else None,
        "speed": run.speed,
        "minutes": run.records[-1]["seconds"] / 60 if run.records else None,
        "training": run.training_minutes,
        "parameters": run.parameters,
        "numbers": [one_line(line, _LONGEST) for line in numbers(run)],
        "traceback": shown(run.traceback[-_TRACEBACK:]),
    }


def _curve(curve: Curve, places: Mapping[str, int]) -> dict[str, Any]:
    runs, alone = len(curve.values_NT), len(curve.values_NT) == 1
    return {
        "arm": places[curve.name],
        "split": one_line(curve.split, _LONGEST),
        "steps": curve.steps_T.tolist(),
        "minutes": _numbers(curve.minutes_T),
        "mean": _numbers(curve.mean_T),
        "low": None if alone else _numbers(curve.low_T),
        "high": None if alone else _numbers(curve.high_T),
        "runs": runs,
        "there": None if (curve.runs_T == runs).all() else curve.runs_T.tolist(),
    }


def _numbers(values_T: np.ndarray) -> list[float | None]:
    """With as many digits as a page shows."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values_T.tolist()]


def panel(section: Section) -> Panel | None:
    """What a figure compares: its arms, or as many of the best as it has room for.

    Args:
      section: of one experiment.

    Returns:
      The panel; None where no two arms have a result.

    >>> panel(Section("adding", "loss", False, []))
    """
    arms = [arm for arm in section.arms if arm.reached]
    if len(arms) < 2:
        return None
    few = f", best {_MOST_BARS} of {len(arms)} arms" if len(arms) > _MOST_BARS else ""
    return Panel(
        title=one_line(section.experiment, 40) + few,
        quantity=one_line(f"validation {section.headline}", 40),
        maximise=section.maximise,
        bars={arm.name: arm.reached for arm in arms[:_MOST_BARS]},
    )


def as_page(found: Sequence[Section], figures: Sequence[Sequence[str]]) -> str:
    """The report as Markdown.

    Args:
      found: from `sections`.
      figures: for each of them, the names of its figures.

    Returns:
      The page.

    >>> as_page([], []).splitlines()[0]
    '# Runs'
    """
    runs = [run for section in found for arm in section.arms for run in arm.runs]
    lines = ["# Runs", "", as_markdown(table(runs)), ""]
    told = [_state(run) for run in runs if [mark.word for mark in run.marks] != ["done"]]
    if told:
        items = [f"- {markdown(line)}" for line in told]
        lines += ["Unfinished, failed or damaged:", "", *items, ""]
    for section, names in zip(found, figures, strict=True):
        title = f"{section.experiment}: {section.headline}, {better(section.maximise)}"
        lines += [f"## {markdown(title)}", "", _arms(section), ""]
        lines += [f"![{Path(name).stem}]({name})" for name in names] + [""] * bool(names)
    lines += [SPREAD, "", f"In curves: {BAND[0].lower()}{BAND[1:]} {THINNED}", ""]
    best = [line for run in runs for line in numbers(run)]
    if best:
        lines += ["Best and last evaluations:", "", *(f"- {markdown(line)}" for line in best), ""]
    return "\n".join(lines)


def _state(run: RunSummary) -> str:
    marks = [f"{mark.word}: {mark.reason}" if mark.reason else mark.word for mark in run.marks]
    return f"{run.name}: {one_line('; '.join(marks), _LONGEST)}"


def _arms(section: Section) -> str:
    columns = ["arm", "seeds", "ended", f"best {section.headline}", "targets a second"]
    return as_markdown(
        [_row(arm) for arm in section.arms], [*columns, "training minutes", "parameters"]
    )


def _row(arm: Arm) -> list[str]:
    words = [run.marks[0].word for run in arm.runs]
    sizes = dict.fromkeys(run.parameters for run in arm.runs if run.parameters is not None)
    return [
        arm.name,
        ", ".join(str(run.config.get("seed", "-")) for run in arm.runs),
        ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)),
        spread([run.best[0] if run.best else None for run in arm.runs]),
        spread([run.speed for run in arm.runs]),
        spread([run.training_minutes for run in arm.runs]),
        ", ".join(f"{size:,}" for size in sizes) or "-",
    ]


def spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation of the runs that have a number, and how many those are.

    Args:
      values: of each run, or None.

    Returns:
      A cell of a table.

    >>> spread([0.5, 0.7, None]), spread([0.5]), spread([None])
    ('0.6000 ± 0.1414 (2 of 3 runs)', '0.5000', '-')
    """
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    text = rounded(statistics.fmean(there))
    if len(there) > 1:
        text += f" ± {rounded(statistics.stdev(there))}"
    if len(values) > 1:
        of = f"{len(there)} of " if len(there) < len(values) else ""
        text += f" ({of}{len(values)} runs)"
    return text
