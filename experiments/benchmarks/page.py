"""Makes README.md of the recorded results of all suites.

python -m experiments.benchmarks.page
"""

import ast
from collections.abc import Mapping
from pathlib import Path

from absl import app

from experiments.benchmarks import (
    determinism,
    endurance,
    layers,
    pipeline,
    scaling,
    startup,
    streaming,
    train_step,
)
from experiments.benchmarks.harness import FOLDER, RESULTS, Result, Suite
from recattn_jax.analysis.reports import as_markdown
from recattn_jax.training.metrics import write_atomically

SUITES = tuple(
    module.SUITE
    for module in (
        layers,
        train_step,
        scaling,
        streaming,
        pipeline,
        startup,
        endurance,
        determinism,
    )
)
PAGE = FOLDER / "README.md"
INTRO = """# Benchmarks

Made by `python -m experiments.benchmarks.page` from [results](results) and the docstrings of the
suites; do not edit. What was tried and learned: [NOTES.md](NOTES.md).

Programs that are compared take turns in one process: every round takes one sample of each, in an
order that rotates; a sample is as many calls as take 20 ms, each waited for, after one untimed.
Times are medians over rounds; quartiles are in the JSON. Ratios are ours to theirs: less is faster.
A + after a commit: files differed from it.
"""


def load(folder: Path) -> dict[str, Result]:
    """The recorded results by suite."""
    return {
        suite.name: Result.read(folder / f"{suite.name}.json")
        for suite in SUITES
        if (folder / f"{suite.name}.json").exists()
    }


def page(results: Mapping[str, Result]) -> str:
    """The page of these results; a suite without any says so."""
    return INTRO + "".join(_section(suite, results.get(suite.name)) for suite in SUITES)


def _section(suite: Suite, result: Result | None) -> str:
    source = (FOLDER / f"{suite.name}.py").read_text(encoding="utf-8")
    title, command, prose = read_docstring(ast.get_docstring(ast.parse(source)) or "")
    parts = [f"## {title}", *prose, f"```\n{result.command if result else command}\n```"]
    if result is None:
        parts.append("Nothing is recorded yet.")
    else:
        parts += [ran_on(result), *(f"{line}." for line in result.left_out)]
        for table in suite.tables(result.rows):
            parts += [f"**{table.title}**", as_markdown(table.cells, table.columns)]
        parts.append(f"![{title}](results/{suite.name}.png)")
    return "\n" + "\n\n".join(parts) + "\n"


def read_docstring(docstring: str) -> tuple[str, str, list[str]]:
    r"""Title, command and the other paragraphs of a suite's docstring.

    >>> read_docstring("A title.\n\n    python -m some\n\nMore.")
    ('A title', 'python -m some', ['More.'])
    """
    title, *paragraphs = [part.strip("\n") for part in docstring.split("\n\n")]
    commands = [part.strip() for part in paragraphs if part.startswith("    ")]
    prose = [part for part in paragraphs if not part.startswith("    ")]
    return " ".join(title.split()).removesuffix("."), "".join(commands), prose


def ran_on(result: Result) -> str:
    """Machine, versions, commit and minutes in a sentence."""
    found = result.environment
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    commit = (
        f"commit {found['commit'][:7]}{'+' * found['dirty']}" if found["commit"] else "no commit"
    )
    device = "" if found["device"] == "cpu" else f", {found['device']}"
    return f"{found['cpu']}{device}; {versions}; {commit}; {result.minutes:.1f} minutes."


def main(argv: list[str]) -> None:
    """Writes the page."""
    del argv
    results = load(RESULTS)
    write_atomically(PAGE, page(results))
    print(f"{len(results)} of {len(SUITES)} suites in {PAGE.name}")


if __name__ == "__main__":
    app.run(main)
