"""Searches the space that an experiment's sweep() names: trial after trial, each a run of its own.

  python -m launch.sweep --config=experiments/char_lm.py --trials=12 --workers=2
  python -m launch.sweep --config=experiments/char_lm.py --trials=12 --driver=slurm --dry_run

A trial is `python -m launch.train` with other numbers, run as a job of a driver, and compared by
the experiment's headline on the validation split, at its best. The folder holds the journal of the
trials (Optuna's), a run folder for each, and in the end sweep.csv, sweep.md and two figures.

The same command goes on where it was stopped or killed. Started on several hosts that share the
folder (which must have file locks), it shares the trials; each host has its own workers. All jobs
must see the folder under the same path. A trial that fails is tried again --retries times, then
left out and said; no configuration is run twice.

Ctrl-C once asks the running jobs to save and stop, and ends with 42; Ctrl-C twice leaves them.
Where five trials in a row fail, no more are started; the exit code is that of the last one's job
if it is 2 or 3, otherwise 1. It is 1, too, where all have ended and none finished.
"""

import functools
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_dict

from launch import app, configs, drivers
from launch.board import Board
from launch.jobs import Driver
from launch.space import Space, overrides, read_space
from launch.submit import shown
from recattn_jax.analysis import sweeps
from recattn_jax.analysis.reports import as_markdown
from recattn_jax.errors import UserError
from recattn_jax.files import write_atomically
from recattn_jax.training.experiment import Experiment
from recattn_jax.training.space import Span

if TYPE_CHECKING:
    from launch.study import Study
    from launch.trials import Plan

