"""Every command, with damaged folders and damaged flags: what a fuzzer tries."""

import contextlib
import dataclasses
import functools
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from absl import flags

from launch import compile_check, drivers, evaluate, generate, report, submit, sweep, train
from launch.drivers import local, records
from launch.jobs import Job, State
from tests.inputs import fuzz
from tests.inputs.mutations import NUMBERS, WORDS, damage, mutate
from tests.inputs.readers import READERS
from tests.launch.commands import TEXT, TINY, TINY_SCORED, everything_under
from tests.launch.compile_check_test import facts
from tests.launch.fake_driver import FakeDriver

CONFIG = f"--config={TINY}"
RUN_FILES = ("config.json", "run.json", "vocabularies.json", "model.txt", "metrics.jsonl")
LINES = "the cat sat\non the Mat\n\nRome caf\u00e9\n".encode()
# What no command line can hold is left out, and what is right but takes for ever.
FLAG_VALUES = [
    v for v in (*NUMBERS, *WORDS, "\udcff", "1.5", "\uff11", "9" * 30) if "\x00" not in v
]
ENDLESS = ("tokens", "poll", "config.steps")
OVERRIDES = ("seed", "data_dir", "text", "held_out", "width", "batch", "length", "peak_lr", "mesh",
             "streams", "steps")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Folders:
    """What is made once, and copied for each case.

    Args:
        place: the folder of them.
    """

    place: Path

    def _made(self, name: str, make: Callable[[], fuzz.Done]) -> Path:
        folder = self.place / name
        if not folder.exists():
            folder.mkdir(parents=True)
            with contextlib.chdir(folder):
                Path("text.txt").write_text(TEXT)
                done = make()
            assert done.code == 0, done
        return folder

    def trained(self) -> Path:
        """A run of a language model, in `run`."""
        arguments = [CONFIG, "--workdir=run"]
        return self._made("trained", lambda: fuzz.command(train, arguments))

    def scored(self) -> Path:
        """A run of a classifier, in `run`."""
        arguments = [f"--config={TINY_SCORED}", "--config.steps=2", "--workdir=run"]
        return self._made("scored", lambda: fuzz.command(train, arguments))

    def swept(self) -> Path:
        """A sweep of four trials, in `here`."""
        return self._made("swept", lambda: searched("--folder=here", "--trials=4"))

    def job(self) -> Path:
        """The record of a job that is done, in `jobs`."""

        def make() -> fuzz.Done:
            job = Job("a", ("true",), Path("jobs"), "any")
            record = local.Local()._record(job)
            record = dataclasses.replace(record, state=State.DONE.value, attempt=1)
            file = records.place(job) / local.RECORD
            records.make(file.parent)
            records.write(file, asdict(record))
            return fuzz.Done(0, "", "")

        return self._made("job", make)


def searched(*arguments: str) -> fuzz.Done:
    """A sweep whose trials are curves, and take no time."""
    driver = FakeDriver(lambda said, step: float(said["width"]) + 1 / step)
    with replaced(drivers, "from_flags", lambda flag_values: driver):
        fixed = ["--space=width,streams", "--sampler=grid", "--poll=0.01"]
        return fuzz.command(sweep, [CONFIG, *fixed, *arguments])


