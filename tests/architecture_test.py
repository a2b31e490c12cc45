"""The house: a file imports from lower floors or its own, without circles, and is never too big."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The first prefix that fits is the file's floor.
FLOORS = (
    ("recattn_jax.shapes", 0),
    ("recattn_jax.partition", 0),
    ("recattn_jax.errors", 0),
    ("recattn_jax.kernels", 1),
    ("recattn_jax.layers", 2),
    ("recattn_jax.models", 3),
    ("recattn_jax.interop", 3),
    ("recattn_jax.data", 3),
    ("recattn_jax.decoding", 4),
    ("recattn_jax.tasks", 5),
    ("recattn_jax.training", 6),
    ("recattn_jax.analysis", 6),
    ("recattn_jax", 0),
    ("experiments", 7),
    ("launch", 8),
)
# Kernels are arrays in, arrays out, and so is the conversion of weights: no framework.
FORBIDDEN = {
    "recattn_jax.kernels": ("flax", "optax", "orbax", "absl", "ml_collections"),
    "recattn_jax.interop": ("jax", "flax", "optax"),
}
# Not dependencies; only benchmarks may compare with them, where they are installed.
STRANGERS = ("tensorflow", "keras", "torch", "sklearn", "seqeval", "rouge_score")
ORACLES = "experiments.benchmarks."


def modules(root: Path) -> dict[str, Path]:
    files = [
        p for top in ("recattn_jax", "experiments", "launch") for p in (root / top).rglob("*.py")
    ]
    names = {}
    for path in files:
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(source: str) -> set[str]:
    """Every name that a module imports, wherever the statement stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def floor(module: str) -> int | None:
    for prefix, number in FLOORS:
        if module == prefix or module.startswith(prefix + "."):
            return number
    return None


def violations(sources: dict[str, str]) -> list[str]:
    """What breaks the house, one line each, from module names and their sources."""
    wrong = []
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        own = floor(module)
        assert own is not None, f"{module} stands on no floor"
        found = imports(source)
        for name in found:
            above = floor(name)
            if above is not None and above > own:
                wrong.append(f"{module} (floor {own}) imports {name} (floor {above})")
            for place, frameworks in FORBIDDEN.items():
                if module.startswith(place) and name.split(".")[0] in frameworks:
                    wrong.append(f"{module} imports {name}")
            if name.split(".")[0] in STRANGERS and not module.startswith(ORACLES):
                wrong.append(f"{module} imports {name}")
        graph[module] = {name for name in found if name in sources and name != module}
    # A package's __init__ imports its own modules, which name the package only by its modules.
    for module in graph:
        graph[module] -= {package for package in graph if module.startswith(package + ".")}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        wrong.append("circle: " + " -> ".join(error.args[1]))
    return wrong


def test_imports_go_down() -> None:
    sources = {name: path.read_text() for name, path in modules(ROOT).items()}
    assert len(sources) > 30
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ({"recattn_jax.layers.x": "from recattn_jax.training import fit"}, "floor 2.*floor 6"),
        ({"recattn_jax.data.x": "def f():\n  import launch.app"}, "floor 3.*floor 8"),
        ({"recattn_jax.kernels.x": "import flax.linen as nn"}, "imports flax"),
        ({"recattn_jax.interop.x": "import torch"}, "imports torch"),
        ({"recattn_jax.data.x": "import tensorflow as tf"}, "imports tensorflow"),
        (
            {
                "recattn_jax.layers.x": "import recattn_jax.layers.y",
                "recattn_jax.layers.y": "from recattn_jax.layers import x",
            },
            "circle",
        ),
    ],
)
def test_a_bad_import_is_seen(sources: dict[str, str], says: str) -> None:
    (line, *_) = violations(sources)
    assert re.search(says, line)


def test_every_file_is_one_thing() -> None:
    long = {
        name: count
        for name, path in modules(ROOT).items()
        if (count := path.read_text().count("\n")) > 450
    }
    assert not long, f"too long to be one thing: {long}"
