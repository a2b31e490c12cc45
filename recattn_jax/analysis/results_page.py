"""The page of committed results: a section an experiment, a row an arm, all from the lines."""

import ast
import dataclasses
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recattn_jax.analysis.arms import differing, grouped
from recattn_jax.analysis.figures import Panel
from recattn_jax.analysis.reports import as_markdown
from recattn_jax.analysis.results import Result, as_flag

INTRO = """# Results

Made by `python -m launch.report --record` from [results.jsonl](results.jsonl) and the docstrings of
the experiment files; do not edit.

Only what was run is written here. Values are of the best checkpoint by validation, on the split in
brackets; several seeds have a mean, and each its own value behind it. Minutes are of training, from
the first dispatched step to the last, evaluations included and compilation not. A + after a commit:
files differed from it.

Earlier runs, recorded by hand: [NOTES.md](NOTES.md). Speed and memory:
[benchmarks/NOTES.md](benchmarks/NOTES.md).
"""
FIGURE = """
![the mixers of each experiment, side by side]({name})

Bars are means over seeds, points are seeds. Where bars are close the vertical axis begins above
zero, and says so.
"""
# What a docstring says for the page: paragraphs that begin so.
_PROSE = ("Reference:", "Tried:")
# How many scores a table has room for.
_SCORES = 4
# What bars are of where the headline is the loss, the first that there is, and whether more of it
# is better. Of texts the accuracy counts tokens that were given the right ones before them.
_BARS = {
    "bleu": True,
    "rouge1": True,
    "exact_match": True,
    "symbol_error_rate": False,
    "accuracy": True,
}
# Parts of other scores: shown where there is room.
_PARTS = ("precision", "recall", "token_accuracy")


@dataclasses.dataclass(frozen=True)
class RecordedArm:
    """Runs that differ in nothing but their seed.

    Args:
      name: what tells it from the other arms of its experiment.
      changed: what differs from the experiment file.
      settings: all that its runs share: the config without the seed, and the digest of the data.
      results: the runs, by seed.
      latest: the place of its latest line.

    >>> arm = RecordedArm("lstm", {"mixer": "lstm"}, {"mixer": "lstm"}, results=[], latest=0)
    >>> arm.mean("loss") is None
    True
    """

    name: str
    changed: Mapping[str, Any]
    settings: Mapping[str, Any]
    results: Sequence[Result]
    latest: int

    @property
    def measure(self) -> tuple[str, str]:
        """The headline and the split that it is measured on."""
        return self.results[0].headline, self.results[0].split

    def mean(self, metric: str) -> float | None:
        """The mean of a metric over the runs that have it; None if none does."""
        values = self.values(metric)
        return math.fsum(values) / len(values) if values else None

    def values(self, metric: str) -> list[float]:
        """A metric of the runs that have it, by seed."""
        found = [result.metrics.get(metric) for result in self.results]
        return [value for value in found if value is not None]


def make_arms(results: Sequence[Result]) -> list[RecordedArm]:
    """Groups results that differ in nothing but their seed.

    Args:
      results: of one experiment, in the order of their lines.

    Returns:
      The arms: the experiment file's own first, then by how much and what they change.

    >>> make_arms([])
    []
    """
    groups = grouped(results, lambda one: [_settings(one), one.changed, one.split, one.headline])
    some = sorted(groups, key=lambda group: (len(group[0].changed), _words(group[0])))
    return [
        RecordedArm(
            name=name,
            changed=group[0].changed,
            settings=_settings(group[0]),
            results=sorted(group, key=lambda result: result.seed),
            latest=max(results.index(result) for result in group),
        )
        for name, group in zip(_names([group[0] for group in some]), some, strict=True)
    ]


def _settings(result: Result) -> dict[str, Any]:
    config = {key: value for key, value in result.config.items() if key != "seed"}
    return config | {"data": result.data.rpartition("; ")[2]}


