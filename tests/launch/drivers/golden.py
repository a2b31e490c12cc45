"""Compares what a dry run prints with a file that a person has read."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent


def check(name: str, printed: str, folder: Path) -> None:
    """Set REWRITE_GOLDEN to write the file instead, then read it."""
    general = printed.replace(sys.executable, "PYTHON").replace(str(folder), "FOLDER")
    file = HERE / "golden" / name
    if os.environ.get("REWRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(general)
    assert general == file.read_text(), f"{file} differs; REWRITE_GOLDEN=1 writes it anew"
