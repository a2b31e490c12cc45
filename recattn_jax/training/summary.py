"""What a person reads of a run: what it is before the first step, and what became of it.

Plain text in columns, at most `WIDTH` characters wide, for a terminal and for a log alike.
"""

import dataclasses
import itertools
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from recattn_jax.data import Pipeline
from recattn_jax.layers import Repeat
from recattn_jax.tasks.base import Task
from recattn_jax.training.experiment import Experiment
from recattn_jax.training.machine import hardware
from recattn_jax.training.metrics import Record, read_records
from recattn_jax.training.runs import RunFolder, read_object
from recattn_jax.training.state import TrainState
from recattn_jax.untrusted import one_line

WIDTH = 100
MOST_LINES = 16
"""Of a model; deeper parts are counted with those that hold them."""
_LABEL = 12


@dataclasses.dataclass(frozen=True)
class Part:
    """A module of a model, or a parameter beside modules, with how many numbers it holds.

    Args:
      name: in paths of parameters, from the part that holds it.
      kind: its class, where that is known.
      size: of all its parameters.
      parts: what it is made of.
    """

    name: str
    kind: str
    size: int
    parts: tuple["Part", ...] = ()


def parts_of(name: str, module: Any, params: Any) -> Part:
    """The parts of a model by name, class and size.

    A module that holds nothing but another one is one part with it.

    Args:
      name: of the whole.
      module: unbound, or anything else where it is not known.
      params: its parameters, or their shapes.

    Example:
      >>> kernel = jax.ShapeDtypeStruct((2, 3), jnp.float32)
      >>> parts_of("model", None, {"dense": {"kernel": kernel}})
      Part(name='model/dense', kind='', size=6, parts=())
    """
    kind = type(module).__name__ if isinstance(module, nn.Module) else ""
    if isinstance(module, Repeat):
        kind = f"Repeat x {module.depth}"
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    if not isinstance(params, Mapping) or not any(
        isinstance(below, Mapping) for below in params.values()
    ):
        return Part(name, kind, size)
    parts = tuple(
        parts_of(key, _field(module, key)[1], params[key])
        for key in sorted(params, key=lambda key: _field(module, key)[0])
    )
    if len(parts) > 1:
        return Part(name, kind, size, parts)
    (only,) = parts
    kinds = " of ".join(filter(None, (kind, only.kind)))
    return Part(f"{name}/{only.name}", kinds, size, only.parts)


def _field(module: Any, key: str) -> tuple[tuple[Any, ...], Any]:
    """Where a module holds what its parameters call `key`, for their order; and what that is."""
    known = isinstance(module, nn.Module)  # and no class, or what else makes one
    names = [field.name for field in dataclasses.fields(module)] if known else []
    stem, index = re.fullmatch(r"(.*?)_?(\d*)", key).groups()  # type: ignore[union-attr]
    numbered = (stem, int(index)) if index else (key, 0)
    if key in names:
        return (names.index(key), *numbered), getattr(module, key)
    if index and stem in names:
        several = getattr(module, stem)
        there = isinstance(several, tuple | list) and int(index) < len(several)
        return (names.index(stem), *numbered), several[int(index)] if there else None
    return (len(names), *numbered), None


def tree(model: Part) -> list[tuple[str, str, str]]:
    """A model as rows of name, class and size, as deep as `MOST_LINES` allow.

    Equal parts that follow each other by number are one row, with the size of all.

    Example:
      >>> tree(Part("model", "Serial", 6, (Part("a_0", "LSTM", 3), Part("a_1", "LSTM", 3))))
      [('model', 'Serial', '6'), ('  a_0 to a_1', 'LSTM x 2', '6')]
    """
    found = list(_rows([model], 1))
    for depth in itertools.count(2):
        deeper = list(_rows([model], depth))
        if len(deeper) > MOST_LINES or len(deeper) == len(found):
            break
        found = deeper
    if len(found) > MOST_LINES:
        left = len(found) - MOST_LINES
        found = [*found[:MOST_LINES], (f"  and {left} parts more", "", "")]
    return found


def _rows(
    parts: Sequence[Part], depth: int, indent: str = "", times: int = 1
) -> Iterator[tuple[str, str, str]]:
    for _, same in itertools.groupby(parts, key=_alike):
        first, *more = same
        count = 1 + len(more)
        name = f"{first.name} to {more[-1].name}" if more else first.name
        kind = f"{first.kind} x {count}".strip() if more else first.kind
        yield indent + one_line(name, 40), one_line(kind, 40), f"{times * count * first.size:,}"
        if depth:
            yield from _rows(first.parts, depth - 1, indent + "  ", times * count)