def _names(firsts: Sequence[Result]) -> list[str]:
    """What each arm changes; and where several change the same, in what they differ still.

    They may: the file's own values have changed in between, or paths are given or not.
    """
    mixers = {result.config.get("mixer") for result in firsts}
    names = []
    for result in firsts:
        twins = [_settings(other) for other in firsts if other.changed == result.changed]
        own = _settings(result)
        more = {key: own.get(key, "absent") for key in differing(twins)}
        name = _words(result, more) or "as in the file"
        if "mixer" not in result.changed and len(mixers) > 1:
            name += f" (mixer={result.config['mixer']})"
        names.append(name)
    return names


def _words(result: Result, more: Mapping[str, Any] | None = None) -> str:
    values = sorted({**result.changed, **(more or {})}.items())
    return " ".join(f"{key}={as_flag(value) or repr('')}" for key, value in values)


def page(results: Sequence[Result], docstrings: Mapping[str, str], figure: str | None) -> str:
    """The whole page.

    Args:
      results: all lines.
      docstrings: of each experiment file, by its path as the results have it.
      figure: the name of the comparison's figure; None if there is nothing to compare.

    Returns:
      Markdown; the same for the same arguments.

    >>> page([], {}, None).splitlines()[-1]
    'Nothing is recorded yet.'
    """
    parts = [INTRO]
    if figure:
        parts.append(FIGURE.format(name=figure))
    for config_file, some in _experiments(results).items():
        parts.append(_section(config_file, some, docstrings.get(config_file, "")))
    if not results:
        parts.append("\nNothing is recorded yet.\n")
    return "".join(parts)


