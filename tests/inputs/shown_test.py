"""Names from data in figures, tables and pages: text, whatever they hold and however long."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from launch import evaluate
from recattn_jax.analysis import sweeps
from recattn_jax.analysis.figures import (
    MOST_CLASSES,
    Curve,
    Panel,
    comparison,
    confusion,
    loss_curves,
)
from recattn_jax.analysis.reports import as_markdown, as_text
from recattn_jax.analysis.sweeps import FINISHED, Trial
from recattn_jax.data import Labels
from recattn_jax.data.records import surveyed
from recattn_jax.errors import UserError
from recattn_jax.training import load_experiment_file
from recattn_jax.training.loading import Run
from recattn_jax.untrusted import markdown
from tests.inputs.mutations import WORDS
from tests.launch.commands import TINY_SCORED

NAMES = sorted({*WORDS, "$\\frac{", "_hidden", "$x$", "\u4e2d\u6587", "line\nend", "x" * 100_000})
PNG = b"\x89PNG"


def test_any_name_stands_in_a_figure(tmp_path):
    file = tmp_path / "a.png"
    confusion(np.eye(len(NAMES), dtype=np.int64), NAMES, file)
    assert file.read_bytes().startswith(PNG) and file.stat().st_size < 1_000_000
    steps, numbers = np.array([1, 2]), np.array([[0.2, 0.1]])
    loss_curves([Curve(name, "$", steps, numbers, numbers) for name in NAMES], "$l", file)
    loss_curves([Curve("_hidden", "train", steps, numbers, numbers)], "loss", file)  # alone
    comparison([Panel("$x^{", "$y_{", True, {"$": [0.5], "$_{": [0.4]})], file)
    trials = [Trial(n, FINISHED, {"$k^{": name}, 1, float(n)) for n, name in enumerate(NAMES)]
    sweeps.parallel_coordinates(trials, ["$k^{"], [], "$h", False, file)
    sweeps.importance_bars({"$k^{": 1.0}, "$h", 9, file)
    assert file.read_bytes().startswith(PNG)


def test_a_name_is_drawn_as_it_is_written(tmp_path):
    """And not as a formula: the same letters without the signs would be another figure."""
    for name in ("$a$", "a"):
        confusion(np.eye(1, dtype=np.int64), [name], tmp_path / f"{len(name)}.png")
    assert (tmp_path / "3.png").read_bytes() != (tmp_path / "1.png").read_bytes()


def test_a_matrix_of_too_many_classes_is_refused_before_it_is_made():
    file = load_experiment_file(TINY_SCORED)
    labels = Labels(tuple(map(str, range(MOST_CLASSES + 1))))
    experiment = file.build(file.get_config())
    run = Run(Path("run"), None, experiment, None, {"label": labels}, 1)
    with pytest.raises(UserError, match=f"{MOST_CLASSES + 1} classes, and no more than"):
        evaluate.drawer(run, Path("a.png"))


def test_a_table_has_the_rows_that_it_has():
    rows = [(name, "end") for name in NAMES]
    text, page = as_text([(*row, *[""] * 6) for row in rows]), as_markdown(rows, ("|name", "b"))
    assert len(text.splitlines()) == len(page.splitlines()) == len(rows) + 2
    for line in page.splitlines():
        bare = line.replace("\\\\", "").replace("\\|", "")
        assert bare.count("|") == 3, line[:80]
        assert "<" not in bare.replace("\\<", "") and "`" not in bare.replace("\\`", "")
    assert markdown("![a](http://b)") == "!\\[a\\](http://b)"


def test_no_cell_of_a_sweep_is_a_formula_to_a_spreadsheet():
    names = [name for name in NAMES if len(name) < 1000] + ["@SUM(1)", "-x", "+x", "-1e-3"]
    trials = [
        Trial(n, FINISHED, {"=key": name}, 1, -float(n), reason="=HYPERLINK(1)")
        for n, name in enumerate(names)
    ]
    rows = list(csv.reader(io.StringIO(sweeps.as_csv(trials, ["=key"], "h"))))
    assert len(rows) == len(names) + 1
    for row in rows:
        for cell in row:
            assert cell[:1] not in ("=", "+", "@") and (cell[:1] != "-" or float(cell) <= 0), cell


def test_the_summary_of_data_steers_nothing():
    records = [{"text": "a", "label": "\x1b[2Jx"}, {"text": "b", "label": "y\nforged: line"}]
    summary = surveyed("set", {"train": records}).summary()
    assert "\x1b" not in summary and "\n" not in summary and "\\x1b[2Jx 1" in summary


def test_classes_are_explained_without_control_characters(capsys):
    evaluate.explain("label \x1b]0;x\x07\nnext")
    assert capsys.readouterr().err == "label \\x1b]0;x\\x07\nnext\n"
