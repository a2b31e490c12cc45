"""Series to steps: scales of training, spectra, lines that people give."""

import json

import numpy as np
import pytest

from recattn_jax.data import Labels, Measurements, Motion, Spectra, bucketed, series_examples
from recattn_jax.data.vocabularies import from_json
from recattn_jax.errors import UserError
from tests.stand_ins import sound

RANDOM = np.random.default_rng(0)
SERIES = [RANDOM.normal((1, 2, 3), (4, 5, 6), (n, 3)) for n in (7, 300, 2)]
STEPS = Measurements.of(SERIES)
TONE = (9999 * np.sin(np.arange(2000) / 5)).astype(np.int16)


def test_training_has_mean_zero_and_variance_one():
    scaled = np.concatenate([STEPS.of_series(series) for series in SERIES])
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-5)
    alike = Measurements.of(SERIES, alike=True)
    together = np.concatenate([alike.of_series(series) for series in SERIES])
    np.testing.assert_allclose([together.mean(), together.std()], [0, 1], atol=1e-5)
    assert len(set(alike.mean)) == 1 and len(set(STEPS.mean)) == 3


def test_motion_is_what_changes_from_frame_to_frame():
    frames = np.array([[[9, 250]], [[9, 0]], [[10, 0]]], np.uint8)
    steps = Motion.of([frames])
    moved = np.sqrt([[0, 0], [0, 250], [1, 0]])
    np.testing.assert_allclose(
        steps.of_series(frames), (moved - moved.mean()) / moved.std(), rtol=1e-5
    )
    assert from_json(steps.to_json()) == steps and steps.features == 2
    with pytest.raises(UserError, match="into a line"):
        steps.of_line("1,2")


def test_what_never_changes_is_only_moved():
    frames = np.full((5, 2, 2), 1e6, np.float32)
    frames[:, 0, 0] = range(5)
    steps = Measurements.of([frames])
    assert steps.features == 4
    np.testing.assert_array_equal(steps.of_series(frames)[:, 1:], 0)


def test_a_small_deviation_beside_a_large_mean_is_one():
    series = 1e6 + RANDOM.normal(0, 0.5, (1000, 1))
    assert abs(Measurements.of([series]).deviation[0] - 0.5) < 0.05
    with pytest.raises(UserError, match="series of 2 and of 3 values a step"):
        Measurements.of([np.ones((2, 2)), np.ones((2, 3))])


def test_lines_are_read_as_files_have_them():
    given = STEPS.of_line("1,2:3,4:5,6")
    np.testing.assert_array_equal(given, STEPS.of_series(np.array([[1, 3, 5], [2, 4, 6]])))
    faults = {"1:2": "2 values a step, expected 3", "1,x:1,1:1,1": "'x'", "1:1,2:3": "equal length"}
    for line, said in {**faults, "nan:1:1": "finite"}.items():
        with pytest.raises(UserError, match=said):
            STEPS.of_line(line)


def test_sound_becomes_spectra_of_its_length(tmp_path):
    steps = Spectra.of([TONE, TONE[:900]], rate=8000, window=200, hop=80, bands=12)
    spectra = steps.of_series(TONE)
    assert spectra.shape == (1 + (2000 - 200) // 80, 12)
    # A sound that is padded to another power of two is the same sound.
    np.testing.assert_allclose(spectra[:9], steps.of_series(TONE[: 200 + 8 * 80]), atol=1e-4)
    assert steps.of_series(TONE[:3]).shape == (1, 12)
    (tmp_path / "tone.wav").write_bytes(sound(TONE))
    np.testing.assert_array_equal(steps.of_line(f" {tmp_path}/tone.wav\n"), spectra)
    (tmp_path / "fast.wav").write_bytes(sound(TONE, 16000))
    for name, said in {"fast.wav": "16000 samples a second", "none.wav": "No such file"}.items():
        with pytest.raises(UserError, match=rf"{name}: .*{said}"):
            steps.of_line(str(tmp_path / name))


def test_steps_are_stored_with_the_run():
    spectra = Spectra.of([TONE], rate=8000, window=200, hop=80, bands=5)
    for steps in (STEPS, spectra):
        assert from_json(json.loads(json.dumps(steps.to_json()))) == steps


def test_series_become_rows_of_features():
    records = [{"series": s, "label": name} for s, name in zip(SERIES, "aba", strict=True)]
    vocabularies = {"series": STEPS, "label": Labels(("a", "b"))}
    examples = series_examples("train", records, vocabularies, length=8)
    assert "cut at 8 steps: 1 series, 292 steps" in examples.summary()
    pipeline = bucketed(examples, 2, (4, 8), seed=0)
    assert pipeline.spec["inputs"].shape == (2, 8, 3) and pipeline.spec["inputs"].dtype == "float32"
    found = {}
    for batch in pipeline.epoch():
        for row, number in enumerate(batch["example"]):
            real = batch["segments"][row] > 0
            assert not batch["inputs"][row][~real].any()
            if number >= 0:
                found[int(number)] = batch["inputs"][row][real]
    for number, series in enumerate(SERIES):
        np.testing.assert_array_equal(found[number], STEPS.of_series(series)[:8])
    changed = [records[0] | {"series": SERIES[0] + 1e-3}, *records[1:]]
    assert series_examples("train", changed, vocabularies, 8).digest != examples.digest
    with pytest.raises(UserError, match="record 0: 2 values a step, expected 3"):
        series_examples("train", [{"series": np.ones((3, 2)), "label": "a"}], vocabularies, 8)
    with pytest.raises(UserError, match="a Labels, makes no features"):
        series_examples("train", records, vocabularies | {"series": vocabularies["label"]}, 8)


def test_scales_that_are_none_are_refused():
    with pytest.raises(UserError, match="there are none"):
        Measurements.of([])
    for mean, deviation in ((0.0, 0.0), (float("inf"), 1.0)):
        with pytest.raises(ValueError, match="above 0"):
            Measurements((mean,), (deviation,))
    with pytest.raises(UserError, match="hop of spectra is 0, must be 1 or more"):
        Spectra.of([TONE], rate=8000, window=200, hop=0, bands=5)
