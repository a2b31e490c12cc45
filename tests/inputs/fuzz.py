"""One malformed input at a time: what is done with it, and what is wrong with the answer.

A case is its seed and number. The number chooses what is tried; together they choose the damage.
"""

import contextlib
import dataclasses
import io
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import absl.logging

from launch import app
from recattn_jax.untrusted import shown
from tests.inputs.mutations import damage
from tests.inputs.readers import READERS, Reader
from tests.launch.commands import everything_under

SECONDS = 20
"""A case that takes longer hangs."""
LONGEST = 3000
"""Characters of a message; longer ones repeat what they were given."""
HALVES = (".partial", ".tmp", ".incomplete", "-tmp")


class Hang(BaseException):
    """A case took too long."""


@dataclasses.dataclass(frozen=True)
class Done:
    """What a case led to.

    Args:
        code: the exit code; -1 where nothing was that should have been.
        out: what was printed.
        err: what was said.
        problems: what is wrong with that; nothing in a good case.
    """

    code: int
    out: str
    err: str
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A case, for the report."""

    number: int
    target: str
    what: str
    done: Done
    seconds: float


Target = Callable[[random.Random, Path], tuple[str, Done]]
"""Does one case in an empty folder, which is the current one; says what, and what came of it."""


class Stdin:
    """A stdin of bytes, of a file."""

    def __init__(self, data: bytes = b""):
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raises `Hang` in the body after so long."""

    def late(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def called(work: Callable[[], object], stdin: bytes = b"") -> Done:
    """Does the work of a command, and collects how it leaves and what it says."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", errors=e) for e in ("strict", "backslashreplace")
    )
    problems: list[str] = []
    code: object = 0
    handler = absl.logging.get_absl_handler().python_handler
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        before, sys.stdin = sys.stdin, Stdin(stdin)  # type: ignore[assignment]
        handler.stream, logged = err, handler.stream
        try:
            with limit(SECONDS):
                work()
        except SystemExit as leaving:
            code = leaving.code or 0
        except Hang:
            code = -1
            problems.append(f"hangs: more than {SECONDS} seconds")
        except BaseException as error:
            code = 1
            problems.append(f"not foreseen: {type(error).__name__}: {error!s:.300}")
        finally:
            sys.stdin, handler.stream = before, logged
    said = []
    for stream in (out, err):
        stream.flush()
        said.append(stream.buffer.getvalue().decode("utf-8", "replace"))  # type: ignore[attr-defined]
    return Done(code if isinstance(code, int) else -1, said[0], said[1], tuple(problems))


def command(module: object, arguments: list[str], stdin: bytes = b"") -> Done:
    """Calls a command as the command line would."""
    argv = [module.__name__, *arguments]  # type: ignore[attr-defined]
    return called(lambda: app.run(module.command, module.__doc__, argv=argv), stdin)  # type: ignore[attr-defined]


def judged(done: Done, codes: tuple[int, ...] = (0, 2, 4)) -> Done:
    """The same with what is wrong about how it ended and what it said."""
    problems = [*done.problems]
    if done.code not in codes and not problems:
        problems.append(f"exit code {done.code}, expected one of {codes}")
    lines = done.err.splitlines()
    if done.code != 0 and not problems:
        if not lines or not lines[-1].startswith("error: "):
            problems.append("no line that begins with error:")
        problems += [f"said besides: {line:.200}" for line in lines[:-1] if not _explains(line)]
        if lines and not 20 <= len(lines[-1]) <= LONGEST:
            problems.append(f"a message of {len(lines[-1])} characters")
    if "Traceback" in done.err:
        problems.append("a traceback")
    if shown(done.err) != done.err:
        problems.append("control characters in what is said")
    return dataclasses.replace(done, problems=tuple(problems))


def _explains(line: str) -> bool:
    return line.startswith(("line ", "warning: ")) or "damaged" in line or "passed over" in line


def changed(before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> list[str]:
    """The names of what was written, changed or taken away."""
    return sorted(n for n in before.keys() | after.keys() if before.get(n, 0) != after.get(n, 0))


def left_behind(
    done: Done, before: Mapping[str, bytes | None], may: Callable[[str], bool], after_error: bool
) -> Done:
    """The same with what is wrong about what was written below the current folder.

    Args:
        done: what the case led to.
        before: everything before it.
        may: whether a path may change.
        after_error: whether it may also where the command failed.
    """
    problems = [*done.problems]
    for name in changed(before, everything_under(Path())):
        if name.endswith(HALVES) or ".partial" in name:
            problems.append(f"half-written: {name}")
        elif not may(name) or (done.code != 0 and not after_error):
            problems.append(f"written although it failed or is not its own: {name}")
    return dataclasses.replace(done, problems=tuple(problems))


def reading(reader: Reader) -> Target:
    """Tries a reader on files of which one is damaged."""

    def target(r: random.Random, folder: Path) -> tuple[str, Done]:
        files = Path("files")
        for name, content in reader.files().items():
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            (files / name).write_bytes(content)
        others = READERS[r.choice(sorted(READERS))].files()
        what = damage(r, files, sorted(reader.files()), others)
        before = everything_under(Path())

        def work() -> None:
            absl.logging.set_verbosity(absl.logging.ERROR)
            with app.exit_codes():
                reader.read(files, Path("data"))

        done = judged(called(work))
        # What reads several sets in turn may have prepared the first ones.
        return what, left_behind(done, before, lambda n: n.startswith("data"), reader.covers == ())

    return target


def run(targets: Mapping[str, Target], seed: int, number: int, folder: Path) -> Outcome:
    """Does one case in a folder that is empty."""
    name = sorted(targets)[number % len(targets)]
    r = random.Random(f"{seed} {number}")
    start = time.monotonic()
    here = os.getcwd()
    os.chdir(folder)
    try:
        what, done = targets[name](r, folder)
    finally:
        os.chdir(here)
    return Outcome(number, name, what, done, round(time.monotonic() - start, 3))
