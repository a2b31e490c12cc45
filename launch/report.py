"""Compares runs: a table on stdout and in <workdir>/report.md, and figures of their loss curves.

python -m launch.report --workdir=runs
"""

from collections.abc import Callable
from pathlib import Path

from absl import flags

from launch import app
from recattn_jax.analysis.figures import loss_curves
from recattn_jax.analysis.reports import (
    RunSummary,
    as_markdown,
    as_text,
    curves,
    find_runs,
    numbers,
    table,
)
from recattn_jax.errors import UserError


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    flags.DEFINE_string("workdir", "runs", "folder that holds run folders", flag_values=flag_values)
    return argv, lambda: report(Path(flag_values.workdir))


def report(root: Path) -> None:
    """Writes the report into `root` and prints its table."""
    if not root.is_dir():
        raise UserError(f"--workdir={root}: no such folder")
    runs = find_runs(root)
    if not runs:
        raise UserError(f"--workdir={root}: no run folder in it")
    rows = table(runs)
    damage = [f"{run.name}: {'; '.join(run.damage)}" for run in runs if run.damage]
    figures = draw(root, runs)
    all_numbers = [line for run in runs for line in numbers(run)]
    page = ["# Runs", "", as_markdown(rows), ""]
    if all_numbers:
        page += ["Best and last evaluations:", "", *(f"- {line}" for line in all_numbers), ""]
    page += [*(f"![{f.stem}]({f.name})" for f in figures)]
    if damage:
        page += ["", "Damaged or unfinished folders:", "", *(f"- {line}" for line in damage)]
    try:
        (root / "report.md").write_text("\n".join(page) + "\n", encoding="utf-8")
    except PermissionError as error:
        raise UserError(f"--workdir={root}: the report cannot be written there") from error
    print(as_text(rows))
    for line in all_numbers:
        print(line)
    for line in damage:
        print(f"damaged: {line}")
    print(f"written: {', '.join(str(file) for file in (root / 'report.md', *figures))}")


def draw(root: Path, runs: list[RunSummary]) -> list[Path]:
    """One figure an experiment, since losses of different data do not compare."""
    files = []
    for experiment in dict.fromkeys(run.experiment for run in runs):
        found = [curve for run in runs if run.experiment == experiment for curve in curves(run)]
        if found:
            file = root / f"curves_{experiment}.png"
            loss_curves(found, "loss, nats a token", file)
            files.append(file)
    return files


if __name__ == "__main__":
    app.run(command, __doc__)
