"""All that a run needs to go on: one pytree, created where it will live."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh

from recattn_jax.errors import UserError
from recattn_jax.training import sharding
from recattn_jax.training.experiment import Experiment
from recattn_jax.training.precision import master, store

Batch = Mapping[str, Any]


@struct.dataclass
class Stopping:
    """Counters of early stopping.

    Args:
      best: best headline so far, the lowest or, where the task maximises it, the highest, f32[].
      best_step: its step, i32[].
      worse: evaluations in a row that were no better, i32[].
    """

    __no_type_check__ = True

    best: jax.Array
    best_step: jax.Array
    worse: jax.Array


@struct.dataclass
class TrainState:
    """State of training after `step` steps.

    Args:
      step: i32[]; also the position in the data, and what noise is made from.
      params: parameters, as the storage policy wants them.
      opt_state: the optimizer's, float32.
      ema: moving average of `params` in float32, or None.
      carry: the model's state for truncated backpropagation, or ().
      stopping: counters of early stopping.
    """

    __no_type_check__ = True

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any
    carry: Any
    stopping: Stopping


def bind(model: nn.Module, params: Any, rngs: dict[str, jax.Array]) -> Any:
    """The model with its parameters: `(inputs, state, context) -> (outputs, state)`, as a rule.

    Args:
      model: unbound module.
      params: its parameters.
      rngs: streams of noise; none turns noise off.

    Returns:
      `tasks.Apply`; with `method="compare"` the model's own, or its call and then the comparison.
    """

    def apply(*inputs: Any, method: str = "__call__") -> Any:
        return model.apply({"params": params}, *inputs, rngs=rngs, method=_method(model, method))

    return apply


def _method(model: nn.Module, name: str) -> str | Callable[..., Any]:
    """A method of a model; `compare`, where it has none, is its call and then the comparison."""
    if name != "compare" or hasattr(model, name):
        return name

    def compare(model: nn.Module, comparison: Any, labels: Any, *inputs: Any) -> tuple[Any, Any]:
        predictions, state = model(*inputs)
        return comparison(predictions, labels), state

    return compare


def init_params(experiment: Experiment, seed: jax.Array | int) -> Any:
    """Fresh parameters, stored as the policy says; jit it with shardings where they are large."""
    found: dict[str, Any] = {}

    # The task alone knows how its batch becomes the model's inputs, so it drives this.
    def apply(*inputs: Any, method: str = "__call__") -> Any:
        result, variables = experiment.model.init_with_output(
            {"params": jax.random.key(seed)}, *inputs, method=_method(experiment.model, method)
        )
        found.update(variables)
        return result

    experiment.task(apply, zeros(experiment.batch), None)
    return store(found["params"], experiment.layout.storage)


def initial_state(experiment: Experiment, params: Any) -> TrainState:
    """The state before the first step.

    Args:
      experiment: what will be trained.
      params: as `init_params` gives them.
    """
    optimization = experiment.optimization
    carry: Any = ()
    if optimization.carry_state:
        carry = zeros(abstract_carry(experiment, params, experiment.batch))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimization.transformation.init(master(params)),
        ema=None if optimization.ema_decay is None else master(params),
        carry=carry,
        stopping=Stopping(
            best=jnp.full((), -jnp.inf if experiment.task.maximise else jnp.inf, jnp.float32),
            best_step=jnp.zeros((), jnp.int32),
            worse=jnp.zeros((), jnp.int32),
        ),
    )


def abstract_carry(experiment: Experiment, params: Any, batch: Batch) -> Any:
    """Shapes of the model's state after a batch of these shapes."""
    return jax.eval_shape(
        lambda p, b: experiment.task(bind(experiment.model, p, {}), b, None)[1], params, batch
    )


