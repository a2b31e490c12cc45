"""Every block of code in the README and in `docs/` runs, or could be typed."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from tests import laws
from tests.documents import OUTPUT, README, ROOT, Block, Page, blocks, calls, check
from tests.launch.commands import TEXT, TINY

PAGES = sorted((ROOT / "docs").rglob("*.md"))
TUTORIALS = [page for page in PAGES if page.parent.name == "tutorials"]
# One that needs no code, and one that is code; the others are followed in the slow tests.
OFTEN = ("your-own-cell", "your-own-text")
SHORT = ("--config.steps=2", "--config.evaluate_every=2", "--config.save_every=2")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout, in which pages may leave files."""
    for name in ("experiments", "launch", "recattn_jax", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # prepared data are kept there
    monkeypatch.syspath_prepend(tmp_path)  # as of a program that is started here
    return tmp_path


def identify(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if p not in TUTORIALS], ids=identify)
def test_what_a_page_says_runs_or_could_be_typed(page: Path, checkout: Path) -> None:
    reader = Page({"__name__": "page"})
    for block in blocks(page):
        reader.follow(block, commands=False)


@pytest.mark.parametrize("page", TUTORIALS, ids=identify)
def test_the_commands_of_a_tutorial_could_be_typed(page: Path, checkout: Path) -> None:
    reader = Page({})
    for block in blocks(page):
        if block.title or block.language != "python":
            reader.follow(block, commands=False)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page.stem in OFTEN else pytest.mark.slow, id=identify(page))
        for page in TUTORIALS
    ],
)
def test_a_tutorial_can_be_followed(page: Path, checkout: Path) -> None:
    """In steps that are too few to learn anything."""
    follow(page, SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=identify)
def test_a_tutorial_can_be_followed_to_its_end(page: Path, checkout: Path) -> None:
    follow(page, ())


def follow(page: Path, shrink: tuple[str, ...]) -> None:
    reader = Page({"__name__": "page"}, shrink)
    for block in blocks(page):
        reader.follow(block, commands=True)


def test_the_readme_runs(checkout: Path) -> None:
    """Its commands name runs and data that are not here: they are parsed."""
    Path("text.txt").write_text(TEXT)
    Page({}).follow(
        Block("README", "sh", None, f"python -m launch.train --config={TINY} --workdir=runs/a"),
        commands=True,
    )
    reader = Page(weights_of_others())
    for block in blocks(README):
        reader.follow(block, commands=False)
    names = reader.names
    assert names["params"]["input_kernel"].shape == (3, 4, 2)
    assert [array.shape for array in names["keras_lstm"].weights] == [(3, 8), (2, 8), (8,)]


def weights_of_others() -> dict[str, Any]:
    """What the README finds in a notebook: an LSTM of torch, and one of Keras."""
    shapes = {"weight_ih_l0": (8, 3), "weight_hh_l0": (8, 2), "bias_ih_l0": 8, "bias_hh_l0": 8}
    stored = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    keras = SimpleNamespace()
    keras.set_weights = lambda weights: setattr(keras, "weights", weights)
    return {"torch_lstm": SimpleNamespace(state_dict=lambda: stored), "keras_lstm": keras}


def test_layers_in_other_modules_are_short_and_learn() -> None:
    """The one in Linen has learned, and the one in NNX has all its gradients."""
    names: dict = {}
    python = [block for block in blocks(README) if block.language == "python"]
    scripts = [block for block in python if re.search(r"class (NNX)?Tagger", block.code)]
    assert len(scripts) == 2
    for script in scripts:
        assert len([line for line in script.code.splitlines() if line]) <= 15
        Page(names).follow(script, commands=False)
    tagger, x = names["Tagger"](), names["x"]

    def error(params: Any) -> jax.Array:
        return ((tagger.apply(params, x) - x.cumsum(1)) ** 2).mean()

    assert error(names["params"]) < 0.7 * error(tagger.init(jax.random.key(1), x))
    norms = jax.tree.map(jnp.linalg.norm, nnx.to_pure_dict(names["gradients"]))
    assert len(jax.tree.leaves(norms)) == 9 and all(n > 0 for n in jax.tree.leaves(norms))


def test_the_cell_of_the_readme_obeys_the_laws() -> None:
    names: dict = {"nn": nn}
    (cell,) = [block for block in blocks(README) if "class LeakyRNN" in block.code]
    Page(names).follow(cell, commands=False)
    row = laws.Row(names["LeakyRNN"](6))
    for obeys in laws.laws(row).values():
        obeys(row)


def test_the_two_commands_stand_in_one_block() -> None:
    assert (
        "```\npip install -e . && python -m launch.train\n"
        "pip install -e '.[test]' && python -m pytest\n```\n"
    ) in README.read_text()


def test_pages_of_the_documentation_name_the_language_of_their_blocks() -> None:
    for page in PAGES:
        for line in re.findall(r"^ *```(.*)\n(?:.*\n)*?^ *```$", page.read_text(), re.MULTILINE):
            assert line.split()[0] in ("python", "sh", *OUTPUT), f"{page}: {line}"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("rm -r runs", "'rm' is none of"),
        ("pip install -e '.[tets]'", "no extra"),
        ("pip install numpie", "numpie is not needed"),
        ("python -m pytest tests/nowhere", "tests/nowhere"),
        ("python -m tests.nowhere", "no module tests.nowhere"),
        ("python nowhere.py", "no file nowhere.py"),
        ("python -m launch.evaluate --spilt=test", "unknown flag --spilt"),
        ("python -m launch.train --config=experiments/nowhere.py", "no experiment file"),
        ("python -m launch.train --config.stesp=3", "unknown config key 'stesp'"),
        ("python -m launch.train --config.steps=many", "expected an integer"),
        ("python -m launch.submit --name=a -- --config.stesp=3", "unknown config key 'stesp'"),
        ("ls | python -m launch.generate --wrokdir=a < x", "unknown flag --wrokdir"),
    ],
)
def test_a_wrong_line_is_found(line: str, says: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(says)):
        for call in calls(line):
            check(call)


def test_a_block_of_no_kind_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="page.md, line 3: is it code, commands or output"):
        Page({}).follow(Block("page.md, line 3", "console", None, "$ ls"), commands=False)
