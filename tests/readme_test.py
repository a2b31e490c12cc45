"""The code in the README runs, and its cell obeys the laws."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tests import laws

README = Path(__file__).resolve().parents[1] / "README.md"


def test_code_blocks_run_and_the_cell_obeys_the_laws() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 6
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    check_layers_in_other_modules(blocks[3:5], names)
    row = laws.Row(names["LeakyRNN"](6))
    for check in laws.laws(row).values():
        check(row)


def check_layers_in_other_modules(scripts: list[str], names: dict) -> None:
    """They are short, the one in Linen has learned, and the one in NNX has all its gradients."""
    assert all(len([line for line in text.splitlines() if line]) <= 15 for text in scripts)
    tagger, x = names["Tagger"](), names["x"]

    def error(params: Any) -> jax.Array:
        return ((tagger.apply(params, x) - x.cumsum(1)) ** 2).mean()

    assert error(names["params"]) < 0.7 * error(tagger.init(jax.random.key(1), x))
    norms = jax.tree.map(jnp.linalg.norm, nnx.to_pure_dict(names["gradients"]))
    assert len(jax.tree.leaves(norms)) == 9 and all(n > 0 for n in jax.tree.leaves(norms))


def test_the_two_commands_stand_in_one_block() -> None:
    assert (
        "```\npip install -e . && python -m launch.train\n"
        "pip install -e '.[test]' && python -m pytest\n```\n"
    ) in README.read_text()
