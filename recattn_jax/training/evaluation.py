"""Evaluation: one pass over a split, sums divided last, and what becomes of the predictions."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from recattn_jax.data import Pipeline, Record, Spec, Vocabulary
from recattn_jax.errors import UserError
from recattn_jax.tasks.base import Metric, Scored, reported
from recattn_jax.training import sharding
from recattn_jax.training.experiment import Experiment, MeshShape
from recattn_jax.training.state import Batch, abstract_carry, carry_rows, shardings_of, zeros
from recattn_jax.training.step import PerShape, make_eval_step

See = Callable[[Sequence[Any], Sequence[Record]], None]
"""Takes one prediction a record, and the records."""


class Evaluator:
    """The evaluation step, compiled for the batches of one pipeline on one mesh (which is set).

    Where the task scores predictions, so is the step that predicts.

    Args:
      experiment: model and task.
      params: parameters, or their shapes with shardings.
      pipeline: for the shapes of its batches.
      mesh: the mesh.

    Raises:
      UserError: the pipeline does not fit the experiment or the mesh.
    """

    def __init__(self, experiment: Experiment, params: Any, pipeline: Pipeline, mesh: Mesh):
        check_pipeline(experiment, pipeline, mesh)
        self._task = experiment.task
        self._carry: Any = ()
        places: Any = ()
        if experiment.optimization.carry_state:
            shapes = abstract_carry(experiment, params, pipeline.spec)
            rows = carry_rows(experiment, params, pipeline.spec)
            places = sharding.carry_shardings(shapes, rows, mesh)
            self._carry = jax.jit(lambda: zeros(shapes), out_shardings=places)()
        stored = shardings_of(params)
        everywhere = sharding.replicated(mesh)

        def evaluation(spec: Spec) -> jax.stages.Compiled:
            step = jax.jit(
                make_eval_step(experiment),
                in_shardings=(stored, places, sharding.batch_shardings(spec, mesh)),
                out_shardings=(everywhere, places),
            )
            return step.lower(params, self._carry, dict(spec)).compile()

        def prediction(spec: Spec) -> jax.stages.Compiled:
            def predict(params: Any, batch: Batch) -> Any:
                assert isinstance(experiment.task, Scored)
                predicted = experiment.task.predict(experiment.model, {"params": params}, batch)
                return batch["example"], predicted

            step = jax.jit(
                predict,
                in_shardings=(stored, sharding.batch_shardings(spec, mesh)),
                out_shardings=everywhere,
            )
            return step.lower(params, dict(spec)).compile()

        self._evaluate = PerShape(pipeline.specs, mesh, evaluation)
        if isinstance(experiment.task, Scored):
            self._predict = PerShape(pipeline.specs, mesh, prediction)

    def __call__(self, params: Any, pipeline: Pipeline) -> dict[str, float]:
        """Metrics of one pass over the pipeline, each over all that it counted."""
        carry, pending = self._carry, None
        parts: dict[str, list[Metric]] = {}
        for rows in pipeline.epoch():
            metrics, carry = self._evaluate(params, carry, rows=rows)
            _collect(parts, pending)
            pending = metrics
        _collect(parts, pending)
        return {name: reported(some) for name, some in parts.items()}

    def predictions(self, params: Any, pipeline: Pipeline) -> list[Any]:
        """What a task that scores predicts: a row of every leaf for each record, in their order.

        Raises:
          ValueError: a record is not once in a pass over the pipeline.
        """
        found: list[tuple[int, Any]] = []
        for rows in pipeline.epoch():
            examples_B, predicted = jax.device_get(self._predict(params, rows=rows))
            found += [
                (int(example), jax.tree.map(operator.itemgetter(row), predicted))
                for row, example in enumerate(examples_B)
                if example >= 0
            ]
        found.sort(key=operator.itemgetter(0))
        records = len(pipeline.records or ())
        if [example for example, _ in found] != list(range(records)):
            raise ValueError(f"{len(found)} predictions for {records} records, not one for each")
        return [prediction for _, prediction in found]

    def scores(
        self,
        params: Any,
        pipeline: Pipeline,
        vocabularies: Mapping[str, Vocabulary],
        say: Callable[[str], None] | None,
        see: See | None = None,
    ) -> dict[str, float]:
        """What the task makes of its predictions for one pass; nothing if it scores none.

        Args:
          params: parameters.
          pipeline: what to read, once.
          vocabularies: of the data.
          say: where lines go that explain the scores to a person; None for nowhere.
          see: is shown what was predicted; None for nobody.
        """
        if not isinstance(self._task, Scored) or pipeline.records is None:
            return {}
        predictions = self.predictions(params, pipeline)
        if say is not None:
            say(self._task.explain(predictions, pipeline.records, vocabularies))
        if see is not None:
            see(predictions, pipeline.records)
        return self._task.score(predictions, pipeline.records, vocabularies)


def check_pipeline(experiment: Experiment, pipeline: Pipeline, mesh: Mesh) -> None:
    """Sees to it that a pipeline can be evaluated.

    Raises:
      UserError: the mesh does not divide its batches, the task scores records and it has none, or
        its rows cannot go on from batch to batch and the model's state does.
    """
    for spec in pipeline.specs:
        sharding.check_batch(spec, mesh, 1)
    if isinstance(experiment.task, Scored) and pipeline.records is None:
        raise UserError(
            f"{type(experiment.task).__name__} scores records, and the pipeline has none; make it"
            " with bucketed or packed"
        )
    check_carry(experiment, pipeline)


def check_carry(experiment: Experiment, pipeline: Pipeline) -> None:
    """Sees to it that the model's state is not carried from one example to another.

    Raises:
      UserError: it would be.
    """
    if experiment.optimization.carry_state and pipeline.records is not None:
        raise UserError(
            "carry_state needs rows that go on in the next batch, and rows of examples do not;"
            " set it to False, or use lanes"
        )


def _collect(parts: dict[str, list[Metric]], metrics: Any) -> None:
    if metrics is None:
        return
    for name, metric in jax.device_get(metrics).items():
        parts.setdefault(name, []).append(metric)


def evaluate(
    experiment: Experiment,
    params: Any,
    pipeline: Pipeline,
    vocabularies: Mapping[str, Vocabulary],
    say: Callable[[str], None] | None = None,
    see: See | None = None,
) -> dict[str, float]:
    """Evaluates parameters, with all scores.

    Args:
      experiment: model and task. Its mesh is used where this machine has the devices for it, one
        device otherwise.
      params: parameters.
      pipeline: what to read, once.
      vocabularies: of the data, for scores.
      say: where lines go that explain the scores to a person, such as a confusion matrix; None for
        nowhere.
      see: is shown the predictions of a task that scores, and their records; None for nobody.

    Returns:
      Every metric of the task and every score.

    >>> data = run.experiment.data()  # doctest: +SKIP
    >>> test = data.evaluation["test"]  # doctest: +SKIP
    >>> evaluate(run.experiment, run.params, test, run.vocabularies)  # doctest: +SKIP
    """
    shape = experiment.layout.mesh
    if not sharding.fits(shape, pipeline.specs):
        shape = MeshShape(data=1)
    mesh = sharding.make_mesh(shape)
    with jax.set_mesh(mesh):
        shardings = sharding.follow_parameters(params, params, experiment.layout, mesh)
        params = jax.device_put(params, shardings)
        evaluator = Evaluator(experiment, params, pipeline, mesh)
        metrics = evaluator(params, pipeline)
        return metrics | evaluator.scores(params, pipeline, vocabularies, say, see)
