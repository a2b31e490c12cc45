"""What to type once a run is trained: the commands that work on it, ready to be pasted."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recattn_jax.analysis.inspection import can_inspect
from recattn_jax.data import Data, Steps
from recattn_jax.errors import UserError
from recattn_jax.tasks import LanguageModel, Scored, Task
from recattn_jax.training.experiment_file import trusted_experiment_file
from recattn_jax.training.exporting import can_export

_TEXT = "To be, or not to be"


def commands(task: Task, data: Data, workdir: Path, config_path: str) -> list[str]:
    """The commands that apply a trained model.

    Args:
      task: of the experiment.
      data: of the experiment, opened.
      workdir: the run's folder.
      config_path: the experiment file, as the person gave it.

    Returns:
      Lines for a shell.
    """
    run = {"workdir": str(workdir)}
    if not _is_found(config_path, workdir):
        run["config"] = config_path
    found = []
    if answers(task, data.vocabularies):
        found.append(_line("generate", run))
    found.append(
        _line("evaluate", run, split="test" if "test" in data.evaluation else "validation")
    )
    if can_inspect(task, data.vocabularies, _TEXT):
        found.append(_line("inspect", run, text=_TEXT))
    if can_export(task):
        found.append(_line("export", run, out=str(workdir / "exported")))
    # Beside other runs, but never all that is below where one happens to stand, or below /.
    root = workdir if workdir.parent == workdir.parent.parent else workdir.parent
    return [*found, _line("report", {"workdir": str(root)})]


def _line(command: str, run: Mapping[str, str], **more: str) -> str:
    words = [f"--{name}={shlex.quote(value)}" for name, value in {**run, **more}.items()]
    return " ".join(["python -m", f"launch.{command}", *words])


def answers(task: Task, vocabularies: Mapping[str, Any]) -> bool:
    """Whether a person can ask a model something: what answers nothing can still be evaluated.

    Args:
      task: of the experiment.
      vocabularies: of the run, by name.
    """
    typed = all(v.from_lines for v in vocabularies.values() if isinstance(v, Steps))
    return (isinstance(task, (LanguageModel, Scored)) and typed) or "columns" in vocabularies


def _is_found(config_path: str, workdir: Path) -> bool:
    """Whether other commands run the experiment file of a run without being told."""
    try:
        trusted_experiment_file(config_path, workdir)
    except UserError:
        return False
    return True
