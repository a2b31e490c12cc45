"""Says whether an experiment fits slices of TPUs, and how it would spread over them, without any.

  python -m launch.compile_check --config=experiments/griffin_large.py --topology=v5e:16x16
  python -m launch.compile_check --config=experiments/griffin_large.py --config.mesh=data:-1,fsdp:16
      --topology=v5e:4x4,v5e:16x16 --out=check

The real training step goes through the real compiler, which needs libtpu, and no TPU. Memory,
products and messages are the compiler's facts; times are estimates at the peak of the chips.
"""

import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import config_dict

from launch import app, chips, compile_records, compile_report, configs, report
from launch.compile_report import Check
from recattn_jax.analysis.results import read_results
from recattn_jax.errors import UserError
from recattn_jax.training import Experiment, MeshShape
from recattn_jax.training.experiment_file import CHECKOUT
from recattn_jax.training.sharding import AXES, check_batch
from recattn_jax.training.state import abstract_state

# For the child alone: on a machine with TPUs they would hide its pod.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_TRACEBACK_FILTERING": "off",  # or what an exception says would not be said last
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # what comes out of the cache reports nothing
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
    "TPU_STDERR_LOG_LEVEL": "1",  # warnings too, which are asked for
}
_WARNING = re.compile(
    r"Involuntary full rematerialization\. .*? from sharding (\{.*?\}) to (\{.*?\}) efficiently"
    r" for HLO operation %(\S+) = (\S+)(?:.*?op_name=\"([^\"]*)\")?"
)
_FATAL = re.compile(r"^F\d{4} \S+ +\d+ (?P<words>.*)", re.MULTILINE)
_NOISE = re.compile(r"^[WIE]\d{4} |^\s|^$")


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    flags.DEFINE_string(
        "topology", None, "slices to compile for, such as v5e:16x16 or v5e:4x4,v5p:4x4x4",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_integer("slices", 1, "how many slices of each topology", flag_values=flag_values)
    flags.DEFINE_string(
        "out", None, "folder for compile_check.md, .json and .png", flag_values=flag_values
    )
    flags.DEFINE_bool(
        "record", False, "add what is found to the committed results", flag_values=flag_values
    )
    typed = [word for word in argv[1:] if not word.startswith(("--out=", "--record"))]
    chosen, argv = configs.choose(flag_values, argv)

    def main() -> None:
        chosen.check()
        if flag_values.record:
            compile_records.read(report.FOLDER)  # what is damaged is said before minutes are spent
        checks = compile_check(flag_values, chosen.file, chosen.config, chosen.path)
        if flag_values.record:
            line = shlex.join(["python", "-m", "launch.compile_check", *typed])
            found = [compile_records.found(chosen.path, line, check) for check in checks]
            compile_records.record(report.FOLDER, found)
            report.write_page(report.FOLDER, read_results(report.FOLDER / "results.jsonl"))
        if any(check.facts is None for check in checks):
            raise SystemExit(1)

    return argv, main


def compile_check(
    flag_values: flags.FlagValues,
    experiment_file: ModuleType,
    config: config_dict.ConfigDict,
    config_path: str,
) -> list[Check]:
    """Checks everything that needs no compiler, then asks it, one topology after the other."""
    wanted = chips.topologies(app.required(flag_values, "topology"), flag_values.slices)
    experiment = experiment_file.build(config)
    shape = experiment.layout.mesh
    try:
        params = abstract_state(experiment).params
    except ValueError as error:  # of a layer whose numbers do not fit each other
        raise UserError(f"{config_path}: {error}") from error
    checks = [
        Check(topology, checked_mesh(experiment, shape, topology), sizes(experiment, params))
        for topology in wanted
    ]
    check_compiler()
    if flag_values.out:
        compile_report.make(Path(flag_values.out))
    question = {"config_file": str(experiment_file.__file__), "config": config.to_dict()}
    done = []
    for check in checks:
        print(f"compiling for {check.topology} ...", file=sys.stderr, flush=True)
        done.append(asked(check, question))
    print(compile_report.tables(done))
    if flag_values.out:
        title = f"`{config_path}`"
        print(f"written: {compile_report.write(done, title, Path(flag_values.out))}")
    return done


def checked_mesh(
    experiment: Experiment, shape: MeshShape, topology: chips.Topology
) -> tuple[int, ...]:
    """The sizes of the axes of a mesh that is made up and divides the batch.

    Raises:
      UserError: it is not, or does not.
    """
    found = chips.mesh_sizes(shape, topology)
    nowhere = Mesh(np.full(found, None), AXES)  # its sizes are all that is looked at
    check_batch(experiment.batch, nowhere, experiment.optimization.accumulate)
    return found


def sizes(experiment: Experiment, params: Any) -> dict[str, int]:
    """How large the model and a batch are."""
    leaves = jax.tree.leaves(params)
    batch = experiment.batch
    shape = (batch["inputs"] if "inputs" in batch else next(iter(batch.values()))).shape
    return {
        "parameters": sum(leaf.size for leaf in leaves),
        "parameter_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        "batch_tokens": math.prod(shape[:2]),
    }


def check_compiler() -> None:
    """Sees to it that there is a compiler for TPUs, without loading it.

    Raises:
      UserError: there is none; says what to install.
    """
    if importlib.util.find_spec("libtpu") is not None:
        return
    extra = [line for line in importlib.metadata.requires("jax") or () if "libtpu" in line]
    wanted = extra[0].partition(";")[0].strip() if extra else "libtpu"
    raise UserError(
        "libtpu, the compiler for TPUs, is not installed: pip install -e '.[tpu]', or"
        f" pip install '{wanted}', which jax {jax.__version__} asks for"
    )


def asked(check: Check, question: dict[str, Any]) -> Check:
    """Asks a process of its own about one topology.

    Returns:
      The check with the facts and warnings, or with one line that says why there are none.
    """
    topology = check.topology
    question = question | {
        "topology": topology.name, "slices": topology.slices, "mesh": check.mesh
    }  # fmt: skip
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.run(
        [sys.executable, "-m", "launch.topology_compiler"],
        input=json.dumps(question),
        env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        facts = json.loads(child.stdout)
    except ValueError:
        facts = {"error": died(child.returncode, child.stderr)}
    if "error" in facts:
        return dataclasses.replace(check, problem=facts["error"])
    return dataclasses.replace(check, facts=facts, warnings=warnings(child.stderr))


def died(code: int, stderr: str) -> str:
    """One line about a process that gave no answer: what it calls fatal, or else said last.

    >>> died(-9, "Traceback ...")
    'the compiler ended with code -9: Traceback ...'
    """
    fatal = _FATAL.search(stderr)
    lines = [line for line in stderr.splitlines() if not _NOISE.match(line)]
    words = fatal["words"] if fatal else lines[-1].strip() if lines else "no words"
    return f"the compiler ended with code {code}: {words}"


def warnings(stderr: str) -> list[str]:
    """What the partitioner says it could not do well, each once."""
    found = [
        f"{match[4]} {match[5] or match[3]}: gathered whole to go from {match[1]} to {match[2]}"
        for match in _WARNING.finditer(stderr)
    ]
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    app.run(command, __doc__)