_NAMES = {
    "sampler": (("tpe", "random", "grid"), "what chooses the next configuration"),
    "pruner": (("none", "median", "halving"), "what gives up on trials before their end"),
}


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    define_flags(flag_values)
    drivers.define_flags(flag_values)
    chosen, argv = configs.choose(flag_values, argv)

    def main() -> None:
        chosen.check()
        config, defaults = chosen.config, chosen.defaults
        changed = {k: v for k, v in config.to_dict().items() if v != defaults[k]}
        sweep(flag_values, chosen.file, config, chosen.path, overrides(changed))

    return argv, main


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines what says how to search; where the trials run is the drivers' to say."""
    for name, default, about in (
        ("trials", 12, "how many must finish; failed ones do not count"),
        ("workers", 1, "how many run at once, of this process"),
    ):
        flags.DEFINE_integer(name, default, about, lower_bound=1, flag_values=flag_values)
    flags.DEFINE_integer("seed", 0, "of the sampler", lower_bound=0, flag_values=flag_values)
    for name, (names, what) in _NAMES.items():
        flags.DEFINE_enum(name, names[0], list(names), what, flag_values=flag_values)
    flags.DEFINE_list(
        "space", None, "keys of sweep() to vary, with commas; default: all", flag_values=flag_values
    )
    flags.DEFINE_string(
        "folder", None, "folder of the sweep; default: runs/sweep-<experiment>",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_float(
        "poll", None, "seconds between two looks at the jobs; default: 2 with the local driver, 30"
        " with others", lower_bound=0.01, flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_bool(
        "dry_run", False, "say what the first trial would start; write and start nothing",
        flag_values=flag_values,
    )  # fmt: skip


def sweep(
    flag_values: flags.FlagValues,
    experiment_file: ModuleType,
    config: config_dict.ConfigDict,
    config_file: str,
    base: list[str],
) -> None:
    """Checks everything that can be wrong, and only then writes and starts."""
    space = read_space(experiment_file, config_file, base, flag_values.space)
    check(flag_values, space)
    try:
        from launch.study import Study  # noqa: PLC0415  (only a sweep needs Optuna)
        from launch.trials import Plan, Sweep, TrialsFailed  # noqa: PLC0415
    except ImportError as error:
        raise UserError(f"a sweep needs Optuna: pip install -e '.[launch]' ({error})") from error
    experiment = experiment_file.build(config)
    driver = drivers.from_flags(flag_values)
    plan = Plan(
        config_file=config_file,
        overrides=base,
        headline=experiment.task.headline,
        trials=flag_values.trials,
        workers=flag_values.workers,
        poll=flag_values.poll or (2.0 if flag_values.driver == "local" else 30.0),
        python=drivers.python(flag_values),
        make_job=functools.partial(drivers.job, flag_values),
    )
    folder = Path(flag_values.folder or f"runs/sweep-{Path(config_file).stem}")
    who = identity(flag_values, space, config, config_file, experiment)
    if flag_values.dry_run:
        rehearse(flag_values, experiment, space, driver, plan, folder, who)
        return
    study = Study(
        folder,
        who,
        space,
        sampler=flag_values.sampler,
        pruner=flag_values.pruner,
        every=experiment.cadence.evaluate_every,
        maximise=experiment.task.maximise,
        seed=flag_values.seed,
    )
    print(f"{space}; {flag_values.trials} trials in {folder}", flush=True)
    board = Board(sys.stdout, plan.headline, study.maximise)
    try:
        Sweep(study, driver, plan, board.show, board.say).run()
    except TrialsFailed:
        conclude(study, plan)
        raise
    if conclude(study, plan) is None:
        raise TrialsFailed(f"no trial finished; {folder / 'sweep.md'} says why", 1)


def check(flag_values: flags.FlagValues, space: Space) -> None:
    """Refuses flags that do not fit the space.

    Raises:
      UserError: a key is both fixed and varied; a span has no grid; a time is none.
    """
    if not math.isfinite(flag_values.poll or 0):
        raise UserError(f"--poll={flag_values.poll}: expected seconds")
    for key, values in space.values.items():
        if f"config.{key}" in flag_values:
            others = ",".join(other for other in space.values if other != key)
            without = f"name the keys to vary: --space={others}" if others else "leave it out"
            raise UserError(f"--config.{key} is given, but the sweep varies it; {without}")
        if flag_values.sampler == "grid" and Space({key: values}).size is None:
            raise UserError(f"--sampler=grid: {key} has no end of values, {values}")


def identity(
    flag_values: flags.FlagValues,
    space: Space,
    config: config_dict.ConfigDict,
    config_file: str,
    experiment: Experiment,
) -> dict[str, Any]:
    """What must be the same for everyone who works on the folder, now and later."""
    fixed = {k: v for k, v in config.to_dict().items() if k not in space.values}
    return {
        "config_file": config_file,
        "headline": experiment.task.headline,
        "maximise": experiment.task.maximise,
        **{name: flag_values[name].value for name in ("driver", "sampler", "pruner", "seed")},
        **{f"config.{key}": value for key, value in fixed.items()},
        **{f"space.{key}": values for key, values in space.plain().items()},
    }


def rehearse(
    flag_values: flags.FlagValues,
    experiment: Experiment,
    space: Space,
    driver: Driver,
    plan: "Plan",
    folder: Path,
    who: dict[str, Any],
) -> None:
    """Prints the space and what starting the first trial would do, or did."""
    from launch.study import known, new_name, propose  # noqa: PLC0415

    before = known(folder, who)
    first = propose([], space, flag_values.sampler, flag_values.seed, experiment.task.maximise)
    assert first is not None, "every space has a point"
    name = before or new_name(folder.absolute().name)
    job = plan.job(folder, f"{name}-0", overrides(first), "trial-0")
    print(f"{space}; {flag_values.trials} trials in {folder}")
    print(f"the first job {'was' if before else 'would be'} {job.name}:")
    print("\n".join(shown(driver.plan(job))), flush=True)


def conclude(study: "Study", plan: "Plan") -> sweeps.Trial | None:
    """Writes the table and the figures, and says what was found and how to do it again.

    Returns:
      The best trial; None if none finished.
    """
    trials = study.summaries()
    best = sweeps.best_of(trials, study.maximise)
    said = sweeps.counted(trials)
    ended = sum(trial.state in (sweeps.FINISHED, sweeps.PRUNED) for trial in trials)
    if ended < plan.trials and len(trials) == study.space.size:
        said += f"; the space has no more than these {len(trials)}"
    lines = [f"{len(trials)} trials: {said}"]
    if best is not None:
        arguments = study.trial(best.number).user_attrs["arguments"]
        again = shlex.join(["python", *plan.command(arguments, study.folder / "best")])
        lines += [f"best {plan.headline} {best.value} in trial {best.number}; again with:", again]
    with study.lock:  # of several processes, which all come to the end
        files = draw(study, plan, trials) if best is not None else []
        write_page(study, plan, trials, lines, files)
    for line in lines:
        print(line)
    print(f"written: {study.folder / 'sweep.md'}", flush=True)
    return best


def draw(study: "Study", plan: "Plan", trials: list[sweeps.Trial]) -> list[Path]:
    """The figures that there are numbers for."""
    keys, values = list(study.space.values), study.space.values
    logarithmic = [k for k in keys if _logarithmic(values[k])]
    files = [study.folder / "parallel.png"]
    sweeps.parallel_coordinates(trials, keys, logarithmic, plan.headline, study.maximise, files[0])
    importances = study.importances()
    if importances:
        files.append(study.folder / "importance.png")
        finished = sum(trial.state == sweeps.FINISHED for trial in trials)
        sweeps.importance_bars(importances, plan.headline, finished, files[1])
    return files


def _logarithmic(values: tuple[Any, ...] | Span) -> bool:
    """Whether an axis is better read so: choices as far apart as learning rates are."""
    if isinstance(values, Span):
        return values.log
    numbers = all(type(value) in (int, float) and value > 0 for value in values)
    return numbers and max(values) >= 5 * min(values)


def write_page(
    study: "Study", plan: "Plan", trials: list[sweeps.Trial], lines: list[str], files: list[Path]
) -> None:
    """Writes sweep.csv and sweep.md."""
    keys = list(study.space.values)
    table = as_markdown(
        [sweeps.cells(trial, keys) for trial in sweeps.ranked(trials, study.maximise)],
        sweeps.columns(keys, plan.headline),
    )
    page = [f"# {study.name}", "", f"{study.space}.", ""]
    page += [lines[0] + "."]
    if len(lines) > 1:
        page += ["", lines[1][0].upper() + lines[1][1:], "", f"    {lines[2]}"]
    page += ["", table, "", *(f"![{file.stem}]({file.name})" for file in files)]
    write_atomically(study.folder / "sweep.csv", sweeps.as_csv(trials, keys, plan.headline))
    write_atomically(study.folder / "sweep.md", "\n".join(page) + "\n")


if __name__ == "__main__":
    app.run(command, __doc__)
