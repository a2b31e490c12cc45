"""Evaluates a trained run and prints one line of JSON.

python -m launch.evaluate --workdir=runs/a --split=validation
"""

import json
from collections.abc import Callable

from absl import flags

from launch import app
from recattn_jax.errors import UserError
from recattn_jax.training.evaluation import evaluate
from recattn_jax.training.runs import load_run


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    app.define_run_flags(flag_values)
    flags.DEFINE_string(
        "split", "validation", "which part of the data to evaluate on", flag_values=flag_values
    )

    def main() -> None:
        run = load_run(app.required(flag_values, "workdir"), app.checkpoint(flag_values.checkpoint))
        data = run.experiment.data()
        if flag_values.split not in data.evaluation:
            known = ", ".join(sorted(data.evaluation))
            raise UserError(f"--split={flag_values.split}: this run's data has {known}")
        metrics = evaluate(run.experiment, run.params, data.evaluation[flag_values.split])
        line = {"workdir": str(run.path), "step": run.step, "split": flag_values.split} | metrics
        print(json.dumps(line), flush=True)

    return argv, main


if __name__ == "__main__":
    app.run(command, __doc__)
