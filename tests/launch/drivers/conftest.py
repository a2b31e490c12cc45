import os
from pathlib import Path

import pytest

from tests.launch.drivers.stand_ins import StandIns

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def from_anywhere(monkeypatch):
    """Processes that drivers start find the checkout."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return StandIns(tmp_path)
