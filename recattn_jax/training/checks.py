"""What must fit before a run begins: experiment, data and devices."""

import jax
from jax.sharding import Mesh

from recattn_jax.data import Data
from recattn_jax.errors import UserError
from recattn_jax.tasks.base import Scored
from recattn_jax.training import sharding
from recattn_jax.training.evaluation import check_carry, check_pipeline
from recattn_jax.training.experiment import Experiment
from recattn_jax.training.state import TrainState
from recattn_jax.training.step import make_eval_step


def check(experiment: Experiment, data: Data) -> Mesh:
    """Makes the mesh, and sees to it that experiment, data and devices fit, before all else.

    Raises:
      UserError: they do not.
    """
    if "validation" not in data.evaluation:
        raise UserError(f"data has no validation split, only {sorted(data.evaluation)}")
    if dict(data.train.spec) != dict(experiment.batch):
        raise UserError(
            f"the training pipeline gives {dict(data.train.spec)}, the experiment expects"
            f" {dict(experiment.batch)}"
        )
    mesh = sharding.make_mesh(experiment.layout.mesh)
    for spec in data.train.specs:
        sharding.check_batch(spec, mesh, experiment.optimization.accumulate)
    check_carry(experiment, data.train)
    check_pipeline(experiment, data.evaluation["validation"], mesh)
    return mesh


def check_headline(experiment: Experiment, abstract: TrainState) -> None:
    """Sees to it that every evaluation has the number that runs are compared by.

    Raises:
      UserError: it is a score, and not every evaluation scores; or `score_every` fits none.
    """
    task, every, evaluate_every = (
        experiment.task,
        experiment.cadence.score_every,
        experiment.cadence.evaluate_every,
    )
    if not isinstance(task, Scored):
        return
    if every is not None and (every < 1 or every % evaluate_every):
        raise UserError(
            f"cadence: score_every is {every}, must be a multiple of evaluate_every,"
            f" {evaluate_every}, or None"
        )
    step = make_eval_step(experiment)
    metrics, _ = jax.eval_shape(step, abstract.params, abstract.carry, dict(experiment.batch))
    if task.headline not in metrics and every != evaluate_every:
        raise UserError(
            f"cadence: the headline {task.headline} is a score, so every evaluation must score:"
            f" score_every is {every}, must be {evaluate_every}, as evaluate_every is"
        )
