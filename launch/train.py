"""Trains an experiment, or resumes it, or says that it is done.

  python -m launch.train
  python -m launch.train --config=experiments/char_lm.py --config.peak_lr=2e-3 --workdir=runs/a
  python -m launch.train --config.mesh=data:2,fsdp:4

Ctrl-C once saves and stops; the same command goes on from there. With --replay=STEP it repeats one
step of the run that it names, and looks for what is not finite in it.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from absl import flags
from ml_collections import config_dict

from launch import app, configs, distributed
from recattn_jax.errors import Interrupted, StorageError, UserError
from recattn_jax.training import summary
from recattn_jax.training.loading import load_run
from recattn_jax.training.loop import fit
from recattn_jax.training.replay import replay
from recattn_jax.training.runs import RunFolder, identity
from recattn_jax.training.sharding import check_batch, make_mesh
from recattn_jax.training.state import abstract_state, check_params
from recattn_jax.untrusted import one_line, shown


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    flags.DEFINE_string(
        "workdir", None, "folder of the run; default: runs/<experiment>-<config digest>",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_string(
        "init_from", None, "folder of a run whose weights to start from", flag_values=flag_values
    )
    flags.DEFINE_string(
        "init_config", None, "experiment file of --init_from, which is code and is run; needed"
        " where it may have come with that folder", flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_string(
        "checkpoint", None, "which weights of --init_from: best (default), last or a step",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_string(
        "profile_steps", None, "first:last step to trace, into <workdir>/profile",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "replay", None, "repeat this step of the run, and look for what is not finite",
        lower_bound=1, flag_values=flag_values,
    )  # fmt: skip
    distributed.define_flags(flag_values)
    chosen, argv = configs.choose(flag_values, argv)

    def main() -> None:
        chosen.check()
        with told_apart(), distributed.joined(flag_values):
            train(flag_values, chosen.file, chosen.config, chosen.path)

    return argv, main


@contextlib.contextmanager
def told_apart() -> Iterator[None]:
    """While entered, SIGTERM ends the process as interrupted, also where no step listens.

    Before the first there is nothing to save, and after the last all is saved. Who asks may ask
    again (SLURM asks every process, and the first passes it on): that changes nothing any more.

    Must be entered before the processes of a run are joined, since jax then listens itself.
    """
    after = signal.signal(signal.SIGTERM, lambda *_: os._exit(Interrupted.exit_code))
    try:
        yield
    except Interrupted:
        after = signal.SIG_IGN
        raise
    finally:
        signal.signal(signal.SIGTERM, after)


def train(
    flag_values: flags.FlagValues,
    experiment_file: ModuleType,
    config: config_dict.ConfigDict,
    config_path: str,
) -> None:
    """Checks everything that can be wrong, cheapest first, and only then writes and trains."""
    plain = config.to_dict()
    workdir = Path(flag_values.workdir or default_workdir(config_path, plain))
    profile_steps = parse_steps(flag_values.profile_steps)
    if not flag_values.init_from:
        app.refuse(flag_values, ("checkpoint", "init_config"), "of --init_from, which is missing")
    experiment = experiment_file.build(config)
    try:
        abstract_state(experiment)
    except ValueError as error:  # of a layer whose numbers do not fit each other
        raise UserError(f"{config_path}: {error}") from error
    mesh = make_mesh(experiment.layout.mesh)
    check_batch(experiment.batch, mesh, experiment.optimization.accumulate)
    run = RunFolder.open(workdir, config=plain, config_file=config_path, argv=sys.argv[1:])
    initial_params = None
    if flag_values.init_from:
        checkpoint = app.checkpoint(flag_values.checkpoint or "best")
        start = load_run(flag_values.init_from, checkpoint, flag_values.init_config)
        initial_params, step = start.params, start.step
        check_params(initial_params, abstract_state(experiment).params)
    with jax.set_mesh(mesh):  # which says what rows are this host's
        data = experiment.data()
    say = app.tell if jax.process_index() == 0 else _nowhere
    say(data.summary)
    if flag_values.init_from:
        say(
            f"a new run starts from the weights of step {step} in {one_line(flag_values.init_from)}"
        )
    if flag_values.replay:
        app.refuse(flag_values, ("profile_steps",), "--replay traces nothing")
        replay(experiment, data, run, flag_values.replay, initial_params=initial_params, say=say)
        return
    closing = functools.partial(summary.closing, run, experiment.task)
    try:
        outcome = fit(
            experiment,
            data,
            run,
            initial_params=initial_params,
            profile_steps=profile_steps,
            say=say,
        )
    except Interrupted:
        # That it is saved is what whoever asked has to hear, whatever else cannot be read.
        with contextlib.suppress(StorageError, OSError):
            if jax.process_index() == 0:
                say(f"\n{closing('interrupted')}")
        raise
    if jax.process_index() != 0:
        return
    from launch import following  # noqa: PLC0415  (a tenth of a second, which can wait)

    then = following.commands(experiment.task, data, workdir, config_path)
    say("\n".join(["", closing(outcome.reason), "next:", *(f"  {shown(line)}" for line in then)]))


def _nowhere(line: str) -> None:
    """What all hosts but the first do with a line for a person."""


def default_workdir(config_path: str, config: Mapping[str, Any]) -> str:
    """Names the folder of a run after its experiment and its numbers.

    Args:
      config_path: the experiment file.
      config: the resolved config, plain values.

    Returns:
      `runs/<experiment>-<digest>`; equal configs share a folder, whatever their mesh, and others
      do not.

    Example:
      >>> default_workdir("experiments/char_lm.py", {"seed": 0})
      'runs/char_lm-f6fd5ecd'
    """
    resolved = json.dumps(identity(config), sort_keys=True)
    digest = hashlib.sha256(resolved.encode()).hexdigest()[:8]
    return f"runs/{Path(config_path).stem}-{digest}"


def parse_steps(text: str | None) -> tuple[int, int] | None:
    """Reads `first:last`.

    Raises:
      UserError: it is not two rising positive numbers.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not 0 < int(match[1]) <= int(match[2]):
        raise UserError(f"--profile_steps={text}: expected first:last, as in 10:20")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    app.run(command, __doc__)
