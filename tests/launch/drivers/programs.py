"""What the jobs of these tests run, and how the tests learn what came of it."""

import sys
from pathlib import Path

from launch.jobs import Driver, Job, Status
from tests.launch.drivers.waiting import until

# Each process appends a dot to a file of its own, so that it knows the attempt.
COUNT = """
import os, pathlib, signal, sys, time
me = os.environ.get("WORKER") or os.environ.get("RECATTN_PROCESS", "0")
file = pathlib.Path(sys.argv[1], f"ran-{me}")
attempt = len(file.read_text()) + 1 if file.exists() else 1
file.write_text("." * attempt)
"""
# Goes on until it is asked to stop, and then saves, as training does.
WORK = """
def save(*_):
    (file.parent / f"saved-{me}-{attempt}").touch()
    os._exit(42)

signal.signal(signal.SIGTERM, save)
(file.parent / f"up-{me}-{attempt}").write_text(str(os.getpid()))
while True:
    time.sleep(0.02)
"""
SAVE = COUNT + WORK
SAVE_ONCE = SAVE.replace("while True", "while attempt == 1")


def job(folder: Path, code: str, accelerator: str = "cpu", name: str = "job", **more) -> Job:
    """Runs the code, which is told the folder; what the driver keeps is in `jobs` there."""
    program = folder / f"{name}.py"
    program.write_text(code)
    argv = (sys.executable, str(program), str(folder))
    return Job(name, argv, folder / "jobs", accelerator, **more)


def over(driver: Driver, work: Job) -> Status:
    """How the job stands once it is over."""
    until(lambda: driver.status(work).over, f"the end of {work.name}")
    return driver.status(work)


def ran(folder: Path, process: int = 0) -> int:
    """How often a process was started."""
    file = folder / f"ran-{process}"
    return len(file.read_text()) if file.exists() else 0


def up(folder: Path, process: int = 0, attempt: int = 1) -> int:
    """The pid of a process, once it is ready to be stopped."""
    file = folder / f"up-{process}-{attempt}"
    until(lambda: file.exists() and file.read_text() != "", str(file))
    return int(file.read_text())


def saved(folder: Path, process: int = 0, attempt: int = 1) -> bool:
    """Whether a process was asked to stop, and saved."""
    return (folder / f"saved-{process}-{attempt}").exists()
