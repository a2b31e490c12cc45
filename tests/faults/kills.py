"""Killed at any moment and gone on with, again and again, a run ends as if nothing had happened."""

import dataclasses
import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.processes import (
    Fresh,
    Nursery,
    checkpoints,
    killed_after,
    leftovers,
    trained,
    words,
)

POINTS = (
    "in_save",
    "after_save",
    "before_rename",
    "after_rename",
    "before_flush",
    "after_flush",
    "torn_flush",
    "before_replace",
    "after_replace",
    "in_prefetch",
)
Start = Callable[[list[str], Path], Any]


@dataclasses.dataclass(frozen=True)
class Kill:
    """Where a process dies: at the n-th passage of a point, or so many seconds after its start.

    Args:
      point: one of `POINTS`, or "random": the parent kills, so many seconds after the first step.
      n: of the passage.
      seconds: of a random kill.
      fresh: in a process of its own, not forked from one that has its imports.
    """

    point: str
    n: int
    seconds: float
    fresh: bool


def kills(seed: int, story: int, count: int) -> list[Kill]:
    """What happens in a story; the first kill comes late more often than not, after a save."""
    chance = random.Random(f"kills {seed} {story}")
    found = []
    for number in range(count):
        point = chance.choice((*POINTS, "random", "random", "random", "random"))
        n = chance.randint(1, 6) if number else chance.randint(2, 9)
        if "replace" in point:  # of model.txt, vocabularies.json, config.json, run.json, metrics
            n = chance.randint(1, 5)
        elif point == "in_prefetch":
            n = chance.randint(1, 20)
        # A run takes a second or two from its first step to its last.
        found.append(Kill(point, n, chance.uniform(0.0, 1.2), chance.random() < 0.1))
    return found


def tell(kill: Kill, workdir: Path, nursery: Nursery, cache: Path) -> dict[str, Any]:
    """One attempt that is to die; says what became of it."""
    output = workdir.parent / "output"
    arguments = words(workdir, *(() if kill.point == "random" else (kill.point, kill.n)))
    process = Fresh(cache, arguments, output) if kill.fresh else nursery.start(arguments, output)
    if kill.point == "random":
        ended = killed_after(process, lambda: "\nstep " in process.said(), kill.seconds)
    else:
        ended = process.wait()
    happened = ended.code == -signal.SIGKILL
    wrong = [] if happened or ended.code == 0 else [f"exit code {ended.code}: {ended.text[-2000:]}"]
    wrong += [f"said: {line}" for line in ended.lines("Traceback", "damaged", "Error")]
    return {
        **dataclasses.asdict(kill),
        "happened": happened,
        "after_a_save": happened and bool(checkpoints(workdir)),
        "wrong": wrong,
    }


def story(
    folder: Path, planned: list[Kill], nursery: Nursery, cache: Path, uninterrupted: Any
) -> dict[str, Any]:
    """Kills a run as planned, lets it end, and compares; nothing is mended by hand.

    Returns:
      `kills`: what became of each; `wrong`: all that should not have been, nothing if all is well.
    """
    folder.mkdir(parents=True)
    workdir = folder / "run"
    told = [tell(kill, workdir, nursery, cache) for kill in planned]
    wrong = [line for one in told for line in one.pop("wrong")]
    ended = nursery.start(words(workdir), folder / "output").wait()
    if ended.code:
        wrong.append(f"the last attempt ended with {ended.code}: {ended.text[-2000:]}")
    else:
        wrong += [f"said at last: {line}" for line in ended.lines("Traceback", "damaged", "Error")]
        wrong += differences(trained(workdir), uninterrupted)
        wrong += [f"left behind: {name}" for name in leftovers(workdir)]
        wrong += (
            [] if json.loads((workdir / "run.json").read_text())["ended"] == "done" else ["run"]
        )
    return {"kills": told, "wrong": wrong}


def differences(now: Any, before: Any) -> list[str]:
    """What an interrupted run has otherwise."""
    names = ("last step", "bits", "numbers")
    return [
        f"{name}: {a!r:.500} is not {b!r:.500}"
        for name, a, b in zip(names, now, before, strict=True)
        if a != b
    ]
