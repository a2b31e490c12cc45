"""Windows of a series: each once, in its place, and none that looks ahead."""

import dataclasses

import numpy as np
import pytest

from recattn_jax.data import Source, Stretch, forecast_data, forecast_windows
from recattn_jax.errors import UserError


def counting(steps, begin=0, split="train"):
    """A series whose first feature is the number of its step."""
    values = np.stack([np.arange(steps), -np.arange(steps)], axis=1).astype(np.float32)
    return Stretch(split, values, begin)


def source(**lengths):
    total = np.cumsum([0, *lengths.values()])
    series = np.random.default_rng(0).normal(5, 3, (total[-1], 2)).astype(np.float32)
    splits = {
        split: [{"columns": ["a", "b"], "series": series[start:end]}]
        for split, start, end in zip(lengths, total[:-1], total[1:], strict=True)
    }
    return Source("numbers", "0", splits), series


def test_a_pass_has_every_window_in_order():
    windows = forecast_windows(counting(12), batch=4, length=3, horizon=2, seed=0)
    batches = list(windows.epoch())
    weights = np.concatenate([batch["weight"] for batch in batches])
    inputs = np.concatenate([batch["inputs"] for batch in batches])[weights > 0, :, 0]
    targets = np.concatenate([batch["targets"] for batch in batches])[weights > 0, :, 0]
    assert len(weights) == 8 and len(inputs) == 12 - 3 - 2 + 1 == windows.count
    assert inputs.tolist() == [[i, i + 1, i + 2] for i in range(8)]
    assert targets.tolist() == [[i + 3, i + 4] for i in range(8)]


def test_training_has_every_window_once_an_epoch_whatever_the_hosts():
    one = forecast_windows(counting(11), batch=4, length=3, horizon=1, seed=5)
    halves = [forecast_windows(counting(11), 4, 3, 1, 5, host, 2) for host in range(2)]
    with one.batches(0) as whole, halves[0].batches(0) as first, halves[1].batches(0) as second:
        seen = []
        for _ in range(one.steps_per_epoch):
            batch = next(whole)
            parts = [next(first), next(second)]
            for name in one.spec:
                joined = np.concatenate([part[name] for part in parts])
                np.testing.assert_array_equal(batch[name], joined)
            seen += batch["inputs"][:, 0, 0].tolist()
    assert sorted(seen) == list(range(8)) and seen != sorted(seen)
    assert one.fingerprint == halves[1].fingerprint
    assert one.fingerprint != forecast_windows(counting(12), 4, 3, 1, 5).fingerprint
    with one.batches(1) as later:
        assert next(later)["inputs"][:, 0, 0].tolist() == seen[4:8]


def test_a_split_looks_back_into_the_one_before():
    found, series = source(train=30, validation=6, test=5)
    data = forecast_data(
        found, 8, 2, lambda stretch, host, hosts: forecast_windows(stretch, 4, 8, 2, 0, host, hosts)
    )
    scaled = data.vocabularies["series"].of_series(series)
    for split, start, end in (("validation", 30, 36), ("test", 36, 41)):
        batches = list(data.evaluation[split].epoch())
        real = np.concatenate([batch["weight"] for batch in batches]) > 0
        targets = np.concatenate([batch["targets"] for batch in batches])[real]
        inputs = np.concatenate([batch["inputs"] for batch in batches])[real]
        assert len(targets) == end - start - 2 + 1
        np.testing.assert_array_equal(targets[0], scaled[start : start + 2])
        np.testing.assert_array_equal(targets[-1], scaled[end - 2 : end])
        np.testing.assert_array_equal(inputs[0], scaled[start - 8 : start])
    np.testing.assert_allclose(scaled[:30].mean(axis=0), 0, atol=1e-6)


def test_the_summary_says_what_needs_no_network():
    line = np.arange(60, dtype=np.float32)[:, None]
    parts = {"train": line[:40], "validation": line[40:]}
    found = Source(
        "line", "0", {split: [{"columns": ["a"], "series": part}] for split, part in parts.items()}
    )
    data = forecast_data(found, 4, 3, lambda s, host, hosts: forecast_windows(s, 2, 4, 3, 0))
    step = 1 / np.std(np.arange(40))
    repeat = np.mean(np.square(step * np.arange(1, 4)))
    assert f"validation: repeat-last MSE {repeat:.4f} MAE {2 * step:.4f}" in data.summary
    assert "linear MSE 0.0000 MAE 0.0000" in data.summary


def test_too_short_a_series_is_refused():
    with pytest.raises(UserError, match="train split: 4 steps hold no window of 3 and 2 more"):
        forecast_windows(counting(4), 2, 3, 2, 0)
    bare = Source("bare", "0", {"train": [{"series": np.ones((9, 1))}]})
    with pytest.raises(UserError, match="bare: no table, for it has only series"):
        forecast_data(bare, 3, 2, lambda *arguments: None)
    with pytest.raises(UserError, match="no split train"):
        forecast_data(source(test=9)[0], 3, 2, lambda s, host, hosts: None)
    found, _ = source(train=9)
    twice = dataclasses.replace(found, splits={"train": [*found.splits["train"]] * 2})
    with pytest.raises(UserError, match="numbers: 2 series in train, expected one"):
        forecast_data(twice, 3, 2, lambda s, host, hosts: None)
    with pytest.raises(UserError, match="horizon 0: expected 1"):
        forecast_windows(counting(4), 2, 3, 0, 0)