def carry_rows(experiment: Experiment, params: Any, batch: Batch) -> Any:
    """For each leaf of the model's state, the axis of its rows: the one that follows the batch.

    It is axis 0 but for stacked layers, which come first there.
    """
    double = {
        name: jax.ShapeDtypeStruct((2 * spec.shape[0], *spec.shape[1:]), spec.dtype)
        for name, spec in batch.items()
    }

    def axis(one: Any, two: Any) -> int:
        return next(i for i, n in enumerate(one.shape) if two.shape[i] != n)

    return jax.tree.map(
        axis,
        abstract_carry(experiment, params, batch),
        abstract_carry(experiment, params, double),
    )


def abstract_state(experiment: Experiment) -> TrainState:
    """Shapes and dtypes of the train state; nothing is computed.

    Raises:
      UserError: a carried state is wanted of a model that does not stream.
    """
    if experiment.optimization.carry_state and not experiment.model.streams:
        raise UserError(
            "carry_state needs a model that streams: give every attention a window, and use"
            " nothing that looks ahead"
        )
    return jax.eval_shape(lambda: initial_state(experiment, init_params(experiment, 0)))


def state_shardings(experiment: Experiment, abstract: TrainState, mesh: Mesh) -> TrainState:
    """Where each leaf of the train state lives.

    Args:
      experiment: for its rules.
      abstract: as `abstract_state` gives it.
      mesh: the mesh.
    """
    shardings = sharding.follow_parameters(abstract, abstract.params, experiment.layout, mesh)
    if experiment.optimization.carry_state:
        rows = carry_rows(experiment, abstract.params, experiment.batch)
        carry = sharding.carry_shardings(abstract.carry, rows, mesh)
        shardings = dataclasses.replace(shardings, carry=carry)
    return shardings


def placed_state(experiment: Experiment, mesh: Mesh) -> TrainState:
    """Shapes and dtypes of the train state with where each leaf lives, as a restore wants them."""
    abstract = abstract_state(experiment)
    return jax.tree.map(
        lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p),
        abstract,
        state_shardings(experiment, abstract, mesh),
    )


def shardings_of(placed: Any) -> Any:
    """Where each leaf lives, of arrays or of shapes that say it."""
    return jax.tree.map(lambda leaf: leaf.sharding, placed)


def create_state(
    experiment: Experiment, shardings: TrainState, initial_params: Any = None
) -> TrainState:
    """The state before the first step, each device making only its own part.

    Args:
      experiment: what will be trained.
      shardings: as `state_shardings` gives them.
      initial_params: parameters to start from instead of fresh ones, see `check_params`.
    """
    if initial_params is None:

        def make(seed: jax.Array) -> TrainState:
            return initial_state(experiment, init_params(experiment, seed))

        if jax.default_backend() == "cpu":
            # CPU devices share one memory and the same cores: nothing is gained by making parts.
            with jax.set_mesh(jax.sharding.Mesh(np.empty((), object), ())):
                return jax.device_put(jax.jit(make)(experiment.seed), shardings)
        return jax.jit(make, out_shardings=shardings)(experiment.seed)
    start = jax.jit(
        lambda params: initial_state(experiment, store(params, experiment.layout.storage)),
        out_shardings=shardings,
    )
    return start(jax.device_put(initial_params, shardings.params))


def check_params(given: Any, wanted: Any) -> None:
    """Sees to it that given parameters fit a model.

    Raises:
      UserError: names the first parameter that is missing, superfluous or of another shape.
    """

    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {sharding.path_name(path): leaf.shape for path, leaf in leaves}

    have, want = shapes(given), shapes(wanted)
    for name in sorted(have.keys() | want.keys()):
        if name not in have:
            raise UserError(f"initial parameters lack {name} {want[name]}; is it the same model?")
        if name not in want:
            raise UserError(f"initial parameters hold {name}, which this model does not have")
        if have[name] != want[name]:
            raise UserError(f"initial parameter {name} is {have[name]}, the model has {want[name]}")


def zeros(specs: Any) -> Any:
    """Zeros of these shapes and dtypes."""
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), specs)