def _alike(part: Part) -> Part:
    """The part without the number in its name."""
    return dataclasses.replace(part, name=re.sub(r"_\d+", "", part.name, count=1))


def aligned(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Rows of two texts and a number, in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {size:>{widths[2]}}".rstrip()
        for name, kind, size in rows
    ]


def fact(label: str, text: str) -> str:
    """A fact under its label, wrapped."""
    return textwrap.fill(
        one_line(text),
        WIDTH,
        initial_indent=f"{label:<{_LABEL}}",
        subsequent_indent=" " * _LABEL,
        break_on_hyphens=False,
        break_long_words=False,  # paths are to be pasted
    )


def start_up(
    experiment: Experiment, placed: TrainState, mesh: Mesh, pipeline: Pipeline, path: Path
) -> str:
    """What is about to be trained, before the first step of all.

    Args:
      experiment: what.
      placed: the train state's shapes, with shardings.
      mesh: the mesh.
      pipeline: of training.
      path: the run's folder.

    Returns:
      A screenful of lines.
    """
    model = parts_of("model", experiment.model, placed.params)
    model = dataclasses.replace(model, kind=model.kind or type(experiment.model).__name__)
    facts = [
        fact("memory", memory(placed, mesh)),
        fact("devices", devices(mesh)),
        fact("precision", precision(experiment.model, placed.params)),
        fact("batch", batches(experiment, pipeline)),
        fact("steps", schedule(experiment, pipeline)),
        fact("folder", str(path)),
    ]
    return "\n".join(["", *aligned(tree(model)), "", *facts, ""])


