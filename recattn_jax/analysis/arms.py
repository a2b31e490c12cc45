"""Arms: runs that differ in nothing but their seed, and what they reached together."""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from recattn_jax.analysis.figures import Curve
from recattn_jax.analysis.results import CACHE, as_flag
from recattn_jax.analysis.summaries import RunSummary, finite
from recattn_jax.untrusted import one_line

_LONGEST = 200  # characters of a value
T = TypeVar("T")


def grouped(some: Iterable[T], settings: Callable[[T], Any]) -> list[list[T]]:
    """Those together whose settings are the same.

    Args:
      some: in any order.
      settings: of one of them, what JSON can hold.

    Returns:
      The groups, in the order of their first.

    >>> grouped([1, 2, 3, 4], lambda number: number % 2)
    [[1, 3], [2, 4]]
    """
    groups: dict[str, list[T]] = {}
    for each in some:
        groups.setdefault(json.dumps(settings(each), sort_keys=True), []).append(each)
    return list(groups.values())


def differing(some: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all; some may lack one.

    Args:
      some: the configs.

    Returns:
      The keys, sorted.

    >>> differing([{"width": 4, "heads": 2}, {"width": 8, "heads": 2}, {"width": 4}])
    ['heads', 'width']
    """
    keys = sorted({key for one in some for key in one})
    return [key for key in keys if len(grouped((one.get(key) for one in some), lambda v: v)) > 1]


@dataclasses.dataclass(frozen=True)
class Arm:
    """Runs of one experiment that differ in nothing but their seed.

    Args:
      name: what tells it from the other arms of its experiment.
      runs: the best first.

    >>> Arm("width=4", []).reached
    []
    """

    name: str
    runs: Sequence[RunSummary]

    @property
    def reached(self) -> list[float]:
        """The best headline of each run that was evaluated."""
        return [run.best[0] for run in self.runs if run.best]

    def curve(self, split: str, metric: str) -> Curve | None:
        """A metric of those runs that have it on this split; None if none has."""
        found = []
        for run in self.runs:
            values = {
                record["step"]: (record["seconds"], number)
                for record in run.records
                if record["split"] == split and (number := finite(record.get(metric))) is not None
            }
            if values:
                found.append(values)
        if not found:
            return None
        steps = sorted({step for values in found for step in values})
        places = {step: place for place, step in enumerate(steps)}
        seconds_NT, values_NT = (np.full((len(found), len(steps)), np.nan) for _ in range(2))
        for row, values in enumerate(found):
            columns = [places[step] for step in values]
            seconds_NT[row, columns], values_NT[row, columns] = np.transpose([*values.values()])
        return Curve(self.name, split, np.array(steps), seconds_NT, values_NT)


@dataclasses.dataclass(frozen=True)
class Section:
    """All runs of one experiment that are compared by one headline.

    Args:
      experiment: its name.
      headline: the metric by which its runs are compared.
      maximise: whether more of it is better.
      arms: the best first, by the mean over their runs.

    >>> Section("adding", "loss", False, [Arm("width=4", [])]).curves("loss")
    []
    """

    experiment: str
    headline: str
    maximise: bool
    arms: Sequence[Arm]

    @property
    def splits(self) -> list[str]:
        """What its runs were measured on."""
        records = (record for arm in self.arms for run in arm.runs for record in run.records)
        return list(dict.fromkeys(record["split"] for record in records))

    def curves(self, metric: str) -> list[Curve]:
        """All that there are of this metric, arm by arm."""
        splits = self.splits
        found = (arm.curve(split, metric) for arm in self.arms for split in splits)
        return [curve for curve in found if curve is not None]


def sections(runs: Sequence[RunSummary]) -> list[Section]:
    """Sorts runs into arms, and arms into what compares.

    Args:
      runs: from `find_runs`.

    Returns:
      A section for each experiment and headline. No run is left out; one whose config is lost is an
      arm of its own.

    >>> sections([])
    []
    """
    found = []
    for some in grouped(runs, lambda run: [run.experiment, run.headline, run.maximise]):
        of = some[0]
        arms = _arms(some)
        arms.sort(key=lambda arm: _rank(arm, of.maximise))
        found.append(Section(of.experiment, of.headline, of.maximise, arms))
    return found


def _rank(arm: Arm, maximise: bool) -> float:
    if not arm.reached:
        return math.inf
    mean = statistics.fmean(arm.reached)
    return -mean if maximise else mean


def _arms(runs: Sequence[RunSummary]) -> list[Arm]:
    told = [run for run in runs if run.config]
    groups = grouped(told, settings)
    keys = differing([settings(group[0]) for group in groups])
    arms = [Arm(_name(group[0], keys), group) for group in groups]
    lost = [run for run in runs if not run.config]
    return _told_apart([*arms, *(Arm(one_line(f"{run.name}, config lost"), [run]) for run in lost)])


def settings(run: RunSummary) -> dict[str, Any]:
    """What the runs of an arm share: all of the config that numbers depend on, but the seed.

    Args:
      run: one of them.

    Returns:
      The values by key; where a run began with weights of another, that too.

    >>> settings(run)  # doctest: +SKIP
    {'width': 4, 'heads': 2}
    """
    own = {key: value for key, value in run.config.items() if key not in (CACHE, "seed")}
    return own | ({"--init_from": "RUN"} if run.from_weights else {})


def _name(run: RunSummary, keys: Sequence[str]) -> str:
    own = settings(run)
    words = [f"{key}={as_flag(own[key])}" if key in own else f"no {key}" for key in keys]
    return " ".join(one_line(word, _LONGEST) for word in words) or "all runs"


def _told_apart(arms: Sequence[Arm]) -> list[Arm]:
    """The same, numbered where long values differ only at their ends."""
    names = [arm.name for arm in arms]
    return [
        arm
        if names.count(arm.name) == 1
        else dataclasses.replace(arm, name=f"{arm.name} ({names[: place + 1].count(arm.name)})")
        for place, arm in enumerate(arms)
    ]
