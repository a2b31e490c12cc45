"""Tables of runs."""

from recattn_jax.analysis import reports
from recattn_jax.analysis.summaries import find_runs
from tests.analysis.run_folders import write_run


def test_a_row_says_what_differs_and_what_was_reached(root):
    table = reports.table(find_runs(root))
    rows = {row[0]: dict(zip(reports.COLUMNS, row, strict=True)) for row in table}
    assert rows["deep/better"] == {
        "run": "deep/better",
        "experiment": "some",
        "changed": "lr=0.2",
        "ended": "done",
        "step": "3",
        "validation": "bits_per_byte 6.0000 at 2",
        "train loss": "3.5000",
        "minutes": "3.0",
    }
    assert rows["other"]["changed"] == ""


def test_unfinished_runs_are_shown_as_far_as_they_came(tmp_path):
    write_run(tmp_path / "killed", {}, [4.0], ended="killed")
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "spl')
    write_run(tmp_path / "young", {}, [], ended="killed")
    rows = reports.table(find_runs(tmp_path))
    assert [row[0] for row in rows] == ["killed", "young"]
    assert {row[3] for row in rows} == {"running or killed"}
    assert rows[1][5:] == ("none yet", "none yet", "none yet")


def test_tables_are_aligned_and_a_bar_cannot_break_them(root):
    write_run(root / "a|b", {}, [1.0])
    rows = reports.table(find_runs(root))
    text = reports.as_text(rows).splitlines()
    assert len(text) == 2 + len(rows) and text[1].startswith("---")
    markdown = reports.as_markdown(rows).splitlines()
    assert len({len(line) for line in markdown}) == 1
    assert any("a\\|b" in line for line in markdown)
