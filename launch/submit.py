"""Trains somewhere else: starts a job, asks how it stands, or stops it.

  python -m launch.submit --name=a --hosts=2 -- --config=experiments/char_lm.py --workdir=runs/a
  python -m launch.submit --name=a --action=status

What follows `--` is given to `python -m launch.train`. Starting a name twice is harmless.
"""

import shlex
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from absl import flags

from launch import app, drivers
from launch.drivers import records
from launch.jobs import Action, Driver, Job, State, Status
from recattn_jax.errors import UserError

ACTIONS = ("start", "status", "wait", "stop")


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    flags.DEFINE_string("name", None, "the job's name", flag_values=flag_values)
    flags.DEFINE_string(
        "folder", "runs/jobs", "for logs and what is kept of the job; all hosts see it under this"
        " path", flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_enum(
        "action", "start", ACTIONS, "what to do with the job",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "dry_run", False, "print what would be done, and do nothing", flag_values=flag_values
    )
    flags.DEFINE_integer(
        "poll", 30, "wait: seconds from one look to the next", lower_bound=1,
        flag_values=flag_values,
    )  # fmt: skip
    drivers.define_flags(flag_values)
    own, given = split(argv)

    def main() -> None:
        words = (drivers.python(flag_values), "-m", "launch.train", *given)
        job = drivers.job(
            flag_values, app.required(flag_values, "name"), words, Path(flag_values.folder)
        )
        driver = drivers.from_flags(flag_values)
        if flag_values.dry_run:
            if flag_values.action != "start":
                raise UserError("--dry_run shows what --action=start does; leave --action away")
            print("\n".join(shown(driver.plan(job))), flush=True)
        else:
            act(driver, job, flag_values.action, flag_values.poll, own)

    return own, main


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Cuts the arguments at the first `--`.

    Example:
      >>> split(["submit", "--name=a", "--", "--config=b.py"])
      (['submit', '--name=a'], ['--config=b.py'])
    """
    cut = argv.index("--") if "--" in argv else len(argv)
    return argv[:cut], argv[cut + 1 :]


def shown(plan: Iterable[Action]) -> list[str]:
    """A plan for a person: a command is a line for a shell, a file its name and its text.

    Example:
      >>> shown([Action(argv=("echo", "a b"))])
      ["$ echo 'a b'"]
    """
    lines = []
    for action in plan:
        if action.file is None:
            lines.append(f"$ {shlex.join(action.argv)}")
        else:
            lines += [f"# {action.file}", action.text.rstrip("\n"), f"# end of {action.file.name}"]
    return lines


def act(driver: Driver, job: Job, action: str, poll: int, own: list[str]) -> None:
    """Does one of `ACTIONS`, and says what came of it.

    Raises:
      SystemExit: the job failed and its end was waited for; the code is the job's.
    """
    if action == "start":
        driver.start(job)
        asking = [word for word in own[1:] if not word.startswith("--action")]
        print(
            f"{said(job, driver.status(job))}; logs in {records.place(job)}; ask with:"
            f" {shlex.join(['python', '-m', 'launch.submit', *asking, '--action=status'])}",
            flush=True,
        )
    elif action == "stop":
        driver.stop(job)
        print(said(job, driver.status(job)), flush=True)
    elif action == "status":
        print(said(job, driver.status(job)), flush=True)
    else:
        status = wait(driver, job, poll)
        if status.state is not State.DONE:
            raise SystemExit(status.exit_code if (status.exit_code or 0) > 0 else 1)


def wait(driver: Driver, job: Job, poll: int) -> Status:
    """Asks until the job is over, or there is none, and prints what changes."""
    before = None
    while True:
        status = driver.status(job)
        if status != before:
            print(said(job, status), flush=True)
        if status.over or status.state is State.UNKNOWN:
            return status
        before = status
        time.sleep(poll)


def said(job: Job, status: Status) -> str:
    """One line about a job.

    Example:
      >>> said(Job("a", ("true",), Path("runs"), "cpu"), Status(State.FAILED, 3, "no number"))
      'job a: failed, exit code 3 (no number)'
    """
    code = f", exit code {status.exit_code}" if status.exit_code else ""
    reason = f" ({status.reason})" if status.reason else ""
    return f"job {job.name}: {status.state.value}{code}{reason}"


if __name__ == "__main__":
    app.run(command, __doc__)
