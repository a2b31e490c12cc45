"""Experiment files are code: how one is found, when it may be run, and how it is imported."""

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from recattn_jax import untrusted
from recattn_jax.errors import RunError, UserError

CHECKOUT = Path(__file__).resolve().parents[2]


def load_experiment_file(path: str | Path) -> ModuleType:
    r"""Imports an experiment file, with `get_config()` and `build(config)`: this runs its code.

    A relative path is looked for from here, then from the checkout of this package.

    Args:
      path: the file.

    Returns:
      The module.

    Raises:
      UserError: no such file, it is no Python or fails when it is imported, or it lacks one of the
        two functions.

    >>> code = "get_config = dict\nbuild = print\n"
    >>> _ = Path("tiny.py").write_text(code, encoding="utf-8")
    >>> load_experiment_file("tiny.py").get_config()
    {}
    """
    file = find_experiment_file(path)
    if file.suffix != ".py":
        raise UserError(f"experiment file {path} is not a Python file (.py)")
    name = f"experiment_file_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up here
    try:
        spec.loader.exec_module(module)
    except RunError:
        raise
    except Exception as error:
        raise UserError(_at_import(file, error)) from error
    for function in ("get_config", "build"):
        if function not in vars(module):
            raise UserError(f"experiment file {file} has no function {function}()")
    return module


def find_experiment_file(path: str | Path) -> Path:
    """Finds an experiment file from here, then from the checkout of this package.

    Raises:
      UserError: no such file.
    """
    file = next((f for f in (Path(path), CHECKOUT / path) if untrusted.is_file(f)), None)
    if file is None:
        raise UserError(f"no experiment file {path}; give the path of a Python file")
    return file


def trusted_experiment_file(recorded: str, run: Path) -> Path:
    """The experiment file that a run's folder names, if that may be run without being asked.

    An experiment file is code, and the folder may come from anybody, with other files beside it. So
    the file must lie in this checkout, and not in what may have come with the run: of a run in this
    checkout all that is below the same first folder, so for runs/a nothing below runs. Links are
    resolved first.

    Args:
      recorded: what run.json says.
      run: the run's folder.

    Raises:
      UserError: no such file, or it must be named; says how.
    """
    file, folder = find_experiment_file(recorded).resolve(), run.resolve()
    # Files are compared, and not names: some file systems take RUNS for runs.
    above = (folder, *folder.parents)
    suspect = next((place for place in above if place.parent == CHECKOUT), folder)
    ours = any(place.samefile(CHECKOUT) for place in file.parents)
    if not ours or any(place.samefile(suspect) for place in file.parents):
        raise UserError(
            f"{run} was made by {file}, which is code and may have come with it; if you trust that"
            f" file, name it: --config={file} (--init_config of --init_from)"
        )
    return file


def _at_import(file: Path, error: Exception) -> str:
    """One line about what happened in a file, with the last of its own lines that was reached."""
    if isinstance(error, SyntaxError):
        return f"{error.filename or file}, line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame.lineno for frame in frames if frame.filename == str(file.resolve())]
    where = f", line {own[-1]}" if own else ""
    return f"{file}{where}: {type(error).__name__}: {error}"
