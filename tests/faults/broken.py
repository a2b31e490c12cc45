"""Runs a command with a break put in from outside, of which the product knows nothing.

`python -m tests.faults.broken POINT N -- --config=... --workdir=...` is launch.train with the break
POINT at passage, batch or byte N; without POINT and N nothing is broken.
"""

import ctypes
import datetime
import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def at(
    owner: Any,
    name: str,
    passage: int,
    act: Callable[..., Any] = die,
    *,
    after: bool = False,
    where: Callable[..., bool] = lambda *_: True,
) -> None:
    """Acts before or after the given passage through `owner.name`; `where` picks what counts."""
    original = getattr(owner, name)
    passed = 0

    def patched(*args: Any, **kwargs: Any) -> Any:
        nonlocal passed
        counts = where(*args)
        passed += counts
        now = counts and passed == passage
        if now and not after:
            act(*args)
        result = original(*args, **kwargs)
        if now and after:
            act(*args)
        return result

    setattr(owner, name, patched)


def at_batch(index: int, act: Callable[..., Any]) -> None:
    """Acts when the training pipeline makes a batch."""
    from tests.training.toy import Counting  # noqa: PLC0415  (what patches time comes before imports)

    at(Counting, "batch", 1, act, where=lambda _, batch: batch == index)


def torn(passage: int) -> None:
    """Dies in a flush, with half of a line on disk."""
    from recattn_jax.training.metrics import MetricsLog  # noqa: PLC0415

    def tear(log: Any) -> None:
        log._file.write("".join(log._pending).encode()[:-20])
        die()

    at(MetricsLog, "flush", passage, tear, where=lambda log: bool(log._pending))


def no_growth_from(index: int) -> None:
    """From a batch on no file may grow, whoever writes it; unlike a full disk it needs no disk."""
    # What is printed goes on, through a process that may write.
    cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    assert cat.stdin is not None
    os.dup2(cat.stdin.fileno(), 1)
    os.dup2(cat.stdin.fileno(), 2)
    cat.stdin.close()
    at_batch(index, no_growth)


def no_growth(*_: Any) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def workdir() -> Path:
    (found,) = (word for word in sys.argv if word.startswith("--workdir="))
    return Path(found.partition("=")[2])


def fill(*_: Any) -> None:
    """Takes all the room that the file system of the run has left."""
    with (workdir().parent / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def obey_modes() -> None:
    """Gives up root's right to write where modes forbid it."""
    CAP_DAC_OVERRIDE, VERSION_3 = 1, 0x20080522
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(VERSION_3, 0)
        data = (ctypes.c_uint32 * 6)()
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.capget(header, data) == 0
        data[0] &= ~(1 << CAP_DAC_OVERRIDE)
        assert libc.capset(header, data) == 0


def read_only(*_: Any) -> None:
    """Nothing can be made, renamed or removed in the run's folder from now on."""
    for folder in (workdir(), *(p for p in workdir().rglob("*") if p.is_dir())):
        folder.chmod(0o555)


def read_only_from(index: int) -> None:
    """From a batch on, for a user whom modes bind."""
    obey_modes()
    at_batch(index, read_only)


def jumping_clock(*_: Any) -> None:
    """Days forward, back again, and before the start, at every few looks."""
    jumps, looks = (0, 3, -2, 400, -30), 0
    real, real_ns, Datetime = time.time, time.time_ns, datetime.datetime

    def shift() -> float:
        nonlocal looks
        looks += 1
        return 86400.0 * jumps[looks // 7 % len(jumps)]

    class Jumping(Datetime):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return Datetime.now(tz) + datetime.timedelta(seconds=shift())

    time.time = lambda: real() + shift()
    time.time_ns = lambda: real_ns() + int(1e9 * shift())
    datetime.datetime = Jumping  # type: ignore[misc]


def kill_worker(*_: Any) -> None:
    """Kills the process that makes the batches."""
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)


def stop(*numbers: int) -> Callable[..., None]:
    def send(*_: Any) -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return send


def fail(*_: Any) -> None:
    raise ValueError("record 17 of the source is no record")


def poison(index: int) -> None:
    """A batch without a single target has no loss."""
    from tests.training.toy import Counting  # noqa: PLC0415

    original = Counting.batch

    def batch(self: Any, number: int) -> Any:
        made = original(self, number)
        return made | {"segments": 0 * made["segments"]} if number == index else made

    Counting.batch = batch  # type: ignore[method-assign]


def stall(*_: Any) -> None:
    """Waits, while a file says so."""
    (workdir().parent / "stalled").touch()
    while (workdir().parent / "stalled").exists():
        time.sleep(0.02)


def prepare(point: str, n: int) -> None:
    """Puts in the break."""
    if point == "clock":
        jumping_clock()
        return
    import orbax.checkpoint as ocp  # noqa: PLC0415

    from recattn_jax.training.metrics import MetricsLog  # noqa: PLC0415
    from tests.training.toy import Counting  # noqa: PLC0415

    def saved(manager: Any, *_: Any) -> None:
        manager.wait_until_finished()
        die()

    def commits(_: Any, target: Any) -> bool:
        return Path(target).parent.name == "checkpoints"

    manager = ocp.CheckpointManager
    points: dict[str, Callable[[], None]] = {
        # The manager has returned and its threads are writing.
        "in_save": lambda: at(manager, "save", n, after=True),
        # All that is saved is on disk, and nothing has happened since.
        "after_save": lambda: at(manager, "save", n, saved, after=True),
        "before_rename": lambda: at(os, "rename", n, where=commits),
        "after_rename": lambda: at(os, "rename", n, after=True, where=commits),
        "before_flush": lambda: at(MetricsLog, "flush", n),
        "after_flush": lambda: at(MetricsLog, "flush", n, after=True),
        "torn_flush": lambda: torn(n),
        "before_replace": lambda: at(os, "replace", n),
        "after_replace": lambda: at(os, "replace", n, after=True),
        "in_prefetch": lambda: at(Counting, "batch", n),
        "in_record": lambda: at(Path, "open", n, where=lambda p, *_: p.name == "run.json.partial"),
        "terminate": lambda: at_batch(n, stop(signal.SIGTERM)),
        "interrupt": lambda: at_batch(n, stop(signal.SIGINT)),
        "interrupt_twice": lambda: at_batch(n, stop(signal.SIGINT, signal.SIGINT)),
        "fails": lambda: at_batch(n, fail),
        "poison": lambda: poison(n),
        "full": lambda: at_batch(n, fill),
        "no_growth": lambda: no_growth_from(n),
        "read_only": lambda: read_only_from(n),
        # In the training process, whose worker makes the batches.
        "kill_worker": lambda: at(MetricsLog, "flush", n, kill_worker),
        "stall": lambda: at_batch(n, stall),
    }
    points[point]()


def main(words: list[str]) -> None:
    """Leaves with the command's exit code."""
    cut = words.index("--")
    command, arguments = words[:cut], words[cut + 1 :]
    sys.argv = ["train", *arguments]
    if command:
        prepare(command[0], int(command[1]))
    runpy.run_module("launch.train", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
