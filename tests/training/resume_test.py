"""Kill -9 at any moment, type the command again: the run ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recattn_jax.training.metrics import read_records

ROOT = Path(__file__).resolve().parents[2]


def command(workdir, cache, *kill):
    line = [sys.executable, "-m", "tests.training.child", str(workdir), str(cache), *kill]
    # The compiler that a user has, not the hurried one of the tests: here every bit counts.
    env = os.environ | {"XLA_FLAGS": ""}
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=env)


def trained(workdir):
    """What interruptions must not change: the bits of the last state, the numbers by step."""
    steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    meta = json.loads((workdir / "checkpoints" / str(steps[-1]) / "meta" / "metadata").read_text())
    records = read_records(workdir / "metrics.jsonl")
    for record in records:
        record.pop("targets_per_second", None)
        record.pop("seconds")
    return steps[-1], meta["digest"], records


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compilations")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, cache):
    workdir = tmp_path_factory.mktemp("run") / "uninterrupted"
    done = command(workdir, cache)
    assert done.returncode == 0, done.stderr
    state = trained(workdir)
    assert [r["step"] for r in state[2] if r["split"] == "train"] == list(range(1, 25))
    return state


def killed_and_resumed(workdir, cache, kills):
    """Kills the run again and again, then lets it end; counts kills, and those after a save."""
    happened = late = 0
    for point, passage in kills:
        saved = any(p.name.isdigit() for p in workdir.glob("checkpoints/*"))
        done = command(workdir, cache, point, str(passage))
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        happened += done.returncode != 0
        late += done.returncode != 0 and saved
    done = command(workdir, cache)
    assert done.returncode == 0, done.stderr
    return happened, late


def test_a_killed_run_ends_as_if_nothing_had_happened(tmp_path, cache, uninterrupted):
    kills = [("after_save", 1), ("torn_flush", 3), ("before_rename", 2)]
    happened, late = killed_and_resumed(tmp_path / "run", cache, kills)
    assert happened == 3 and late == 2
    assert trained(tmp_path / "run") == uninterrupted


@pytest.mark.slow
def test_twenty_kills(tmp_path, cache, uninterrupted):
    points = ["in_save", "random", "before_rename", "in_prefetch", "after_flush", "in_replace"]
    points += ["torn_flush", "random", "after_rename", "after_save"]
    chance = random.Random(0)
    happened = late = story = 0
    while happened < 20:
        kills = [(points[(4 * story + i) % len(points)], chance.randint(1, 5)) for i in range(4)]
        print(story, kills)
        workdir = tmp_path / str(story)
        more, more_late = killed_and_resumed(workdir, cache, kills)
        happened, late, story = happened + more, late + more_late, story + 1
        assert trained(workdir) == uninterrupted, kills
    assert late >= happened / 2