def going_on(experiment: Experiment, placed: TrainState, mesh: Mesh, path: Path) -> str:
    """What goes on, in a few lines: most was said before the first step of all.

    Args:
      experiment: what.
      placed: the train state, where it was saved.
      mesh: the mesh, which may be another one than before.
      path: the run's folder.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(placed.params))
    steps = experiment.cadence.steps
    going = f"going on from step {int(placed.step)} of {steps:,} in {path}; {size:,} parameters on"
    return one_line(f"{going} {devices(mesh)}")


def memory(placed: TrainState, mesh: Mesh) -> str:
    """Bytes of what a train state holds: of one copy, and of what each device has.

    Args:
      placed: arrays or their shapes, with shardings.
      mesh: the mesh.
    """
    held = {
        "parameters": placed.params,
        "optimizer": placed.opt_state,
        "average": placed.ema,
        "carried state": placed.carry,
    }
    sizes = {name: whole_bytes(tree) for name, tree in held.items()}
    said = ", ".join(f"{name} {in_bytes(size)}" for name, size in sizes.items() if size)
    if sum(map(bool, sizes.values())) > 1:
        said += f"; {in_bytes(sum(sizes.values()))} in all"
    if mesh.size > 1:
        said += f", {in_bytes(device_bytes(list(held.values())))} of them on each device"
    return said


def whole_bytes(tree: Any) -> int:
    """Bytes of one copy of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def device_bytes(tree: Any) -> int:
    """Bytes that each device holds of a tree whose leaves have shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def in_bytes(size: int | float) -> str:
    """A number of bytes for a person.

    >>> in_bytes(999), in_bytes(1_400_000), in_bytes(48e9)
    ('999 bytes', '1.4 MB', '48 GB')
    """
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}" if size < 10 * unit else f"{size / unit:.0f} {name}"
    return f"{size:.0f} bytes"


def duration(seconds: float) -> str:
    """A time for a person.

    >>> duration(7.2), duration(264.0), duration(5e3), duration(3e4), duration(1e6)
    ('7 s', '4.4 min', '83 min', '8 h 20 min', '11 days 14 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{seconds / 60:.1f} min" if seconds < 600 else f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} days {hours % 24} h"


def devices(mesh: Mesh) -> str:
    """How many devices, of what kind, along which axes."""
    axes = " x ".join(f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1)
    kind = mesh.devices.flat[0].platform
    there = f"{mesh.size} device{'s' if mesh.size > 1 else ''}: {kind}"
    return f"{there} ({hardware()})" + (f", {axes}" if axes else "")


def precision(model: nn.Module, params: Any) -> str:
    """Dtypes of activations, where a frontend sets them, and of stored parameters."""
    computed = sorted({jnp.dtype(dtype).name for dtype in _frontends(model)})
    stored: dict[str, int] = {}
    for leaf in jax.tree.leaves(params):
        stored[leaf.dtype.name] = stored.get(leaf.dtype.name, 0) + leaf.size
    kept = ", ".join(
        name + (f" ({size:,})" if len(stored) > 1 else "") for name, size in sorted(stored.items())
    )
    activations = f"activations {', '.join(computed)}; " if computed else ""
    return f"{activations}parameters stored in {kept}, moments and averages in float32"


def _frontends(module: Any) -> Iterator[Any]:
    """The dtypes that modules of a model set."""
    if isinstance(module, tuple | list):
        for each in module:
            yield from _frontends(each)
    elif isinstance(module, nn.Module):
        for field in dataclasses.fields(module):
            if field.name == "dtype" and module.dtype is not None:
                yield module.dtype
            elif field.name not in ("parent", "name"):
                yield from _frontends(getattr(module, field.name))


def batches(experiment: Experiment, pipeline: Pipeline) -> str:
    """Shapes of the arrays of a batch, the widest where there are several."""
    kinds: dict[str, list[str]] = {}
    for name, spec in experiment.batch.items():
        kind = f"{' x '.join(map(str, spec.shape))} {spec.dtype.name}"
        kinds.setdefault(kind, []).append(name)
    said = "; ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items())
    if len(pipeline.specs) > 1:
        said += f"; the widest of {len(pipeline.specs)} shapes"
    parts = experiment.optimization.accumulate
    return said + (f"; in {parts} parts, gradients added" if parts > 1 else "")


def schedule(experiment: Experiment, pipeline: Pipeline) -> str:
    """How many steps there are, what they make of the data, and what happens between them."""
    cadence = experiment.cadence
    epochs = cadence.steps / pipeline.steps_per_epoch
    times = f"{epochs:,.0f}" if epochs >= 100 else f"{epochs:.3g}"
    said = f"{cadence.steps:,}, or {times} epochs of {pipeline.steps_per_epoch:,} steps"
    said += f"; evaluated every {cadence.evaluate_every:,}, saved every {cadence.save_every:,}"
    if cadence.patience is not None:
        said += f"; stops after {cadence.patience} evaluations without a better one"
    return said


def closing(run: RunFolder, task: Task, reason: str) -> str:
    """What became of a run, as its folder tells, whatever attempts it took.

    Args:
      run: its folder, where nobody trains any more.
      task: of the experiment.
      reason: why it ended.

    Returns:
      Lines, of which the first names the headline, its best value and the folder.
    """
    records = read_records(run.path / "metrics.jsonl")
    evaluations = [record for record in records if record["split"] == "validation"]
    where = f"in {one_line(str(run.path))}"
    if not evaluations:
        return "\n".join([f"{reason} before an evaluation, {where}", *_spent(run, records)])
    sign = -1 if task.maximise else 1
    # In float32, as the state of a run compares them; of equal ones the first.
    best = min(evaluations, key=lambda record: np.float32(sign * record[task.headline]))
    last = evaluations[-1]
    line = f"validation {task.headline} {best[task.headline]:.4f}"
    lines = [f"{line} ({reason}, best at step {best['step']}) {where}"]
    if last is not best:
        lines.append(fact("  last", f"{last[task.headline]:.4f} at step {last['step']}"))
    return "\n".join([*lines, *_spent(run, records), fact("  files", _files(run, best["step"]))])


def _spent(run: RunFolder, records: Sequence[Record]) -> list[str]:
    """The time of all attempts, and at what speed they trained."""
    told = read_object(run.path / "run.json")
    attempts = len(told["attempts"]) + told["forgotten"]["attempts"]
    tries = f" in {attempts} attempts" if attempts > 1 else ""
    speed = mean_speed(records)
    pace = f" at {speed:,.0f} targets/s" if speed else ""
    training, wall = (duration(float(told[key])) for key in ("training_seconds", "wall_seconds"))
    return [fact("  time", f"{training} of training{pace}; {wall} in all{tries}")]


def mean_speed(records: Sequence[Record]) -> float:
    """Targets a second over all lines of training, each of as many targets; 0 where none is.

    >>> line = {"split": "train", "targets_per_second": 1.0}
    >>> mean_speed([line, {**line, "targets_per_second": 3.0}])
    1.5
    """
    speeds = [r["targets_per_second"] for r in records if r.get("targets_per_second")]
    return len(speeds) / sum(1 / speed for speed in speeds) if speeds else 0.0


def _files(run: RunFolder, best: int) -> str:
    """What the folder holds of use, and how large it is."""
    size = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    checkpoint = (run.checkpoints / str(best)).relative_to(run.path)
    return (
        f"{checkpoint} is the best; metrics.jsonl, tensorboard/, model.txt; {in_bytes(size)} in all"
    )
