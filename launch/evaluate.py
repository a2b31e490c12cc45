"""Evaluates a trained run and prints one line of JSON; what explains its scores goes to stderr.

  python -m launch.evaluate --workdir=runs/a --split=validation
  python -m launch.evaluate --workdir=runs/b --split=test --beams=4 --length_penalty=0.6

The line names the run, the step of the checkpoint and the split, and has all metrics by name.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from launch import app, search
from recattn_jax import untrusted
from recattn_jax.analysis.figures import MOST_CLASSES, confusion
from recattn_jax.data import Data, Labels, Record
from recattn_jax.errors import UserError
from recattn_jax.tasks.base import Labelled
from recattn_jax.training.evaluation import See, evaluate
from recattn_jax.training.loading import Run, load_run


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    app.define_run_flags(flag_values)
    flags.DEFINE_string(
        "split", "validation", "which part of the data to evaluate on", flag_values=flag_values
    )
    search.define_flags(flag_values)
    flags.DEFINE_string(
        "figure", None, "a PNG to draw a classifier's confusion matrix into",
        flag_values=flag_values,
    )  # fmt: skip

    def main() -> None:
        run = load_run(
            app.required(flag_values, "workdir"),
            app.checkpoint(flag_values.checkpoint),
            flag_values.config,
        )
        run = search.with_search(run, flag_values)
        data = run.experiment.data()
        if flag_values.split not in data.evaluation:
            known = ", ".join(sorted(data.evaluation))
            raise UserError(f"--split={flag_values.split}: this run's data has {known}")
        check_vocabularies(run, data)
        pipeline = data.evaluation[flag_values.split]
        see = drawer(run, Path(flag_values.figure)) if flag_values.figure else None
        metrics = evaluate(run.experiment, run.params, pipeline, run.vocabularies, explain, see)
        line = {"workdir": str(run.path), "step": run.step, "split": flag_values.split}
        print(json.dumps(line | search.given(flag_values) | metrics), flush=True)

    return argv, main


def explain(text: str) -> None:
    """Shows lines about the scores, in which names of classes may come from anybody."""
    print(untrusted.shown(text), file=sys.stderr)


def drawer(run: Run, file: Path) -> See:
    """What draws the confusion matrix of predictions into a file.

    Raises:
      UserError: the task predicts no labels, or the file cannot be a PNG there.
    """
    task = run.experiment.task
    if not isinstance(task, Labelled):
        kind = type(task).__name__
        raise UserError(f"--figure draws a classifier's confusion matrix; {run.path} is a {kind}")
    if file.suffix != ".png" or not file.parent.is_dir() or file.is_dir():
        raise UserError(f"--figure={file}: expected a file.png in a folder that exists")

    labels = [v for v in run.vocabularies.values() if isinstance(v, Labels)]
    most = max(map(len, (v.names for v in labels)), default=0)
    if most > MOST_CLASSES:
        raise UserError(f"--figure: {most} classes, and no more than {MOST_CLASSES} can be drawn")

    def draw(predictions: Sequence[Any], records: Sequence[Record]) -> None:
        counts_CC, names = task.confusion(predictions, records, run.vocabularies)
        confusion(counts_CC, names, file)

    return draw


def check_vocabularies(run: Run, data: Data) -> None:
    """Sees to it that ids mean what they meant in training.

    Raises:
      UserError: the data would make other vocabularies today.
    """
    for name in sorted(run.vocabularies.keys() | data.vocabularies.keys()):
        stored, now = run.vocabularies.get(name), data.vocabularies.get(name)
        if stored is None or now is None or stored.to_json() != now.to_json():
            raise UserError(
                f"the vocabulary {name!r} of {run.path} is not the one that its data make now;"
                " have the training data changed? Evaluate on those that it was trained on"
            )


if __name__ == "__main__":
    app.run(command, __doc__)
