"""Every example in a docstring of the library runs, and prints what it says."""

import ast
import doctest
import importlib
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import pytest

from tests.architecture_test import ROOT, modules

DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def examples(source: str, module: str, path: str) -> list[doctest.DocTest]:
    """The docstrings of a module that have examples, read from its source.

    The finder of doctest looks at objects, and passes over those that a decorator wraps.
    """
    parser = doctest.DocTestParser()
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            line = node.body[0].lineno - 1
            name = f"{module}.{getattr(node, 'name', '')}".rstrip(".")
            found.append(parser.get_doctest(text, {}, name, path, line))
    return [test for test in found if test.examples]


def failures(test: doctest.DocTest, names: dict[str, object]) -> str:
    """What doctest reports of a docstring; nothing where all is as it says."""
    said: list[str] = []
    test.globs = dict(names)
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return "".join(said)


FOUND = {
    name: tests
    for name, path in modules(ROOT).items()
    if name.startswith("recattn_jax")
    and (tests := examples(path.read_text(), name, str(path.relative_to(ROOT))))
}


@pytest.fixture
def compiled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are run as one program: eager calls, as in examples, compile each operation."""
    eager = nn.Module.init_with_output

    def init_with_output(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        return jax.jit(lambda *given: eager(self, *given, **options))(*arguments)

    monkeypatch.setattr(nn.Module, "init_with_output", init_with_output)


@pytest.mark.usefixtures("compiled_at_once")
@pytest.mark.parametrize("module", FOUND)
def test_examples_are_true(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = vars(importlib.import_module(module))
    monkeypatch.chdir(tmp_path)  # some write files
    wrong = "".join(failures(test, names) for test in FOUND[module])
    assert not wrong, wrong


def test_examples_are_found() -> None:
    assert len(FOUND) > 80
    assert any(test.name.endswith(".attend") for test in FOUND["recattn_jax.kernels.attention"])


def test_a_wrong_example_is_seen() -> None:
    source = 'def f():\n    """Gives two.\n\n    >>> one + one\n    3\n    """\n'
    (test,) = examples(source, "module", "module.py")
    assert "Expected:\n    3\nGot:\n    2\n" in failures(test, {"one": 1})
