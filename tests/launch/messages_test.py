"""What the compiled steps of the experiments send on a v5e, against what a textbook sends; slow.

A ring sends (n - 1) / n of an array to gather it or to reduce it to its parts. Gradients of copies
are reduced and gathered: two passes over the parameters. Parameters in parts are gathered forward
and backward, and their gradients reduced: three.
"""

import importlib.util
from pathlib import Path

import pytest

from launch import chips, compile_check
from launch.compile_report import Check
from recattn_jax.training import MeshShape, load_experiment_file
from recattn_jax.training.state import abstract_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="libtpu is not installed: there is no compiler for a TPU",
    ),
]

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in (ROOT / "experiments").glob("*.py") if path.stem != "__init__")
SMALLER = {
    "char_lm": {"batch": 16},
    "griffin_large": {
        "batch": 16, "length": 512, "vocabulary": 4096, "width": 512, "recurrence": 512,
        "hidden": 1024, "heads": 4, "depth": 6, "chunk": 256,
    },
}  # fmt: skip
NAMED = ("char_lm", "griffin_large", "s0", "s1", "s3", "wikitext2")


def compiled(name: str, topology: str, mesh: str | None = None) -> Check:
    path = ROOT / "experiments" / f"{name}.py"
    file = load_experiment_file(str(path))
    config = file.get_config()
    config.update(SMALLER.get(name, {}))
    config.mesh = mesh or config.mesh
    experiment = file.build(config)
    (wanted,) = chips.topologies(topology, slices=1)
    check = Check(
        wanted,
        compile_check.checked_mesh(experiment, MeshShape.parse(config.mesh), wanted),
        compile_check.sizes(experiment, abstract_state(experiment).params),
    )
    question = {"config_file": str(path), "config": config.to_dict()}
    answered = compile_check.asked(check, question)
    assert answered.fits, answered.problem or answered.facts
    return answered


def passes(check: Check) -> float:
    """How often a device sends what it would to reduce or gather all parameters once."""
    chips = check.topology.chips
    return check.sent() / (check.sizes["parameter_bytes"] * (chips - 1) / chips)


@pytest.mark.parametrize(
    ("mesh", "limit"), [("data:16", 2 * 1.05), ("fsdp:16", 3 * 1.5), ("data:4,fsdp:4", 3 * 1.5)]
)
@pytest.mark.parametrize("name", NAMED)
def test_no_more_is_sent_than_by_the_textbook(name, mesh, limit):
    check = compiled(name, "v5e:4x4", mesh)
    assert passes(check) <= limit
    assert [c for c in check.facts["collectives"] if c["over_steps"]] == []
    assert check.warnings == []


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.stem != "griffin_large"])
def test_no_array_of_an_experiment_is_gathered_to_be_laid_out_anew(name):
    check = compiled(name, "v5e:2x2")
    assert check.warnings == []
    assert passes(check) <= 2 * 1.05
    assert [c for c in check.facts["collectives"] if c["over_steps"]] == []
