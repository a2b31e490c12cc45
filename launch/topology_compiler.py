"""Compiles the training step of an experiment for devices that need not be here.

A process of its own, one for each topology, since the compiler's library changes how a process sees
its machine: it reads a question as JSON from stdin, and writes the answer as JSON to stdout.
"""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from recattn_jax.analysis import costs, hlo
from recattn_jax.errors import RunError, UserError
from recattn_jax.training import Experiment, MeshShape, load_experiment_file
from recattn_jax.training.sharding import make_mesh
from recattn_jax.training.state import abstract_state, state_shardings
from recattn_jax.training.step import compile_train_step


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """Compiles, and says what the program takes.

    Args:
      question: `config_file` and the `config` for it, `topology`, `slices`, and the `mesh`, as
        sizes of its axes.

    Returns:
      `fits`, and why not in the words of the compiler; of what fits what `facts` says.

    Raises:
      UserError: there are no such devices, or no such mesh of them.
    """
    module = load_experiment_file(question["config_file"])
    config = module.get_config()
    for key, value in question["config"].items():
        config[key] = tuple(value) if isinstance(config[key], tuple) else value
    devices = devices_of(question["topology"], question["slices"])
    mesh = make_mesh(MeshShape(*question["mesh"]), devices)
    experiment = module.build(config)
    started = time.perf_counter()
    try:
        program = compiled(experiment, mesh)
    except jax.errors.JaxRuntimeError as error:
        words = " ".join(str(error).split())
        if not words.startswith("RESOURCE_EXHAUSTED"):
            raise UserError(f"the compiler for {question['topology']} says: {words}") from error
        return {"fits": False, "why": words}
    seconds = time.perf_counter() - started
    return {"fits": True, "why": "", "compile_seconds": seconds, **facts(program)}


def devices_of(name: str, slices: int) -> list[Any]:
    """The devices of slices that need not be here.

    Raises:
      UserError: the compiler knows no such slice.
    """
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if name.startswith("v4:"):  # both cores of a chip are one device, as they are where it runs
        options["chip_config_name"] = "megacore"
    if math.prod(int(size) for size in name.partition(":")[2].split("x")) == 1:
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        return list(topologies.get_topology_desc(name, platform="tpu", **options).devices)
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        raise UserError(f"no topology {name}: {' '.join(str(error).split())}") from error


def compiled(experiment: Experiment, mesh: Mesh) -> jax.stages.Compiled:
    """The training step as `fit` compiles it, for the widest batch."""
    abstract = abstract_state(experiment)
    with jax.set_mesh(mesh):
        shardings = state_shardings(experiment, abstract, mesh)
        wanted = jax.tree.map(
            lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), abstract, shardings
        )
        return compile_train_step(experiment, wanted, shardings, mesh, dict(experiment.batch))


def facts(program: jax.stages.Compiled) -> dict[str, Any]:
    """What a run of a program takes of each device, as plain values."""
    text = program.as_text() or ""
    read = hlo.parse(text)
    memory = program.memory_analysis()
    assert memory is not None
    analysis = program.cost_analysis() or {}
    return {
        "peak_bytes": memory.peak_memory_in_bytes,
        "flops": costs.flops(read),
        "flops_with_loops_once": analysis.get("flops"),
        "traffic_bytes": costs.traffic(read),
        "kernels": text.count('custom_call_target="tpu_custom_call"'),
        "loops_of_unknown_length": [loop.name for loop in read.loops() if loop.times is None],
        "collectives": [
            {
                **dataclasses.asdict(collective),
                "over_steps": collective.over_steps,
                "times": collective.times,
                "ring_bytes": costs.ring_bytes(collective),
            }
            for collective in costs.collectives(read)
        ],
    }


def main() -> None:
    """Answers one question."""
    try:
        found = answer(json.load(sys.stdin))
    except RunError as error:
        found = {"error": str(error)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
