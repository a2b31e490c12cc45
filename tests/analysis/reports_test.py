import json

import pytest

from recattn_jax.analysis import reports


def write_run(folder, config, values, **record):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    run = {"config_file": "experiments/some.py", "headline": "bits_per_byte", "ended": "done"}
    (folder / "run.json").write_text(json.dumps(run | record))
    lines = []
    for step, value in enumerate(values, start=1):
        numbers = {"step": step, "loss": value, "seconds": 60.0 * step}
        lines.append(numbers | {"split": "train"})
        lines.append(numbers | {"split": "validation", "bits_per_byte": 2 * value})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def root(tmp_path):
    write_run(tmp_path / "worse", {"lr": 0.1, "seed": 0}, [5.0, 4.0])
    write_run(tmp_path / "deep" / "better", {"lr": 0.2, "seed": 0}, [5.0, 3.0, 3.5])
    write_run(tmp_path / "other", {"size": 1}, [1.0], config_file="other.py")
    return tmp_path


def test_runs_are_found_at_any_depth_best_first_within_an_experiment(root):
    runs = reports.find_runs(root)
    assert [run.name for run in runs] == ["other", "deep/better", "worse"]
    assert [run.best for run in runs] == [(2.0, 1), (6.0, 2), (8.0, 2)]
    assert not any(run.damage for run in runs)


def test_more_may_be_better_and_all_numbers_are_shown(tmp_path):
    write_run(tmp_path / "lower", {}, [5.0, 4.0], maximise=True)
    write_run(tmp_path / "higher", {}, [5.0, 6.0, 6.0, 3.0], maximise=True)
    runs = reports.find_runs(tmp_path)
    assert [run.name for run in runs] == ["higher", "lower"]
    assert [run.best for run in runs] == [(12.0, 2), (10.0, 1)]
    assert reports.numbers(runs[0]) == [
        "higher, step 2: loss 6, bits_per_byte 12",
        "higher, step 4: loss 3, bits_per_byte 6",
    ]
    write_run(tmp_path / "one", {}, [5.0])
    assert len(reports.numbers(reports.find_runs(tmp_path / "one")[0])) == 1


def test_steps_that_were_not_finite_are_told_and_are_no_damage(tmp_path):
    write_run(tmp_path / "run", {}, [5.0, 4.0])
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        for step in (3, 7):
            record = {"step": step, "split": "nonfinite", "what": "loss is nan", "seconds": 200.0}
            file.write(json.dumps(record) + "\n")
    (run,) = reports.find_runs(tmp_path)
    assert not run.damage and len(reports.curves(run)) == 2
    assert reports.numbers(run)[-1] == "run: 2 steps were not finite, the last 7"


def test_a_row_says_what_differs_and_what_was_reached(root):
    table = reports.table(reports.find_runs(root))
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


def test_one_folder_can_be_the_root(root):
    (run,) = reports.find_runs(root / "worse")
    assert run.name == "worse"


def test_unfinished_runs_are_shown_as_far_as_they_came(tmp_path):
    write_run(tmp_path / "killed", {}, [4.0], ended="killed")
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "spl')
    write_run(tmp_path / "young", {}, [], ended="killed")
    rows = reports.table(reports.find_runs(tmp_path))
    assert [row[0] for row in rows] == ["killed", "young"]
    assert {row[3] for row in rows} == {"running or killed"}
    assert rows[1][5:] == ("none yet", "none yet", "none yet")


@pytest.mark.parametrize(
    ("file", "content", "word"),
    [
        ("config.json", "{", "config.json cannot be read"),
        ("run.json", "[]", "run.json cannot be read (no JSON object)"),
        ("run.json", None, "run.json is missing"),
        ("config.json", b"\xff\xfe", "config.json cannot be read"),
        ("metrics.jsonl", "no json\n", "metrics.jsonl cannot be read"),
        ("metrics.jsonl", b"\xff\n", "metrics.jsonl cannot be read"),
        (
            "metrics.jsonl",
            '{"split": "train", "step": 1}\n' * 2,
            "2 lines of metrics.jsonl lack a number",
        ),
        (
            "metrics.jsonl",
            '{"step": 1, "split": "validation", "loss": 1.0, "seconds": 1.0}\n',
            "1 lines of metrics.jsonl lack a number",
        ),
    ],
)
def test_damage_is_named_and_the_rest_is_shown(tmp_path, file, content, word):
    write_run(tmp_path / "good", {}, [4.0])
    write_run(tmp_path / "bad", {}, [4.0])
    damaged = tmp_path / "bad" / file
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(content if isinstance(content, bytes) else content.encode())
    runs = {run.name: run for run in reports.find_runs(tmp_path)}
    assert not runs["good"].damage and any(word in line for line in runs["bad"].damage)
    rows = {row[0]: row[3] for row in reports.table(list(runs.values()))}
    assert rows == {"good": "done", "bad": "damaged"}
    for run in runs.values():
        reports.curves(run)


def test_tables_are_aligned_and_a_bar_cannot_break_them(root):
    write_run(root / "a|b", {}, [1.0])
    rows = reports.table(reports.find_runs(root))
    text = reports.as_text(rows).splitlines()
    assert len(text) == 2 + len(rows) and text[1].startswith("---")
    markdown = reports.as_markdown(rows).splitlines()
    assert len({len(line) for line in markdown}) == 1
    assert any("a\\|b" in line for line in markdown)
