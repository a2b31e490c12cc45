"""What a person reads of a run: its numbers against other counts, its form on any terminal."""

import dataclasses
import functools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn

from recattn_jax.tasks import LanguageModel
from recattn_jax.training import MeshShape, summary
from recattn_jax.training.checks import check
from recattn_jax.training.metrics import read_records
from recattn_jax.training.precision import path_name
from recattn_jax.training.state import placed_state
from tests.training.toy import Recurrence, hybrid, run_folder, toy, train

CALM = str.maketrans({chr(code): None for code in [*range(32, 127), 10]})


def placed(**changes):
    if "model" in changes and not isinstance(changes["model"], Recurrence):
        changes["task"] = LanguageModel(separator=15, symbol="char")
    experiment, data = toy(**changes)
    mesh = check(experiment, data)
    with jax.set_mesh(mesh):
        return experiment, data, mesh, placed_state(experiment, mesh)


def adds_up(part):
    assert not part.parts or part.size == sum(below.size for below in part.parts), part
    assert all(map(adds_up, part.parts))
    return True


@pytest.mark.parametrize("model", [hybrid(64, depth=3), Recurrence(16, 64, 0.1)])
def test_every_parameter_is_counted_once(model):
    _, _, _, state = placed(model=model)
    whole = summary.parts_of("model", model, state.params)
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    assert whole.size == sum(math.prod(leaf.shape) for _, leaf in leaves)
    assert adds_up(whole)
    rows = summary.tree(whole)
    assert rows[0] == ("model", type(model).__name__, f"{whole.size:,}")
    for part in whole.parts:
        below = sum(leaf.size for path, leaf in leaves if path_name(path).startswith(part.name))
        assert part.size == below > 0
        assert [f"{below:,}"] == [size for name, _, size in rows if name == f"  {part.name}"]


def test_layers_that_are_repeated_say_how_often():
    model = hybrid(64, depth=3)
    rows = summary.tree(summary.parts_of("model", model, placed(model=model)[3].params))
    kinds = [kind for _, kind, _ in rows]
    assert kinds[:2] == ["SequenceModel", "Embed"]
    assert "Repeat x 3 of Residual of Serial" in kinds
    twins = tuple(summary.Part(f"layers_{n}", "LSTM", 5) for n in range(4))
    other = summary.Part("layers_4", "LSTM", 6)
    rows = summary.tree(summary.Part("model", "Serial", 26, (*twins, other)))
    assert rows[1:] == [("  layers_0 to layers_3", "LSTM x 4", "20"), ("  layers_4", "LSTM", "6")]


def test_layers_come_in_the_order_of_the_model():
    model = nn.Sequential([nn.Dense(2) for _ in range(12)])
    params = {f"layers_{n}": {"kernel": np.zeros((2, n + 1))} for n in range(12)}
    names = [part.name for part in summary.parts_of("model", model, params).parts]
    assert names == [f"layers_{n}" for n in range(12)]


def test_parts_may_be_made_by_classes_and_functions_of_their_name():
    class Made(nn.Module):
        dense: Callable = functools.partial(nn.Sequential, [nn.Dense(2)])
        block: type = nn.Sequential

    below = {"layers_0": {"kernel": np.zeros((2, 3))}, "layers_1": {"kernel": np.zeros(4)}}
    whole = summary.parts_of("model", Made(), {"dense": below, "block": below})
    assert [(part.name, part.kind, part.size) for part in whole.parts] == [
        ("dense", "", 10),
        ("block", "", 10),
    ]


@pytest.mark.parametrize("count", [3, 15, 40])
def test_a_model_fits_a_screen(count):
    inner = tuple(summary.Part(f"{kind}_layer", kind, 1) for kind in "abcde")
    parts = tuple(summary.Part(f"part{n}", f"K{n}", 5, inner) for n in range(count))
    rows = summary.tree(summary.Part("model", "", 5 * count, parts))
    assert len(rows) <= summary.MOST_LINES + 1
    assert (count > 15) == (rows[-1][0] == f"  and {count + 1 - 16} parts more")


