"""Makes the page of named hybrids from their code and from the recorded results, in every build.

Pictures are of the example in a hybrid's docstring, and numbers are of the recorded runs whose
experiment calls the hybrid.
"""

import ast
import doctest
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from recattn_jax.analysis.diagrams import diagram
from recattn_jax.analysis.reports import as_markdown
from recattn_jax.analysis.results import Result, read_results
from recattn_jax.analysis.results_page import RecordedArm, make_arms, rounded
from recattn_jax.layers import SequenceLayer
from recattn_jax.models import hybrids
from recattn_jax.training import load_experiment_file

ROOT = Path(__file__).resolve().parents[1]

Hybrid = Callable[..., SequenceLayer]

INTRO = """# Gallery

Every function of `recattn_jax.models.hybrids`: what it computes, its picture, its code, its source,
and what was measured of it. The data flow from top to bottom, and what is dashed comes from earlier
steps; recurrences are blue, attention is orange, convolutions are green, and a frame is a layer
around others. Sizes in the pictures are those of the example above each.

Measured are the recorded runs (`experiments/results.jsonl`) whose experiment file calls the hybrid:
the headline of the best checkpoint by validation, on the split in brackets, the mean where there
are several seeds.
"""
NOT_MEASURED = "Not measured: no recorded run uses it."
_SECTIONS = re.compile(r"^(Args|Returns|Raises|Example|Examples):$", re.MULTILINE)
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_YEAR = re.compile(r"\b(19|20)\d\d\b")


def page() -> str:
    """The whole page, in Markdown."""
    found: dict[str, Hybrid] = {name: getattr(hybrids, name) for name in hybrids.__all__}
    measured = arms_of(found, read_results(ROOT / "experiments/results.jsonl"))
    modules = {inspect.getmodule(hybrid) for hybrid in found.values()}
    parts = [INTRO]
    for module in sorted(modules, key=_place):
        parts.append(f"## {(inspect.getdoc(module) or '').splitlines()[0].removesuffix('.')}\n")
        own = [hybrid for hybrid in found.values() if inspect.getmodule(hybrid) is module]
        own.sort(key=lambda hybrid: inspect.unwrap(hybrid).__code__.co_firstlineno)
        parts += [entry(hybrid, measured[hybrid.__name__]) for hybrid in own]
    return "\n".join(parts)


def _place(module: Any) -> tuple[bool, bool, str]:
    """The systems that the project began with come first, blocks that others are made of last."""
    name = module.__name__.rpartition(".")[2]
    return name == "blocks", name != "founding", name


def entry(hybrid: Hybrid, arms: Sequence[RecordedArm]) -> str:
    """The part of the page about one hybrid."""
    name = hybrid.__name__
    line, layer = example(hybrid)
    words, sources = told(hybrid)
    parts = [
        f"### {name}\n",
        f"{words}\n",
        f"```python\n{line}\n```\n",
        f'<figure class="diagram">{diagram(layer)}</figure>\n',
        f"```python\n{code(hybrid)}\n```\n",
        f"Arguments: [`{name}`][recattn_jax.models.hybrids.{name}].\n",
    ]
    parts += [f"Source: {source}\n" for source in sources]
    parts.append(f"{table(arms)}\n" if arms else f"{NOT_MEASURED}\n")
    return "\n".join(parts)


def example(hybrid: Hybrid) -> tuple[str, SequenceLayer]:
    """The call in the hybrid's docstring, as it is written there, and the layer that it makes.

    Raises:
      ValueError: there is none, or the example fails.
    """
    made: list[SequenceLayer] = []

    def recorded(*arguments: Any, **fields: Any) -> SequenceLayer:
        made.append(hybrid(*arguments, **fields))
        return made[-1]

    name = hybrid.__name__
    names = vars(inspect.getmodule(hybrid)) | {name: recorded}
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(hybrid), names, name, None, None)
    failed = doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None).failed
    if failed or not made:
        raise ValueError(f"{name}: its docstring has no example that makes it")
    nodes = [node for step in test.examples for node in ast.walk(ast.parse(step.source))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and _calls(node, name)]
    return ast.unparse(calls[0]), made[0]


def _calls(node: ast.Call, name: str) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == name


def told(hybrid: Hybrid) -> tuple[str, list[str]]:
    """What its docstring says before its arguments, and the paragraphs that name a source."""
    doc = inspect.getdoc(hybrid) or ""
    before = _SECTIONS.split(doc)[0].strip()
    after = [" ".join(part.split()) for part in doc[len(before) :].split("\n\n")]
    sources = [part for part in after if _YEAR.search(part) and not part.startswith(">>>")]
    return before, [_ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", each) for each in sources]


def code(hybrid: Hybrid) -> str:
    """Its source, without the docstring."""
    source = textwrap.dedent(inspect.getsource(hybrid))
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    docstring = function.body[0]
    lines = source.splitlines()
    del lines[docstring.lineno - 1 : docstring.end_lineno]
    return "\n".join(lines)


def arms_of(found: dict[str, Hybrid], results: Sequence[Result]) -> dict[str, list[RecordedArm]]:
    """By hybrid, the arms of recorded experiments that call it, and not by way of another hybrid.

    Args:
      found: the hybrids by name.
      results: all that is recorded.
    """
    using: dict[str, list[RecordedArm]] = {name: [] for name in found}
    for config_file in sorted({result.config_file for result in results}):
        file = load_experiment_file(ROOT / config_file)
        for arm in make_arms([each for each in results if each.config_file == config_file]):
            config = file.get_config()
            known = arm.results[0].config
            config.update({key: value for key, value in known.items() if key in config})
            for name in called(found, lambda: file.build(config)):  # noqa: B023  (called at once)
                using[name].append(arm)
    return using


def called(found: dict[str, Hybrid], build: Callable[[], Any]) -> list[str]:
    """Which hybrids are called while something is built, and by none of the others."""
    names: dict[CodeType, str] = {
        inspect.unwrap(hybrid).__code__: name for name, hybrid in found.items()
    }
    seen: dict[str, None] = {}

    def watch(frame: FrameType, event: str, _: Any) -> None:
        inside = (above.f_code in names for above in _above(frame))
        if event == "call" and frame.f_code in names and not any(inside):
            seen[names[frame.f_code]] = None

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        build()
    finally:
        sys.setprofile(before)
    return list(seen)


def _above(frame: FrameType) -> Iterator[FrameType]:
    while frame.f_back is not None:
        frame = frame.f_back
        yield frame


def table(arms: Sequence[RecordedArm]) -> str:
    """What was measured, a row an arm."""
    rows = []
    for arm in arms:
        headline, split = arm.measure
        first = arm.results[0]
        rows.append(
            [
                first.experiment,
                arm.name,
                f"{headline} ({split}) {rounded(arm.mean(headline))}",
                ", ".join(str(result.seed) for result in arm.results),
                ", ".join(dict.fromkeys(result.commit for result in arm.results)),
            ]
        )
    return as_markdown(rows, ["experiment", "arm", "measured", "seeds", "commits"])
