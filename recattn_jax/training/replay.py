"""One step of a run again, from the checkpoint before it, to see where it went wrong."""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from recattn_jax.data import Data
from recattn_jax.errors import NonFiniteError, UserError
from recattn_jax.training.checkpoints import Checkpoints
from recattn_jax.training.checks import check
from recattn_jax.training.experiment import Experiment
from recattn_jax.training.metrics import mean_values, read_records
from recattn_jax.training.precision import path_name
from recattn_jax.training.runs import RunFolder
from recattn_jax.training.state import Batch, TrainState, create_state, placed_state, shardings_of
from recattn_jax.training.step import PerShape, make_gradient, train_steps
from recattn_jax.training.watch import examples_of, not_finite

_NAMED = 5


def replay(
    experiment: Experiment,
    data: Data,
    run: RunFolder,
    step: int,
    *,
    initial_params: Any = None,
    say: Callable[[str], None] = print,
) -> None:
    """Repeats a step, with the very state and batch that it had, and says what it finds.

    The run goes on from its last good checkpoint before the step; steps are repeatable, so the
    state before it has the same bits. Nothing is written.

    Args:
      experiment: of the run.
      data: `experiment.data()`, opened.
      run: its folder.
      step: the step to repeat, from 1.
      initial_params: what the run started from, where it was given; no checkpoint is older.
      say: where plain lines for a person go.

    Raises:
      UserError: there is no such step.
      NonFiniteError: its loss or its gradient is not finite; names the first layer to blame.
      StorageError: no checkpoint before it is good.

    Example:
      replay(experiment, experiment.data(), RunFolder.open("runs/a", ...), step=57)
    """
    if not 1 <= step <= experiment.cadence.steps:
        raise UserError(f"--replay={step}: the run has steps 1 to {experiment.cadence.steps}")
    if not (run.path / "config.json").is_file():
        raise UserError(f"--replay={step}: there is no run in {run.path}; name it by --workdir")
    mesh = check(experiment, data)
    debug = jax.debug_nans.value
    # JAX would stop at the first number that is none, and this is here to tell of all of them.
    with jax.set_mesh(mesh), jax.debug_nans(False):
        wanted = placed_state(experiment, mesh)
        state = _state_before(experiment, data, run, step, wanted, initial_params, say)
        taken = train_steps(experiment, data.train, wanted, mesh)
        with contextlib.closing(data.train.batches(int(state.step))) as batches:
            while int(state.step) < step - 1:
                state, _ = taken(state, rows=next(batches))
            rows = next(batches)
        bad_params = _not_finite_in(state.params)
        layers, bad_gradients = _look(experiment, data, mesh, state, rows)
        cause = _operation(experiment, data, mesh, state, rows) if debug else None
        _, (metrics, numbers) = taken(state, rows=rows)
        values = mean_values(jax.device_get(metrics))
        values["grad_norm"] = float(numbers["grad_norm"])
    examples = examples_of(rows)
    batch = f"step {step}, batch {step - 1} of the training pipeline"
    say(batch + (f", examples {', '.join(map(str, examples))}" if examples else ""))
    then = _as_then(run, step, values)
    say(f"loss {values['loss']:.7g}, gradient norm {values['grad_norm']:.7g}{then}")
    for what, found in (
        ("parameters that were not finite before it", bad_params),
        ("layers that made of what is finite what is not", layers),
        ("parameters whose gradient is not finite", bad_gradients),
    ):
        say(f"{what}: {_listed(found)}")
    wrong = not_finite(values)
    if wrong:
        blame = f"the first to blame is {layers[0]}" if layers else "no layer is to blame"
        raise NonFiniteError(f"{wrong} at step {step}, as it was taken; {blame}") from cause


