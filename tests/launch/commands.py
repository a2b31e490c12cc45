"""Runs a command inside the test's process, as the command line would."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch import app

TEXT = "".join(f"line {i}: the cat sat on the m\u00e4t.\n" for i in range(40))
TINY = str(Path(__file__).with_name("tiny_experiment.py"))
TINY_SCORED = str(Path(__file__).with_name("tiny_scored_experiment.py"))


@dataclasses.dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclasses.dataclass(frozen=True)
class Caller:
    """Calls commands and collects what they print."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, module, *arguments: str) -> Result:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            app.run(module.command, module.__doc__, argv=[module.__name__, *arguments])
        captured = self.capsys.readouterr()
        code = leaving.value.code
        return Result(code=0 if code is None else code, out=captured.out, err=captured.err)


def python_process(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Starts `python -m ...` in a process of its own, as a person would."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def everything_under(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, with its content, but for what Python's import leaves."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }
