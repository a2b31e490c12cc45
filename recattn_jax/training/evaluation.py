"""Evaluation: one ordered pass over a split, sums divided last."""

import math
from typing import Any

import jax
from jax.sharding import Mesh

from recattn_jax.data import Pipeline
from recattn_jax.training import sharding
from recattn_jax.training.experiment import Experiment, MeshShape
from recattn_jax.training.state import abstract_carry, carry_rows, zeros
from recattn_jax.training.step import make_eval_step


class Evaluator:
    """The evaluation step, compiled for the batches of one pipeline on one mesh (which is set).

    Args:
      experiment: model and task.
      params: parameters, or their shapes with shardings.
      pipeline: for the shapes of its batches.
      mesh: the mesh.

    Raises:
      UserError: the mesh does not divide the pipeline's batches.
    """

    def __init__(self, experiment: Experiment, params: Any, pipeline: Pipeline, mesh: Mesh):
        sharding.check_batch(pipeline.spec, mesh, 1)
        self._spec = pipeline.spec
        self._shardings = sharding.batch_shardings(pipeline.spec, mesh)
        self._carry: Any = ()
        places: Any = ()
        if experiment.optimization.carry_state:
            shapes = abstract_carry(experiment, params, pipeline.spec)
            rows = carry_rows(experiment, params, pipeline.spec)
            places = sharding.carry_shardings(shapes, rows, mesh)
            self._carry = jax.jit(lambda: zeros(shapes), out_shardings=places)()
        stored = jax.tree.map(lambda leaf: leaf.sharding, params)
        step = jax.jit(
            make_eval_step(experiment),
            in_shardings=(stored, places, self._shardings),
            out_shardings=(sharding.replicated(mesh), places),
        )
        self._step = step.lower(params, self._carry, dict(pipeline.spec)).compile()

    def __call__(self, params: Any, pipeline: Pipeline) -> dict[str, float]:
        """Metrics of one pass over the pipeline, each a mean over all that it counted."""
        carry, pending = self._carry, None
        sums: dict[str, list[tuple[float, float]]] = {}
        for rows in pipeline.epoch():
            batch = sharding.place(rows, self._spec, self._shardings)
            metrics, carry = self._step(params, carry, batch)
            _collect(sums, pending)
            pending = metrics
        _collect(sums, pending)
        return {name: _divide(pairs) for name, pairs in sums.items()}


def _collect(sums: dict[str, list[tuple[float, float]]], metrics: Any) -> None:
    if metrics is None:
        return
    for name, mean in jax.device_get(metrics).items():
        sums.setdefault(name, []).append((float(mean.total), float(mean.weight)))


def _divide(pairs: list[tuple[float, float]]) -> float:
    weight = math.fsum(weight for _, weight in pairs)
    return math.fsum(total for total, _ in pairs) / weight if weight else math.nan


def evaluate(experiment: Experiment, params: Any, pipeline: Pipeline) -> dict[str, float]:
    """Evaluates parameters, as in `evaluate(run.experiment, run.params, data.evaluation["test"])`.

    Args:
      experiment: model and task. Its mesh is used where this machine has the devices for it, one
        device otherwise.
      params: parameters.
      pipeline: what to read, once and in order.

    Returns:
      Every metric of the task, as a mean.
    """
    shape = experiment.layout.mesh
    if not sharding.fits(shape, pipeline.spec):
        shape = MeshShape(data=1)
    mesh = sharding.make_mesh(shape)
    with jax.set_mesh(mesh):
        shardings = sharding.follow_parameters(params, params, experiment.layout, mesh)
        params = jax.device_put(params, shardings)
        return Evaluator(experiment, params, pipeline, mesh)(params, pipeline)