def _state_before(
    experiment: Experiment,
    data: Data,
    run: RunFolder,
    step: int,
    wanted: TrainState,
    initial_params: Any,
    say: Callable[[str], None],
) -> TrainState:
    """The newest state that the run has from before a step."""
    state = None
    if run.checkpoints.is_dir():
        checkpoints = Checkpoints(run.checkpoints, keep=1, say=say, read_only=True)
        with contextlib.closing(checkpoints):
            state, _ = checkpoints.restore(wanted, data.train.fingerprint, before=step)
    if state is None:
        say("from the start, since there is no earlier checkpoint")
        return create_state(experiment, shardings_of(wanted), initial_params)
    say(f"from the checkpoint of step {int(state.step)}")
    return state


class _Probes:
    """Notes which calls of modules made something that is not finite of what was."""

    def __init__(self) -> None:
        self._calls: list[tuple[tuple[str, ...], str]] = []
        self._bad: set[int] = set()

    def intercept(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        """For `nn.intercept_methods`: the call itself, looked at when its program runs."""
        result = call(*args, **kwargs)
        module = context.module
        if context.method_name == "__call__" and module.path:
            broke = _finite((args, kwargs)) & ~_finite(result)
            jax.debug.callback(partial(self._see, len(self._calls)), broke)
            self._calls.append((module.path, type(module).__name__))
        return result

    def _see(self, number: int, broke: Any) -> None:
        if broke.any():
            self._bad.add(number)

    def found(self) -> list[str]:
        """The innermost of these, in the order of the forward pass, once all programs have run."""
        jax.effects_barrier()
        calls = dict.fromkeys(self._calls[number] for number in sorted(self._bad))
        return [
            f"{'/'.join(path)} ({kind})"
            for path, kind in calls
            if not any(path == inner[: len(path)] for inner, _ in calls if inner != path)
        ]


def _finite(tree: Any) -> jax.Array:
    """Whether all floating arrays in a tree are finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in floats]).all()


def _gradient(experiment: Experiment, data: Data, mesh: Mesh) -> PerShape:
    """The gradient of a step alone; it is compiled when it is called, and donates nothing."""
    return PerShape(data.train.specs, mesh, lambda _: jax.jit(make_gradient(experiment)))


def _look(
    experiment: Experiment, data: Data, mesh: Mesh, state: TrainState, rows: Batch
) -> tuple[list[str], list[str]]:
    """Layers that go wrong in a step, and parameters whose gradient is not finite."""
    probes = _Probes()
    with nn.intercept_methods(probes.intercept):
        gradients, _, _ = _gradient(experiment, data, mesh)(state, rows=rows)
    return probes.found(), _not_finite_in(gradients)


def _operation(
    experiment: Experiment, data: Data, mesh: Mesh, state: TrainState, rows: Batch
) -> FloatingPointError | None:
    """What JAX says when it takes a step apart, operation by operation; it may take minutes."""
    try:
        with jax.debug_nans(True):
            _gradient(experiment, data, mesh)(state, rows=rows)
    except FloatingPointError as error:
        return error
    return None


def _not_finite_in(tree: Any) -> list[str]:
    """Paths of the leaves of a tree that are not finite."""
    finite = jax.device_get(jax.jit(partial(jax.tree.map, lambda x: jnp.isfinite(x).all()))(tree))
    return [
        path_name(path) for path, good in jax.tree_util.tree_leaves_with_path(finite) if not good
    ]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (", ".join(names[:_NAMED]) or "none") + more


def _as_then(run: RunFolder, step: int, values: Mapping[str, float]) -> str:
    """Whether the log says the same of the step, where it says anything."""
    for record in read_records(run.path / "metrics.jsonl"):
        if record["step"] == step and record["split"] == "train":
            same = all(record[name] == values[name] for name in ("loss", "grad_norm"))
            return ", as in the log" if same else f"; but the log says loss {record['loss']:.7g}"
        if record["step"] == step and record["split"] == "nonfinite":
            same = record["what"] == not_finite(values)
            return ", as in the log" if same else f"; but the log says {record['what']}"
    return ""
