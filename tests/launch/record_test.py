"""Recording finished runs as committed results."""

import json
import re
import shutil
from pathlib import Path

import pytest

from launch import compile_records, evaluate, report
from recattn_jax.analysis.results import read_results
from tests.launch.commands import TINY

FILE = "tests/launch/tiny_experiment.py"
# A machine's folder, at the start of a value or of a word in one.
MACHINE = re.compile(r"""(["= '])(/|~|\.)""")


@pytest.fixture
def committed(call, trained, monkeypatch):
    """A folder in place of the checkout's, so that no test touches what is committed."""
    folder = Path("committed").absolute()
    folder.mkdir()
    monkeypatch.setattr(report, "FOLDER", folder)
    config = json.loads(Path("run/config.json").read_text())
    config["text"] = str(Path("text.txt").absolute())
    Path("run/config.json").write_text(json.dumps(config))
    return folder


def test_a_finished_run_is_recorded_once(call, committed):
    shutil.copytree("run", "runs/finished")
    shutil.copytree("run", "runs/killed")
    record = json.loads(Path("run/run.json").read_text())
    Path("runs/killed/run.json").write_text(json.dumps(record | {"ended": "killed"}))
    shutil.copytree("run", "runs/elsewhere")
    shutil.copy(TINY, "mine.py")
    Path("runs/elsewhere/run.json").write_text(
        json.dumps(record | {"config_file": str(Path("mine.py").absolute())})
    )
    first = call(report, "--record")
    assert first.code == 0, first.err
    assert "killed: left out: it has not finished: running or killed\n" in first.out
    assert re.search("elsewhere: left out: .*mine.py, which is code", first.out)
    assert "\nfinished: bits_per_byte" in first.out and "1 results in" in first.out
    line, page = (committed / "results.jsonl").read_bytes(), (committed / "RESULTS.md").read_bytes()

    (result,) = read_results(committed / "results.jsonl")
    assert not MACHINE.search(line.decode())
    assert (result.config_file, result.changed, result.seed) == (FILE, {}, 0)
    assert result.command == f"python -m launch.train --config={FILE} --config.text=TEXT"
    assert (result.step, result.steps, result.parameters) == (4, 4, 2313)
    evaluated = json.loads(call(evaluate, "--workdir=run", "--split=test").out)
    assert result.split == "test"
    assert result.metrics == {name: evaluated[name] for name in result.metrics}
    assert evaluated.keys() - result.metrics.keys() == {"workdir", "step", "split"}
    assert result.commit in (record["commit"][:7], record["commit"][:7] + "+")
    assert result.hardware == record["attempts"][0]["hardware"]
    assert f"| {result.metrics['bits_per_byte']:.3f} " in page.decode()

    again = call(report, "--record")
    assert again.code == 0 and "finished: recorded already\n" in again.out
    assert (committed / "results.jsonl").read_bytes() == line
    assert (committed / "RESULTS.md").read_bytes() == page


def test_data_or_weights_that_are_gone_are_said(call, committed):
    Path("text.txt").unlink()
    result = call(report, "--record", "--workdir=run")
    assert result.code == 0, result.err
    assert "run: left out: " in result.out and "text.txt" in result.out
    shutil.rmtree("run/checkpoints")
    result = call(report, "--record", "--workdir=run")
    assert "run: left out: the run in run has no checkpoint yet" in result.out
    assert not (committed / "results.jsonl").exists()
    assert "Nothing is recorded yet" in (committed / "RESULTS.md").read_text()


def test_a_damaged_line_stops_before_anything_is_written(call, committed):
    (committed / "results.jsonl").write_text("{}\n")
    result = call(report, "--record", "--workdir=run")
    assert result.code == 4
    assert "results.jsonl line 1 is damaged" in result.err and result.err.count("\n") == 1
    assert (committed / "results.jsonl").read_text() == "{}\n"
    assert not (committed / "RESULTS.md").exists()


def test_the_committed_page_is_made_of_the_committed_lines():
    """If not, `python -m launch.report --record --workdir=ANY` makes it anew."""
    results = read_results(report.FOLDER / "results.jsonl")
    page = (report.FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    assert page == report.made_page(results, compile_records.read(report.FOLDER))
    for name in ("results.jsonl", compile_records.NAME):
        assert not MACHINE.search((report.FOLDER / name).read_text(encoding="utf-8"))
    assert all((report.FOLDER / name).is_file() for name in re.findall(r"\]\(([^)]+)\)", page))
