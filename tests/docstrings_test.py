"""Every public name says what it takes, what it gives, the shapes of arrays, and shows an example.

Public is what a package exports, and every name without an underscore in the modules that people
import one by one: kernels, analysis and interop. Docstrings are read from the source, so nothing is
imported and no decorator hides anything; that the examples are true is the matter of
`doctests_test.py`.
"""

import ast
import functools
import re
from collections.abc import Iterator, Mapping, Set
from typing import NamedTuple

import pytest

from tests.architecture_test import ROOT, modules

ONE_BY_ONE = ("recattn_jax.kernels.", "recattn_jax.analysis.", "recattn_jax.interop.")

SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):")
ENTRY = re.compile(r" +\*{0,2}(\w+): (.*)")
SHAPE = re.compile(r"\[(?:[A-Z\d.][^\]]*|rows[^\]]*)?\]")  # [B, T, D], [2, H], [...], [rows, H], []
ARRAY = re.compile(r"\b(Array|ndarray|Activations|Tokens|Segments|Mask|Heads|Logits)\b")
SHAPED = re.compile(r".*_[A-Z\d]+")  # the name of an argument may say the shape: logits_BV
NOTHING = ("None", "NoReturn", "Never")


class Definition(NamedTuple):
    """A public function, class or constant, and where it stands."""

    name: str
    node: ast.stmt
    docstring: str | None


def sections(docstring: str) -> dict[str, dict[str, str]]:
    """The entries of each section by name; under "" what stands before the first of them."""
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] | None = None
    indent, entry = 0, ""
    for line in docstring.splitlines():
        if head := SECTION.fullmatch(line):
            section, indent, entry = found.setdefault(head[1], {}), 0, ""
        elif line and not line.startswith(" "):
            section = None
        elif section is not None and line:
            depth = len(line) - len(line.lstrip())
            indent = indent or depth
            if depth == indent and (begins := ENTRY.fullmatch(line)):
                entry = begins[1]
            section[entry] = f"{section.get(entry, '')} {line.strip()}"
    return found


def holds_arrays(annotation: ast.expr | None) -> bool:
    text = "" if annotation is None else ast.unparse(annotation)
    return bool(ARRAY.search(text)) and "Callable" not in text


def parameters(function: ast.FunctionDef) -> dict[str, ast.expr | None]:
    given = function.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return {a.arg: a.annotation for a in every if a is not None and a.arg not in ("self", "cls")}


