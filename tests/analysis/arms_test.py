"""Which runs are one arm, and what they reached together."""

import json

import numpy as np
import pytest

from recattn_jax.analysis.arms import differing, grouped, sections
from recattn_jax.analysis.summaries import find_runs
from tests.analysis.run_folders import write_run


def names(root):
    """Of the arms of the only section, each with the names of its runs."""
    (section,) = sections(find_runs(root))
    return {arm.name: [run.name for run in arm.runs] for arm in section.arms}


def test_what_differs_is_found_where_some_have_no_such_key():
    assert differing([{"a": 1, "b": [1]}, {"a": 1, "b": [2]}, {"b": [1]}]) == ["a", "b"]
    assert differing([{"a": float("nan")}, {"a": float("nan")}]) == differing([]) == []
    assert grouped([{"a": 1}, {"a": 2}, {"a": 1}], lambda some: some) == [
        [{"a": 1}, {"a": 1}],
        [{"a": 2}],
    ]


def test_runs_that_differ_in_their_seed_and_their_cache_are_one_arm(tmp_path):
    for seed, value in enumerate((4.0, 2.0, 3.0)):
        config = {"lr": 0.1, "seed": seed, "data_dir": f"/{seed}"}
        write_run(tmp_path / f"low{seed}", config, [value])
        write_run(tmp_path / f"high{seed}", config | {"lr": 0.2}, [value + 0.5])
    low, high = ["low1", "low2", "low0"], ["high1", "high2", "high0"]
    assert names(tmp_path) == {"lr=0.1": low, "lr=0.2": high}
    write_run(tmp_path / "tuned", {"lr": 0.1, "seed": 0}, [9.0], argv=["--init_from=elsewhere"])
    assert names(tmp_path) == {
        "no --init_from lr=0.1": low,
        "no --init_from lr=0.2": high,
        "--init_from=RUN lr=0.1": ["tuned"],
    }


def test_no_run_is_left_out_whatever_is_lost(tmp_path):
    write_run(tmp_path / "whole", {"a": 1}, [1.0])
    write_run(tmp_path / "young", {"a": 1}, [])
    write_run(tmp_path / "other", {"a": 1}, [1.0], headline="loss")
    write_run(tmp_path / "lost", {"a": 1}, [1.0])
    (tmp_path / "lost" / "config.json").write_text("{")
    found = {
        section.headline: {arm.name: [run.name for run in arm.runs] for arm in section.arms}
        for section in sections(find_runs(tmp_path))
    }
    assert found == {
        "bits_per_byte": {"all runs": ["whole", "young"], "lost, config lost": ["lost"]},
        "loss": {"all runs": ["other"]},
    }


def test_arms_are_ordered_by_their_mean_and_long_names_are_told_apart(tmp_path):
    long = "x" * 300
    write_run(tmp_path / "a", {"text": long + "a", "seed": 0}, [1.0], maximise=True)
    write_run(tmp_path / "b", {"text": long + "a", "seed": 1}, [4.0], maximise=True)
    write_run(tmp_path / "c", {"text": long + "b", "seed": 0}, [3.0], maximise=True)
    write_run(tmp_path / "d", {"text": long + "c", "seed": 0}, [], maximise=True)
    found = names(tmp_path)
    assert list(found.values()) == [["c"], ["b", "a"], ["d"]]
    assert all(len(name) < 210 and name.startswith("text=xxx") for name in found)


@pytest.mark.parametrize("metric", ["loss", "bits_per_byte"])
def test_a_curve_has_a_row_for_each_run_that_has_the_metric(tmp_path, metric):
    values = [[8.0, 4.0, 2.0], [6.0, 5.0], [], [7.0, 1e300, 3.0]]
    for seed, some in enumerate(values):
        write_run(tmp_path / str(seed), {"seed": seed}, some)
    (section,) = sections(find_runs(tmp_path))
    (curve,) = [curve for curve in section.curves(metric) if curve.split == "validation"]
    scale = 1 if metric == "loss" else 2
    wanted = scale * np.array([[8, 4, 2], [6, 5, np.nan], [7, np.nan, 3]])
    assert curve.steps_T.tolist() == [1, 2, 3]
    order = np.argsort(-curve.values_NT[:, 0])
    np.testing.assert_array_equal(curve.values_NT[order], wanted[[0, 2, 1]])
    np.testing.assert_array_equal(curve.mean_T, np.nanmean(wanted, axis=0))
    np.testing.assert_array_equal(curve.low_T, np.nanmin(wanted, axis=0))
    np.testing.assert_array_equal(curve.high_T, np.nanmax(wanted, axis=0))
    assert curve.runs_T.tolist() == [3, 2, 2]
    assert section.arms[0].curve("train", "bits_per_byte") is None


def test_of_lines_of_one_step_the_last_counts(tmp_path):
    write_run(tmp_path / "run", {}, [5.0])
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        again = {"step": 1, "split": "train", "loss": 4.0, "seconds": 90.0}
        file.write(json.dumps(again) + "\n")
    (section,) = sections(find_runs(tmp_path))
    curve = section.arms[0].curve("train", "loss")
    assert (curve.values_NT.tolist(), curve.minutes_T.tolist()) == ([[4.0]], [1.5])
