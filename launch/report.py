"""Compares runs: a table on stdout and in <workdir>/report.md, and figures of their loss curves.

  python -m launch.report --workdir=runs
  python -m launch.report --workdir=runs --record

The second evaluates every finished run that experiments/results.jsonl does not have yet, appends a
line for it, and makes experiments/RESULTS.md and its figure anew.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from launch import app, compile_records
from launch.evaluate import check_vocabularies
from recattn_jax.analysis import results_page
from recattn_jax.analysis.figures import comparison, loss_curves
from recattn_jax.analysis.reports import (
    RunSummary,
    as_markdown,
    as_text,
    curves,
    find_runs,
    numbers,
    table,
)
from recattn_jax.analysis.results import (
    Result,
    append_result,
    check_finished,
    complete,
    read_results,
    recorded,
    tell,
)
from recattn_jax.errors import RunError, UserError
from recattn_jax.training.evaluation import evaluate
from recattn_jax.training.experiment_file import (
    CHECKOUT,
    load_experiment_file,
    trusted_experiment_file,
)
from recattn_jax.training.metrics import write_atomically
from recattn_jax.training.runs import load_run
from recattn_jax.untrusted import markdown, one_line

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
    """Writes the report into `root` and prints its table."""
    runs = find_runs(root)
    if not runs:
        raise UserError(f"--workdir={root}: no run folder in it")
    rows = table(runs)
    damage = [f"{run.name}: {'; '.join(run.damage)}" for run in runs if run.damage]
    figures = draw(root, runs)
    all_numbers = [line for run in runs for line in numbers(run)]
    page = ["# Runs", "", as_markdown(rows), ""]
    if all_numbers:
        page += ["Best and last evaluations:", ""]
        page += [*(f"- {markdown(line)}" for line in all_numbers), ""]
    page += [*(f"![{f.stem}]({f.name})" for f in figures)]
    if damage:
        page += ["", "Damaged or unfinished folders:", ""]
        page += [f"- {markdown(line)}" for line in damage]
    try:
        (root / "report.md").write_text("\n".join(page) + "\n", encoding="utf-8")
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"--workdir={root}: the report cannot be written there") from error
    print(as_text(rows))
    for line in all_numbers:
        print(one_line(line))
    for line in damage:
        print(one_line(f"damaged: {line}"))
    print(f"written: {', '.join(str(file) for file in (root / 'report.md', *figures))}")


def draw(root: Path, runs: list[RunSummary]) -> list[Path]:
    """One figure an experiment, since losses of different data do not compare."""
    files = []
    for name in dict.fromkeys(_file_name(run) for run in runs):
        found = [curve for run in runs if _file_name(run) == name for curve in curves(run)]
        if found:
            file = root / name
            loss_curves(found, "loss, nats a token", file)
            files.append(file)
    return files


def _file_name(run: RunSummary) -> str:
    """Of the figure of its experiment, whatever the folder says that this is."""
    return f"curves_{re.sub(r'[^0-9A-Za-z_.-]', '_', run.experiment)[:80]}.png"


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
