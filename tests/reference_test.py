"""The documentation has every public name, and a gallery of every hybrid, made of the code."""

import importlib
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from docs import gallery
from recattn_jax.layers import LSTM, Serial
from recattn_jax.models import hybrids

ROOT = Path(__file__).resolve().parents[1]
NAMES = {path.parent.name for path in (ROOT / "recattn_jax").glob("*/__init__.py")}
PACKAGES = {name: f"recattn_jax.{name}" for name in NAMES}
PACKAGES["hybrids"] = "recattn_jax.models.hybrids"


def public(package: str) -> set[str]:
    """What a package exports; its modules, where its __init__ exports nothing."""
    module = importlib.import_module(package)
    modules = {path.stem for path in Path(module.__file__ or "").parent.glob("[!_]*.py")}
    return {f"{package}.{name}" for name in getattr(module, "__all__", modules)}


@pytest.mark.parametrize("page", sorted(PACKAGES))
def test_every_public_name_is_in_the_reference_once(page: str) -> None:
    text = (ROOT / f"docs/api/{page}.md").read_text()
    named = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert sorted(named) == sorted(public(PACKAGES[page]))


def test_every_package_has_a_page() -> None:
    assert len(PACKAGES) > 9
    assert {path.stem for path in (ROOT / "docs/api").glob("*.md")} == PACKAGES.keys()


def test_the_gallery_has_every_hybrid_with_its_picture_code_and_measurement() -> None:
    page = gallery.page()
    entries = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE))
    assert sorted(entries) == sorted(hybrids.__all__)
    for name, entry in entries.items():
        assert ElementTree.fromstring(re.search(r"<svg.*</svg>", entry)[0]).tag.endswith("svg")
        assert f"def {name}(" in entry and '"""' not in entry
        assert f"[recattn_jax.models.hybrids.{name}]" in entry
        assert ("| experiment" in entry) != (gallery.NOT_MEASURED in entry)
    assert "arXiv:2402.19427](https://arxiv.org/abs/2402.19427)" in entries["griffin"]
    assert "| s1 " in entries["recurrence_attends_to_input"]
    assert gallery.NOT_MEASURED in entries["luong_decoder"]


def test_an_experiment_calls_the_hybrid_that_is_no_part_of_another() -> None:
    found = {name: getattr(hybrids, name) for name in hybrids.__all__}

    def build() -> object:
        return hybrids.griffin(8, 2, window=4, hidden=8, depth=3, dropout=0.0)

    assert gallery.called(found, build) == ["griffin"]
    assert gallery.called(found, lambda: Serial((LSTM(8),))) == []


def test_a_hybrid_without_an_example_is_refused() -> None:
    def silent(features: int) -> LSTM:
        """Says nothing."""
        return LSTM(features)

    with pytest.raises(ValueError, match="silent: its docstring has no example"):
        gallery.example(silent)