def _experiments(results: Iterable[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.config_file):
        found.setdefault(result.config_file, []).append(result)
    return found


def _section(config_file: str, results: Sequence[Result], docstring: str) -> str:
    title, prose = read_docstring(docstring)
    arms = make_arms(results)
    measures = dict.fromkeys(arm.measure for arm in arms)
    parts = [
        f"## {title or config_file}",
        *prose,
        f"```\n{base_command(results)}\n```",
        "with `--config.seed=SEED` and what the row says, as `--config.KEY=VALUE`:",
        *(_table([arm for arm in arms if arm.measure == measure]) for measure in measures),
    ]
    return "\n" + "\n\n".join(parts) + "\n"


def read_docstring(docstring: str) -> tuple[str, list[str]]:
    r"""The title of an experiment's section, and the paragraphs of its docstring that go there.

    Args:
      docstring: of the experiment file.

    Returns:
      The title, and the paragraphs.

    >>> read_docstring("A title.\n\nReference: a paper.\n\nHardware: any.")
    ('A title', ['Reference: a paper.'])
    """
    paragraphs = [paragraph.strip("\n") for paragraph in docstring.split("\n\n")]
    title = " ".join(paragraphs[0].split()).removesuffix(".")
    return title, [paragraph for paragraph in paragraphs[1:] if paragraph.startswith(_PROSE)]


def docstring_of(source: str) -> str:
    """The docstring of a Python file, without running it.

    Args:
      source: the text of the file.

    Returns:
      The docstring; "" where there is none.

    >>> docstring_of("'An experiment.'")
    'An experiment.'
    """
    return ast.get_docstring(ast.parse(source)) or ""


def base_command(results: Sequence[Result]) -> str:
    """The words that the commands of all these results share, the seed left out.

    Where runs differ in more than what a row says, that is a path: the row of the table names it.

    Args:
      results: at least one.

    Returns:
      A line for a shell.

    >>> base_command(arm.results)  # doctest: +SKIP
    'python -m launch.train --config=experiments/adding.py'
    """
    commands = [shlex.split(result.command) for result in results]
    shared = [
        word
        for word in commands[0]
        if not word.startswith("--config.seed=") and all(word in other for other in commands)
    ]
    return shlex.join(shared)


def _table(arms: Sequence[RecordedArm]) -> str:
    (headline, split), others = arms[0].measure, other_scores(arms)
    columns = ["arm", "seeds", f"{headline} ({split})", *others, "best step", "minutes"]
    columns += ["parameters", "commit", "hardware"]
    return as_markdown([_row(arm, others) for arm in arms], columns)


def other_scores(arms: Sequence[RecordedArm]) -> list[str]:
    """The metrics that stand beside the headline: scores, and not those of single classes.

    Args:
      arms: of one experiment, at least one.

    Returns:
      Their names, the first of a table first.

    >>> other_scores(arms)  # doctest: +SKIP
    ['accuracy', 'macro_f1']
    """
    names = dict.fromkeys(name for arm in arms for r in arm.results for name in r.metrics)
    hidden = (arms[0].measure[0], "loss")
    found = [name for name in names if "/" not in name and name not in hidden]
    return sorted(found, key=lambda name: name in _PARTS)[: _SCORES - 1]


def _row(arm: RecordedArm, others: Sequence[str]) -> list[str]:
    headline, results = arm.measure[0], arm.results
    value = rounded(arm.mean(headline))
    if len(results) > 1:
        value += f" ({', '.join(map(rounded, arm.values(headline)))})"
    minutes = math.fsum(result.training_minutes for result in results) / len(results)
    return [
        arm.name,
        ", ".join(str(result.seed) for result in results),
        value,
        *(rounded(arm.mean(other)) for other in others),
        _each(f"{result.step} of {result.steps}" for result in results),
        f"{minutes:.1f}",
        _each(f"{result.parameters:,}" for result in results),
        _each(result.commit for result in results),
        _each(result.hardware for result in results),
    ]


def _each(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def rounded(value: float | None) -> str:
    """A number with four digits that mean something.

    Args:
      value: None where there is none.

    Returns:
      A word.

    >>> [rounded(value) for value in (0.83211, 28.3, 12345.6, None)]
    ['0.8321', '28.30', '12,346', '-']
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}"


def panels(results: Sequence[Result]) -> list[Panel]:
    """What the figure compares: the mixers of every experiment that has run more than one.

    Args:
      results: all lines.

    Returns:
      A panel an experiment, each mixer with the headlines of its seeds.

    >>> panels([])
    []
    """
    found = []
    for some in _experiments(results).values():
        arms = by_mixer(make_arms(some))
        if len(arms) > 1:
            metric, maximise = compared(list(arms.values()))
            bars = {mixer: arm.values(metric) for mixer, arm in arms.items()}
            quantity = f"{metric.replace('_', ' ')} ({some[0].split})"
            found.append(Panel(some[0].experiment, quantity, maximise, bars))
    return found


def compared(arms: Sequence[RecordedArm]) -> tuple[str, bool]:
    """What bars are of, and whether more of it is better.

    The headline; but where that is the loss, as it is where texts are written, which takes too long
    for every evaluation, or where all that is held out is soon right, a score beside it.

    Args:
      arms: of one experiment, at least one.

    Returns:
      The name of the metric, and whether more is better.

    >>> compared(arms)  # doctest: +SKIP
    ('accuracy', True)
    """
    headline = arms[0].measure[0]
    scores = [name for name in _BARS if all(arm.values(name) for arm in arms)]
    if headline == "loss" and scores:
        return scores[0], _BARS[scores[0]]
    return headline, arms[0].results[0].maximise


def by_mixer(arms: Sequence[RecordedArm]) -> dict[str, RecordedArm]:
    """The arms to compare: those that differ in nothing but `mixer`, as many as there are.

    Of several such groups the one with the most mixers, then the one that changes least, then the
    latest.

    Args:
      arms: of one experiment.

    Returns:
      The arms by their mixer; none where none has one.

    >>> by_mixer([])
    {}
    """

    def rest(arm: RecordedArm) -> list[Any]:
        return [{k: value for k, value in arm.settings.items() if k != "mixer"}, arm.measure]

    some = grouped([arm for arm in arms if "mixer" in arm.settings], rest)
    groups = [{arm.settings["mixer"]: arm for arm in reversed(group)} for group in some]
    if not groups:
        return {}

    def preference(group: dict[str, RecordedArm]) -> tuple[int, int, int]:
        changes = min(len(arm.changed) for arm in group.values())
        return len(group), -changes, max(arm.latest for arm in group.values())

    chosen = max(groups, key=preference)

    def place(mixer: str) -> tuple[bool, bool, str]:
        return "+" not in mixer, mixer == "attention", mixer  # the hybrid, recurrence, attention

    return {mixer: chosen[mixer] for mixer in sorted(chosen, key=place)}
