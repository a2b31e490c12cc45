"""Compares runs: a table on stdout, and report.html, report.md and figures in <workdir>.

  python -m launch.report --workdir=runs
  python -m launch.report --workdir=runs --record

The second evaluates every finished run that experiments/results.jsonl does not have yet, appends a
line for it, and makes experiments/RESULTS.md and its figure anew.
"""

import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from launch import app, compile_records
from launch.evaluate import check_vocabularies
from recattn_jax.analysis import results_page
from recattn_jax.analysis.arms import Section, sections
from recattn_jax.analysis.figures import comparison, loss_curves
from recattn_jax.analysis.report_page import as_page, panel, write_report_page
from recattn_jax.analysis.reports import as_text, numbers, table
from recattn_jax.analysis.results import (
    Result,
    append_result,
    check_finished,
    complete,
    read_results,
    recorded,
    tell,
)
from recattn_jax.analysis.summaries import RunSummary, find_runs
from recattn_jax.errors import RunError, UserError
from recattn_jax.files import write_atomically
from recattn_jax.training.evaluation import evaluate
from recattn_jax.training.experiment_file import (
    CHECKOUT,
    load_experiment_file,
    trusted_experiment_file,
)
from recattn_jax.training.loading import load_run
from recattn_jax.untrusted import one_line

FOLDER = CHECKOUT / "experiments"
FIGURE = "results.png"


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    flags.DEFINE_string("workdir", "runs", "folder that holds run folders", flag_values=flag_values)
    flags.DEFINE_bool(
        "record", False, "append finished runs to the committed results", flag_values=flag_values
    )

    def main() -> None:
        root = Path(app.required(flag_values, "workdir"))
        if not root.is_dir():
            raise UserError(f"--workdir={root}: no such folder")
        if flag_values.record:
            record(root, FOLDER)
        else:
            report(root)

    return argv, main


def report(root: Path) -> None:
    """Writes the report into `root` and prints its table.

    Raises:
      StorageError: a file cannot be written.
    """
    runs = find_runs(root)
    if not runs:
        raise UserError(f"--workdir={root}: no run folder in it")
    found = sections(runs)
    figures = draw(root, found)
    write_atomically(root / "report.md", as_page(found, figures))
    write_report_page(root / "report.html", f"Runs in {root}", found)
    print(as_text(table(runs)))
    for line in (line for run in runs for line in numbers(run)):
        print(one_line(line))
    for run in runs:
        if run.damage:
            print(one_line(f"damaged: {run.name}: {'; '.join(run.damage)}"))
    names = ["report.html", "report.md", *(name for some in figures for name in some)]
    print(f"written: {', '.join(str(root / name) for name in names)}")


def draw(root: Path, found: Sequence[Section]) -> list[list[str]]:
    """Draws each section, since losses of different data do not compare; gives the files' names."""
    figures: list[list[str]] = []
    for section in found:
        stem = re.sub(r"[^0-9A-Za-z_.-]", "_", section.experiment)[:80]
        # Another section may have that name, whatever folders say that theirs is.
        taken = {name for names in figures for name in names}
        curves, bars = _new(f"curves_{stem}", taken), _new(f"bars_{stem}", taken)
        names = []
        if drawn := section.curves("loss"):
            loss_curves(drawn, "loss", root / curves)
            names.append(curves)
        if compared := panel(section):
            comparison([compared], root / bars)
            names.append(bars)
        figures.append(names)
    return figures


def _new(stem: str, taken: Collection[str]) -> str:
    """The name of a PNG that is not taken."""
    names = itertools.chain([f"{stem}.png"], (f"{stem}_{i}.png" for i in itertools.count(2)))
    return next(name for name in names if name not in taken)


def record(root: Path, folder: Path) -> None:
    """Appends what runs under `root` reached to the results in `folder`, and makes their page.

    A line is on disk before the next run is evaluated. What has no result is said and left out.
    """
    file = folder / "results.jsonl"
    known = read_results(file)
    for run in find_runs(root):
        try:
            check_finished(run)
            config_file = in_checkout(str(run.record["config_file"]), run.path)
            defaults = load_experiment_file(CHECKOUT / config_file).get_config().to_dict()
            told = tell(run, config_file, defaults)
            if recorded(told, known):
                print(one_line(f"{run.name}: recorded already"))
                continue
            result = measure(run, told)
        except RunError as error:
            print(one_line(f"{run.name}: left out: {error}"))
            continue
        known.append(result)
        append_result(file, result)
        value = result.metrics[result.headline]
        reached = f"{run.name}: {result.headline} {value:.4f} on {result.split}"
        print(one_line(reached), flush=True)
    write_page(folder, known)


def measure(run: RunSummary, told: Mapping[str, Any]) -> Result:
    """Evaluates a run's best checkpoint on the test split, or validation where there is no test."""
    trained = load_run(run.path)
    data = trained.experiment.data()
    check_vocabularies(trained, data)
    split = "test" if "test" in data.evaluation else "validation"
    metrics = evaluate(
        trained.experiment, trained.params, data.evaluation[split], trained.vocabularies
    )
    return complete(
        told,
        seed=trained.experiment.seed,
        data=data.summary.splitlines()[0],
        split=split,
        metrics=metrics,
        step=trained.step,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(trained.params)),
    )


def in_checkout(config_file: str, run: Path) -> str:
    """The path of an experiment file, found as a run finds it, relative to the checkout.

    Raises:
      UserError: it is not there, or may have come with the run.
    """
    file = trusted_experiment_file(config_file, run)
    if not file.is_relative_to(CHECKOUT):
        raise UserError(f"its experiment file {config_file} is not in {CHECKOUT}")
    return file.relative_to(CHECKOUT).as_posix()


def write_page(folder: Path, results: Sequence[Result]) -> None:
    """Makes `RESULTS.md`, and its figure where there is something to compare."""
    compared = results_page.panels(results)
    if compared:
        comparison(compared, folder / FIGURE)
    write_atomically(folder / "RESULTS.md", made_page(results, compile_records.read(folder)))
    print(f"{len(results)} results in {folder / 'RESULTS.md'}")


def made_page(results: Sequence[Result], compiled: Sequence[compile_records.Found]) -> str:
    """The page of these results, with what their experiment files say now."""
    files = {result.config_file: CHECKOUT / result.config_file for result in results}
    docstrings = {
        name: results_page.docstring_of(file.read_text(encoding="utf-8"))
        for name, file in files.items()
        if file.exists()
    }
    figure = FIGURE if results_page.panels(results) else None
    return results_page.page(results, docstrings, figure) + compile_records.section(compiled)


if __name__ == "__main__":
    app.run(command, __doc__)