def ancestry(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """The class and, of its ancestors, those of this library."""
    yield node
    for base in node.bases:
        name = ast.unparse(base).split("[")[0].split(".")[-1]
        if name in classes and classes[name] is not node:
            yield from ancestry(classes[name], classes)


def fields(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> dict[str, ast.expr | None]:
    """What the class is made with: its annotated fields, also inherited ones, or `__init__`'s."""
    found: dict[str, ast.expr | None] = {}
    fixed = set()  # by a class, for all its instances
    for cls in ancestry(node, classes):
        for item in cls.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                return parameters(item)
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                if "ClassVar" in ast.unparse(item.annotation):
                    fixed.add(item.target.id)
                else:
                    found.setdefault(item.target.id, item.annotation)
            elif isinstance(item, ast.Assign):
                fixed |= {ast.unparse(target) for target in item.targets}
    return {
        name: annotation
        for name, annotation in found.items()
        if not name.startswith("_") and name not in fixed
    }


def properties(node: ast.ClassDef) -> set[str]:
    return {
        item.name
        for item in node.body
        if isinstance(item, ast.FunctionDef)
        and any("property" in ast.unparse(decorator) for decorator in item.decorator_list)
    }


def misdescribed(
    wanted: Mapping[str, ast.expr | None], said: Mapping[str, str], others: Set[str] = frozenset()
) -> list[str]:
    """What is wrong with the entries of Args or Attributes."""
    wrong = [f"{name} is not described" for name in wanted if name not in said]
    wrong += [f"{name} is described, and is not there" for name in {*said} - {*wanted, "", *others}]
    return wrong + [
        f"{name} is an array without a shape"
        for name, annotation in wanted.items()
        if name in said and name != "key" and not SHAPED.fullmatch(name)
        if holds_arrays(annotation) and not SHAPE.search(said[name])
    ]


def function_faults(function: ast.FunctionDef, docstring: str) -> list[str]:
    said = sections(docstring)
    wrong = misdescribed(parameters(function), said.get("Args", {}))
    if function.returns is not None and ast.unparse(function.returns) not in NOTHING:
        given = said.get("Returns", said.get("Yields", {}))
        if not given:
            wrong.append("what it returns is not described")
        elif holds_arrays(function.returns) and not SHAPE.search(" ".join(given.values())):
            wrong.append("what it returns is an array without a shape")
    return wrong


def method_faults(node: ast.ClassDef, documented: Set[str]) -> list[str]:
    """A method that fills an abstract one is documented there; what is said must be true."""
    wrong = []
    for item in node.body:
        if not isinstance(item, ast.FunctionDef) or item.name.startswith("_"):
            continue
        docstring = ast.get_docstring(item)
        if docstring is None and item.name not in documented:
            wrong.append(f"{item.name} has no docstring")
        said = sections(docstring or "").get("Args")
        if said is not None:
            wrong += [f"{item.name}: {what}" for what in misdescribed(parameters(item), said)]
    return wrong


def faults(
    definition: Definition,
    classes: Mapping[str, ast.ClassDef] | None = None,
    documented: Set[str] = frozenset(),
) -> list[str]:
    """What a docstring lacks, one line each."""
    node, docstring = definition.node, definition.docstring
    if docstring is None:
        return ["has no docstring"]
    wrong = []
    if isinstance(node, ast.FunctionDef):
        wrong += function_faults(node, docstring)
    if isinstance(node, ast.ClassDef):
        said = sections(docstring)
        entries = {**said.get("Args", {}), **said.get("Attributes", {})}
        wrong += misdescribed(fields(node, classes or {}), entries, properties(node))
        wrong += method_faults(node, documented)
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and ">>>" not in docstring:
        wrong.append("has no example")
    return wrong


def definitions(module: str, tree: ast.Module) -> Iterator[Definition]:
    """What a module defines at its top; a constant's docstring is the string after it."""
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield Definition(f"{module}.{node.name}", node, ast.get_docstring(node))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            name = f"{module}.{ast.unparse(target)}"
            yield Definition(name, node, str(after.value.value) if said else None)


def exported(trees: Mapping[str, ast.Module]) -> set[str]:
    """Full names of all that a package imports and names in its `__all__`."""
    origin = {
        f"{module}.{alias.asname or alias.name}": f"{item.module}.{alias.name}"
        for module, tree in trees.items()
        for item in tree.body
        if isinstance(item, ast.ImportFrom)
        for alias in item.names
        if module != item.module  # which names its own modules
    }
    found = set()
    for module, tree in trees.items():
        for item in tree.body:
            if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "__all__":
                found |= {f"{module}.{name}" for name in ast.literal_eval(item.value)}
    while through := found & origin.keys():
        found = found - through | {origin[name] for name in through}
    return found


@functools.cache
def library() -> tuple[dict[str, Definition], dict[str, ast.ClassDef], set[str]]:
    """The public definitions by name, all classes, and the methods that any of them documents."""
    trees = {
        name: ast.parse(path.read_text())
        for name, path in modules(ROOT).items()
        if name.startswith("recattn_jax")
    }
    names = exported(trees)
    every = [d for module, tree in trees.items() for d in definitions(module, tree)]
    classes = {d.node.name: d.node for d in every if isinstance(d.node, ast.ClassDef)}
    public = {}
    for definition in every:
        module, _, name = definition.name.rpartition(".")
        constant = not isinstance(definition.node, ast.FunctionDef | ast.ClassDef)
        one_by_one = module.startswith(ONE_BY_ONE) or module in names
        if definition.name in names or (one_by_one and not constant and not name.startswith("_")):
            public[definition.name] = definition
    documented = {
        item.name
        for node in classes.values()
        for item in node.body
        if isinstance(item, ast.FunctionDef) and ast.get_docstring(item)
    }
    return public, classes, documented | {"setup"}  # Flax calls it


def test_public_names_are_documented() -> None:
    public, classes, documented = library()
    assert len(public) > 450
    wrong = [
        f"{name}: {fault}"
        for name, definition in public.items()
        for fault in faults(definition, classes, documented)
    ]
    assert not wrong, "\n".join(wrong)


GOOD = '''
def scale(x: Float[Array, "B T"], by: float) -> Float[Array, "B T"]:
    """Multiplies.

    Args:
      x: `[B, T]`.
      by: a factor,
        of any size: good.

    Returns:
      `[B, T]`.

    >>> scale(jnp.ones((1, 1)), 2.0).tolist()
    [[2.0]]
    """

class Scale(NamedTuple):
    """Multiplies.

    Attributes:
      by: `[H]`.

    >>> Scale(jnp.ones(2))
    """

    by: Float[Array, " H"]

    def apply(self, x: Float[Array, "H"]) -> Array:
        """Multiplies.

        Args:
          x: `[H]`.
        """
'''


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("", "", []),
        ('    """Multiplies.\n\n    Args', '    3\n    """\n\n    Args', ["has no docstring"]),
        ("      by: a factor", "      be: a factor", ["by is not", "be is described"]),
        ("      x: `[B, T]`.", "      x: numbers.", ["x is an array without a shape"]),
        ("      `[B, T]`.\n\n    >", "      Numbers.\n\n    >", ["returns is an array without"]),
        ("    Returns:\n      `[B, T]`.\n", "", ["what it returns is not described"]),
        ("    >>> scale", "    scale", ["has no example"]),
        ("      by: `[H]`.", "      by: factors.", ["by is an array without a shape"]),
        ("      by: `[H]`.", "      to: `[H]`.", ["by is not", "to is described"]),
        (
            "          x: `[H]`.",
            "          y: `[H]`.",
            ["apply: x is not", "apply: y is described"],
        ),
        (
            '        """Multiplies.\n\n        Args:\n          x: `[H]`.\n        """',
            "        3",
            ["apply has no docstring"],
        ),
    ],
)
def test_a_fault_is_seen(old: str, new: str, says: list[str]) -> None:
    assert old in GOOD
    tree = ast.parse(GOOD.replace(old, new, 1) if old else GOOD)
    found = [fault for definition in definitions("m", tree) for fault in faults(definition)]
    assert len(found) == len(says), found
    assert all(any(part in fault for fault in found) for part in says)


@pytest.mark.parametrize(
    "name",
    [
        "layers.attention.SelfAttention",
        "tasks.losses.focal",
        "kernels.attention.attend",
        "data.kinds.TEXT",
    ],
)
def test_public_names_are_found(name: str) -> None:
    assert f"recattn_jax.{name}" in library()[0]
