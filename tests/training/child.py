"""Trains the toy in a process of its own, which may kill itself at a named point.

`python -m tests.training.child WORKDIR CACHE [POINT N]` ends at the N-th passage of POINT.
The points are put in from outside, so the product knows nothing of them.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax

from recattn_jax.training import RunFolder, checkpoints, fit, metrics
from tests.training.toy import Counting, toy


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def at(
    owner: Any,
    name: str,
    passage: int,
    *,
    after: bool,
    where: Any = None,
    finish: Any = lambda *_: None,
) -> None:
    """Dies before or after the given passage through `owner.name`; `where` picks the passages."""
    original = getattr(owner, name)
    passed = 0

    def patched(*args: Any, **kwargs: Any) -> Any:
        nonlocal passed
        passed += where is None or where(*args)
        fatal = passed == passage and (where is None or where(*args))
        if fatal and not after:
            die()
        result = original(*args, **kwargs)
        if fatal:
            finish(*args)
            die()
        return result

    setattr(owner, name, patched)


def torn(passage: int) -> None:
    """Dies in a flush, with half of a line on disk."""

    def tear(log: metrics.MetricsLog) -> bool:
        if log._pending:
            tear.left -= 1  # type: ignore[attr-defined]
            if tear.left == 0:  # type: ignore[attr-defined]
                log._file.write("".join(log._pending)[:-20])
                log._file.flush()
                die()
        return False

    tear.left = passage  # type: ignore[attr-defined]
    at(metrics.MetricsLog, "flush", 0, after=False, where=tear)


def sleeper(tenths: int) -> None:
    """Dies so many tenths of a second after the first batch was asked for."""

    def wait(*_: Any) -> bool:
        threading.Timer(tenths / 10, die).start()
        return False

    at(Counting, "batches", 0, after=False, where=wait)


def prepare(point: str, passage: int) -> None:
    def committed(_: Any, target: Any) -> bool:
        return Path(target).parent.name == "checkpoints"

    points = {
        # The manager has returned and its threads are writing.
        "in_save": lambda: at(checkpoints.ocp.CheckpointManager, "save", passage, after=True),
        # All that is saved is on disk, and nothing has happened since.
        "after_save": lambda: at(
            checkpoints.ocp.CheckpointManager,
            "save",
            passage,
            after=True,
            finish=lambda manager, *_: manager.wait_until_finished(),
        ),
        "before_rename": lambda: at(os, "rename", passage, after=False, where=committed),
        "after_rename": lambda: at(os, "rename", passage, after=True, where=committed),
        "after_flush": lambda: at(metrics.MetricsLog, "flush", passage, after=True),
        "torn_flush": lambda: torn(passage),
        "in_replace": lambda: at(os, "replace", passage, after=False),
        "in_prefetch": lambda: at(Counting, "batch", passage, after=False),
        "random": lambda: sleeper(passage),
    }
    points[point]()


def main() -> None:
    workdir, cache, *kill = sys.argv[1:]
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if kill:
        prepare(kill[0], int(kill[1]))
    experiment, data = toy(
        steps=24,
        evaluate_every=4,
        save_every=3,
        patience=100,
        ema_decay=0.9,
        carry_state=True,
        accumulate=2,
    )
    run = RunFolder.open(workdir, config={"seed": 0}, config_file="toy.py", argv=sys.argv)
    fit(experiment, data, run)


if __name__ == "__main__":
    main()