def test_memory_is_that_of_the_shards():
    changes = {"model": hybrid(64), "ema_decay": 0.9, "carry_state": True}
    _, _, mesh, state = placed(mesh=MeshShape(data=2, fsdp=2, model=2), **changes)
    arrays = jax.tree.map(
        lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding), state
    )
    device = jax.devices()[3]
    held = [
        sum(
            shard.data.nbytes
            for leaf in jax.tree.leaves(tree)
            for shard in leaf.addressable_shards
            if shard.device == device
        )
        for tree in (arrays.params, arrays.opt_state, arrays.ema, arrays.carry)
    ]
    assert min(held) > 0
    parts = [state.params, state.opt_state, state.ema, state.carry]
    assert [summary.device_bytes(part) for part in parts] == held
    arrays = [jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), part) for part in parts]
    sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(part)) for part in arrays]
    assert [summary.whole_bytes(part) for part in parts] == sizes and sum(held) < sum(sizes)
    words = zip(("parameters", "optimizer", "average", "carried state"), sizes, strict=True)
    said = ", ".join(f"{name} {summary.in_bytes(size)}" for name, size in words)
    assert summary.memory(state, mesh) == (
        f"{said}; {summary.in_bytes(sum(sizes))} in all, {summary.in_bytes(sum(held))} of them on"
        " each device"
    )
    assert summary.devices(mesh).startswith("8 devices: cpu (")
    assert summary.devices(mesh).endswith("), data=2 x fsdp=2 x model=2")


def test_it_is_plain_text_that_fits():
    """Also where names of modules and of the folder would steer a terminal."""

    class Named(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="red\x1b[31m" + 300 * "x")(x)

    storage = (("embed", jax.numpy.bfloat16),)
    experiment, data, mesh, state = placed(
        mesh=MeshShape(data=4, fsdp=2), patience=3, accumulate=1, storage=storage
    )
    path = Path("runs/\x1b[31m/" + "word " * 50)
    text = summary.start_up(experiment, state, mesh, data.train, path)
    named = summary.parts_of("model", Named(), {"red\x1b[31m" + 300 * "x": {"a": np.zeros(3)}})
    shown = summary.aligned(summary.tree(named))
    text += "\n".join(shown)
    assert "\\x1b[31m" in text and not text.replace("…", "").translate(CALM)
    assert max(map(len, text.splitlines())) <= summary.WIDTH
    told = {line[:12].strip(): line[12:] for line in text.splitlines() if line[:1].isalpha()}
    assert told["steps"].startswith(
        "12, or 1.2 epochs of 10 steps; evaluated every 4, saved every 3"
    )
    assert "bfloat16 (1,024), float32 (" in told["precision"]
    state = dataclasses.replace(state, step=np.int32(7))
    again = summary.going_on(experiment, state, mesh, path)
    assert again.startswith("going on from step 7 of 12 in runs/\\x1b[31m/word ")
    assert (
        f"; {sum(leaf.size for leaf in jax.tree.leaves(state.params)):,} parameters on 8" in again
    )
    assert told["batch"] == "8 x 12 int32 inputs, targets, segments"


def test_the_end_is_told_from_the_folder_alone(tmp_path):
    outcome, _ = train(tmp_path / "run", steps=12)
    run = run_folder(tmp_path / "run")
    records = [r for r in read_records(run.path / "metrics.jsonl") if r["split"] == "validation"]
    experiment, _ = toy()
    best = f"{min(record['loss'] for record in records):.4f}"
    first, *others = summary.closing(run, experiment.task, outcome.reason).splitlines()
    assert first == (
        f"validation loss {best} (finished, best at step {outcome.best_step}) in {run.path}"
    )
    assert best == f"{outcome.best:.4f}"
    said = "\n".join(others)
    size = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    assert f"checkpoints/{outcome.best_step} is the best" in said
    assert f"{summary.in_bytes(size)} in all" in said and "attempts" not in said
    assert max(map(len, others)) <= summary.WIDTH
    # Another attempt, an evaluation that was worse than the best, or none at all.
    record = json.loads((run.path / "run.json").read_text())
    record["attempts"] *= 2
    (run.path / "run.json").write_text(json.dumps(record))
    worse = {**records[-1], "step": 99, "loss": 77.0}
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(worse) + "\n")
    said = summary.closing(run, experiment.task, "interrupted")
    assert said.splitlines()[0] == first.replace("finished", "interrupted")
    assert "77.0000 at step 99" in said and "in all in 2 attempts" in said
    (run.path / "metrics.jsonl").write_text("")
    shutil.rmtree(run.path / "checkpoints")
    said = summary.closing(run, experiment.task, "interrupted")
    assert said.startswith(f"interrupted before an evaluation, in {run.path}\n")


def test_a_headline_that_is_to_rise_is_best_where_it_is_highest(tmp_path):
    outcome, _ = train(tmp_path / "run", steps=12)
    run = run_folder(tmp_path / "run")
    with (run.path / "metrics.jsonl").open("a") as file:
        for step, value in ((90, 77.0), (91, 77.0), (92, 5.0)):
            file.write(json.dumps({"step": step, "split": "validation", "loss": value}) + "\n")
    task = type(toy()[0].task)(maximise=True)
    assert "(finished, best at step 90)" in summary.closing(run, task, outcome.reason)
