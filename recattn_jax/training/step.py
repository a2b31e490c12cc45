"""One step of training and one of evaluation, as pure functions."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from recattn_jax.data import Pipeline, Spec
from recattn_jax.training import sharding
from recattn_jax.training.experiment import Experiment
from recattn_jax.training.precision import master
from recattn_jax.training.privacy import private_gradient
from recattn_jax.training.state import Batch, TrainState, bind, carry_rows, shardings_of

STREAMS = ("dropout", "variational")


def make_gradient(experiment: Experiment) -> Callable[[TrainState, Batch], Any]:
    """Builds the pure `(state, batch) -> (gradient, metrics, carry)` of a step.

    The gradient is that of sum(total) / sum(weight) over all micro-batches, so it does not depend
    on how the batch was cut; a private one is that of `Privacy`. It is float32, and like the
    parameters; metrics are (total, weight) pairs, carry is the model's state after the batch.
    """
    model, task, how = experiment.model, experiment.task, experiment.optimization

    def total_loss(params: Any, batch: Batch, carry: Any, key: jax.Array) -> Any:
        rngs = dict(zip(STREAMS, jax.random.split(key, len(STREAMS)), strict=True))
        # The carry is an input of the step, so no gradient flows into the steps before.
        start = carry if how.carry_state else None
        metrics, carry = task(bind(model, params, rngs), batch, start)
        return metrics["loss"].total, (metrics, carry if how.carry_state else ())

    def mean_gradient(state: TrainState, batch: Batch) -> Any:
        key = jax.random.fold_in(jax.random.key(experiment.seed), state.step)
        if how.privacy is None:
            gradient = jax.grad(total_loss, has_aux=True)
        else:
            gradient = private_gradient(total_loss, how.privacy, how.accumulate)
        if how.accumulate == 1:
            grads, (metrics, carry) = gradient(state.params, batch, state.carry, key)
        else:
            grads, metrics, carry = accumulate(gradient, state, batch, key)
        # Private gradients are means of rows, whose number tells nothing.
        rows = jax.tree.leaves(batch)[0].shape[0]
        weight = metrics["loss"].weight if how.privacy is None else rows
        return jax.tree.map(lambda g: g / weight, master(grads)), metrics, carry

    def accumulate(gradient: Any, state: TrainState, batch: Batch, key: jax.Array) -> Any:
        n = how.accumulate
        rows = carry_rows(experiment, state.params, batch) if how.carry_state else ()
        batches = jax.tree.map(lambda x: cut(x, 0, n), batch)
        carries = jax.tree.map(lambda x, axis: cut(x, axis, n), state.carry, rows)

        def one(part: Any) -> Any:
            index, batch, carry = part
            grads, (metrics, carry) = gradient(
                state.params, batch, carry, jax.random.fold_in(key, index)
            )
            return (master(grads), metrics), carry

        def add(sums: Any, part: Any) -> Any:
            more, carry = one(part)
            return jax.tree.map(jnp.add, sums, more), carry

        parts = (jnp.arange(n), batches, carries)
        shapes, _ = jax.eval_shape(one, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        (grads, metrics), carries = jax.lax.scan(add, zeros, parts)
        return grads, metrics, jax.tree.map(uncut, carries, rows)

    return mean_gradient


def make_train_step(experiment: Experiment) -> Callable[[TrainState, Batch], Any]:
    """Builds the pure step `(state, batch) -> (state, (metrics, numbers))`.

    Metrics are (total, weight) pairs; numbers are plain: `grad_norm`, `learning_rate`, and with
    `skip_nonfinite` also `skipped`, all steps so far that were left out, and `skipped_in_a_row`.
    """
    how, gradient = experiment.optimization, make_gradient(experiment)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Any]:
        grads, metrics, carry = gradient(state, batch)
        norm = optax.tree.norm(grads)
        if how.skip_nonfinite:
            # What is left out is what the loop would stop at, and not a single gradient alone.
            sound = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"].total)
            grads = jax.tree.map(lambda g: jnp.where(sound, g, jnp.nan), grads)
        updates, opt_state = how.transformation.update(grads, state.opt_state, master(state.params))
        params = optax.apply_updates(state.params, updates)
        ema, taken, skips = averaged(state, params), state.step, {}
        if how.skip_nonfinite:
            counts = opt_state
            # The optimizer sees to its own state and to the parameters.
            ema, carry = jax.tree.map(
                lambda new, old: jnp.where(counts.last_finite, new, old),
                (ema, carry),
                (state.ema, state.carry),
            )
            taken = state.step - state.opt_state.total_notfinite  # which its schedule counts
            skips = {
                "skipped": counts.total_notfinite,
                "skipped_in_a_row": counts.notfinite_count,
            }
        numbers = {"grad_norm": norm, "learning_rate": rate(taken), **skips}
        new = dataclasses.replace(
            state, step=state.step + 1, params=params, opt_state=opt_state, ema=ema, carry=carry
        )
        return new, (metrics, numbers)

    def averaged(state: TrainState, params: Any) -> Any:
        if how.ema_decay is None:
            return None
        # Short memory first, or the average would start with many steps of initial parameters.
        steps = state.step.astype(jnp.float32)
        decay = jnp.minimum(how.ema_decay, (1.0 + steps) / (10.0 + steps))
        return optax.incremental_update(master(params), state.ema, 1.0 - decay)

    def rate(step: jax.Array) -> jax.Array:
        return jnp.asarray(how.learning_rate(step), jnp.float32)

    return train_step


class PerShape:
    """A function of a batch, compiled once for each shape that its pipeline has.

    Called with all arguments but the last, and with this host's rows in place of the last.

    Args:
      specs: shapes and dtypes of the global batches.
      mesh: where the rows go.
      compiled: compiles it for one of them.

    Raises:
      ValueError: when called with rows of another shape.
    """

    def __init__(
        self,
        specs: Sequence[Spec],
        mesh: Mesh,
        compiled: Callable[[Spec], Callable[..., Any]],
    ):
        self._compiled = {
            _widths(spec): (compiled(spec), spec, sharding.batch_shardings(spec, mesh))
            for spec in specs
        }

    def __call__(self, *arguments: Any, rows: Batch) -> Any:
        if _widths(rows) not in self._compiled:
            raise ValueError(f"a batch of {_widths(rows)}, which none of the specs says")
        step, spec, shardings = self._compiled[_widths(rows)]
        return step(*arguments, sharding.place(rows, spec, shardings))


def _widths(batch: Mapping[str, Any]) -> tuple[Any, ...]:
    """The shape of a batch but for its rows, of which a host has some only."""
    return tuple((name, batch[name].shape[1:]) for name in sorted(batch))


def jit_train_step(
    experiment: Experiment, shardings: TrainState, mesh: Mesh, batch: Spec
) -> jax.stages.Wrapped:
    """The step for a mesh, which is set; the state that goes in is donated.

    Args:
      experiment: what to train.
      shardings: where the leaves of the state live.
      mesh: the mesh.
      batch: shapes of the batch.
    """
    return jax.jit(
        make_train_step(experiment),
        in_shardings=(shardings, sharding.batch_shardings(batch, mesh)),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )


def compile_train_step(
    experiment: Experiment, abstract: TrainState, shardings: TrainState, mesh: Mesh, batch: Spec
) -> jax.stages.Compiled:
    """Compiles the step of `jit_train_step` for a state of the shapes of `abstract`."""
    step = jit_train_step(experiment, shardings, mesh, batch)
    return step.lower(abstract, dict(batch)).compile()


def train_steps(
    experiment: Experiment, pipeline: Pipeline, abstract: TrainState, mesh: Mesh
) -> PerShape:
    """The training step for every shape of a pipeline's batches, compiled at once.

    Where JAX looks for NaN (`jax.debug_nans`), each is compiled when it is called first: only such
    a program can be taken apart, to name the operation.

    Args:
      experiment: what to train.
      pipeline: for the shapes of its batches.
      abstract: shapes of the state, with shardings.
      mesh: the mesh, which is set.
    """
    shardings = shardings_of(abstract)

    def step(spec: Spec) -> Callable[..., Any]:
        if jax.debug_nans.value:
            return jit_train_step(experiment, shardings, mesh, spec)
        return compile_train_step(experiment, abstract, shardings, mesh, spec)

    return PerShape(pipeline.specs, mesh, step)


def make_eval_step(experiment: Experiment) -> Callable[[Any, Any, Batch], Any]:
    """Builds `(params, carry, batch) -> (metrics, carry)`, without noise."""
    how = experiment.optimization

    def eval_step(params: Any, carry: Any, batch: Batch) -> Any:
        start = carry if how.carry_state else None
        metrics, carry = experiment.task(bind(experiment.model, params, {}), batch, start)
        return metrics, carry if how.carry_state else ()

    return eval_step


def cut(x: jax.Array, axis: int, n: int) -> jax.Array:
    """Cuts rows into n micro-batches, every n-th row together: `[n, ..., rows / n, ...]`.

    Neighbouring rows live on one device, so each device keeps its rows.
    """
    shape = x.shape
    x = x.reshape(*shape[:axis], shape[axis] // n, n, *shape[axis + 1 :])
    return jnp.moveaxis(x, axis + 1, 0)


def uncut(x: jax.Array, axis: int) -> jax.Array:
    """Undoes `cut`."""
    x = jnp.moveaxis(x, 0, axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