@contextlib.contextmanager
def replaced(module: ModuleType, name: str, value: object):
    """While entered, a module has something else under a name."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def damaged(
    made: Callable[[], Path],
    names: Sequence[str],
    call: Callable[[], fuzz.Done],
    may: Callable[[str], bool] = lambda name: False,
    codes: tuple[int, ...] = (0, 2, 4),
    after_error: bool = False,
) -> fuzz.Target:
    """Tries a command on a folder in which one file is damaged.

    Args:
        made: gives the folder, which is copied.
        names: of the files that may be damaged.
        call: calls the command there.
        may: what the command may write.
        codes: how it may end.
        after_error: whether it may have written where it fails.
    """

    def target(r: random.Random, folder: Path) -> tuple[str, fuzz.Done]:
        shutil.copytree(made(), Path(), dirs_exist_ok=True)
        there = [str(p) for pattern in names for p in sorted(Path().glob(pattern)) if p.is_file()]
        what = damage(r, Path(), there, READERS[r.choice(sorted(READERS))].files())
        before = everything_under(Path())
        done = fuzz.judged(call(), codes)
        return what, fuzz.left_behind(done, before, may, after_error)

    return target


def lines(made: Callable[[], Path]) -> fuzz.Target:
    """Tries to have damaged lines answered."""

    def target(r: random.Random, folder: Path) -> tuple[str, fuzz.Done]:
        shutil.copytree(made(), Path(), dirs_exist_ok=True)
        what, data = mutate(r, "lines.txt", LINES)
        before = everything_under(Path())
        # What is right is answered, and one of a few shapes is compiled for it.
        done = fuzz.judged(fuzz.command(generate, ["--workdir=run"], data[:200_000]))
        return what, fuzz.left_behind(done, before, lambda name: False, False)

    return target


def flagged(
    module: ModuleType,
    base: Sequence[str],
    made: Callable[[], Path] | None,
    may: Callable[[str], bool],
    last: Sequence[str] = (),
    codes: tuple[int, ...] = (0, 2, 4),
) -> fuzz.Target:
    """Tries a command with one or two flags that are wrong.

    Args:
        module: the command.
        base: good flags.
        made: gives the folder to copy; None for one with a text alone.
        may: what the command may write.
        last: flags that keep it from doing much.
        codes: how it may end.
    """

    @functools.cache
    def names() -> list[str]:
        found = flags.FlagValues()
        config = [CONFIG] if module in (train, sweep, compile_check) else []
        module.command(found, [module.__name__, *config])
        overrides = [f"config.{key}" for key in OVERRIDES] if config else []
        return sorted({*found, *overrides} - {"dry_run", "record"})

    def target(r: random.Random, folder: Path) -> tuple[str, fuzz.Done]:
        if made is not None:
            shutil.copytree(made(), Path(), dirs_exist_ok=True)
        Path("text.txt").write_text(TEXT)
        words = []
        for _ in range(r.choice((1, 1, 2))):
            name, value = r.choice(names()), r.choice(FLAG_VALUES)
            if name in ENDLESS and value.startswith("9"):
                value = "-9"
            way = r.random()
            if way < 0.85:
                words.append(f"--{name}={value}")
            elif way < 0.9:
                words.append(f"--{name}")
            elif way < 0.95:
                words.append(f"--{name}{value}=1")
            else:
                words.append(value)
        before = everything_under(Path())
        done = fuzz.judged(fuzz.command(module, [*base, *words, *last]), codes)
        return shlex_joined(words), fuzz.left_behind(done, before, may, module is train)

    return target


def shlex_joined(words: Sequence[str]) -> str:
    return " ".join(ascii(word) if len(word) < 80 else f"{ascii(word[:60])}..." for word in words)


def anything(name: str) -> bool:
    return True


def nothing(name: str) -> bool:
    return False


def commands(place: Path) -> Mapping[str, fuzz.Target]:
    """Every command.

    Args:
        place: a folder for what is made once.
    """
    made = Folders(place)
    run = [f"run/{name}" for name in RUN_FILES]
    cached = ["prepared/*/*/*", "prepared/recattn_tokens/*"]

    def status() -> fuzz.Done:
        with replaced(local, "_supervise", lambda *_: None):
            return fuzz.command(submit, ["--name=a", "--folder=jobs", "--action=status"])

    def compiled() -> fuzz.Target:
        inner = flagged(compile_check, [CONFIG, "--topology=v5e:2x4"], None, anything)

        def target(r: random.Random, folder: Path) -> tuple[str, fuzz.Done]:
            def asked(check, question):
                return dataclasses.replace(check, facts=facts())

            with (
                replaced(compile_check, "asked", asked),
                replaced(compile_check, "check_compiler", lambda: None),
            ):
                return inner(r, folder)

        return target

    swept = ("here/journal.log", "here/sweep.json", "here/trial-*/*.json*")
    own = lambda name: name.startswith("run")  # noqa: E731
    return {
        "compile_check flags": compiled(),
        "evaluate run": damaged(
            made.trained, run, lambda: fuzz.command(evaluate, ["--workdir=run"])
        ),
        "evaluate flags": flagged(
            evaluate, ["--workdir=run"], made.trained, lambda n: n.endswith(".png")
        ),
        "generate run": damaged(
            made.trained, run, lambda: fuzz.command(generate, ["--workdir=run", "--tokens=3"])
        ),
        "generate classifier": damaged(
            made.scored, run, lambda: fuzz.command(generate, ["--workdir=run"], LINES)
        ),
        "generate flags": flagged(generate, ["--workdir=run", "--tokens=3"], made.trained, nothing),
        "generate lines": lines(made.scored),
        "report run": damaged(
            made.trained,
            run,
            lambda: fuzz.command(report, ["--workdir=run"]),
            lambda name: name.startswith(("run/report.", "run/curves_")),
        ),
        "report flags": flagged(report, ["--workdir=run"], made.trained, own),
        "submit job": damaged(
            made.job,
            ["jobs/a/job.json"],
            status,
            lambda name: name.endswith("lock"),
            after_error=True,
        ),
        "submit flags": flagged(submit, ["--name=a"], None, nothing, ["--dry_run"]),
        "sweep folder": damaged(
            made.swept,
            swept,
            lambda: searched("--folder=here", "--trials=4"),
            lambda name: name.startswith("here"),
            codes=(0, 1, 2, 4),  # 1: every trial failed, in one line
            after_error=True,
        ),
        "sweep flags": flagged(sweep, [CONFIG], None, nothing, ["--dry_run"]),
        "train cache": damaged(
            made.trained,
            cached,
            lambda: fuzz.command(train, [CONFIG, "--workdir=run"]),
            anything,
            after_error=True,
        ),
        "train flags": flagged(
            train, [CONFIG, "--config.steps=1", "--workdir=run"], None, anything, codes=(0, 2, 3, 4)
        ),
        "train run": damaged(
            made.trained,
            run,
            lambda: fuzz.command(train, [CONFIG, "--workdir=run"]),
            own,
            after_error=True,
        ),
    }
