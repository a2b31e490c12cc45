"""Readers of series, sound and video: what they read, and each fault with its place."""

import gzip
import io
import lzma
import pathlib
import re
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from recattn_jax.data import (
    image_rows,
    labelled_frames,
    labelled_series,
    labelled_waves,
    prepared_records,
    table,
    transcribed_waves,
    transcripts,
)
from recattn_jax.data.features import flat, steps_of
from recattn_jax.data.readers.prepared import _series
from recattn_jax.errors import UserError
from tests.stand_ins import sound

CASES = "# about\n@problemName x\n@classLabel true a b\n@data\n1,2,3:4,5,6:a\n7,8:9,1:b\n\n2:3:b\n"
IMAGES = "1,2,3,4,x\n5,6,7,8,y\n9,9,9,9,y\n"
HOURS = "date,a,b\n2020-01-01 00:00:00,1,2\n2020-01-01 01:00:00,3,4\n2020-01-01 02:00:00,5,6\n"
WAVE = sound(np.arange(-50, 50))


def series(folder, data):
    return labelled_series({"train": folder / "train.ts"}, data, validation=0.0)


def images(folder, data):
    return image_rows({"train": folder / "train"}, data, rows=2, validation=0.0)


def waves(folder, data):
    return labelled_waves(folder, data, 8000, validation=0.0)


def said(folder, data):
    text = transcripts(folder / "texts.tsv")
    return transcribed_waves(folder, data, 8000, text, validation=0.0)


def hours(folder, data, splits=(("train", 2), ("test", 1)), columns=()):
    return table(folder / "hours.csv", data, "date", dict(splits), columns)


def recordings(folder, data, **splits):
    splits = splits or {"test": (2,)}
    return labelled_frames(folder / "video.npz", data, "frames", "what", "who", splits, 0.0)


def archive(**changed):
    """Three recordings of two frames of one pixel."""
    arrays = {
        "frames": np.arange(6, dtype=np.float32).reshape(6, 1),
        "offsets": np.array([0, 2, 4, 6]),
        "what": np.array([7, 8, 7]),
        "who": np.array([1, 1, 2]),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **{name: a for name, a in (arrays | changed).items() if a is not None})
    return buffer.getvalue()


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def listed(records):
    return [(record["series"].tolist(), record["label"]) for record in records]


def test_cases_are_steps_of_all_dimensions(tmp_path):
    write(tmp_path, {"train.ts": CASES})
    source = series(tmp_path, tmp_path / "data")
    expected = [([[1, 4], [2, 5], [3, 6]], "a"), ([[7, 9], [8, 1]], "b"), ([[2, 3]], "b")]
    assert listed(source.splits["train"]) == expected
    assert source.splits["train"][0]["series"].dtype == np.float32
    assert "label in train: a 1, b 2" in source.summary()
    again = series(tmp_path, tmp_path / "data")  # prepared now
    assert again.digest == source.digest and listed(again.splits["train"]) == expected


def test_images_are_rows(tmp_path):
    write(tmp_path, {"train": gzip.compress(IMAGES.encode())})
    (tmp_path / "train").rename(tmp_path / "train.gz")
    source = image_rows({"train": tmp_path / "train.gz"}, tmp_path / "data", 2, validation=0.0)
    assert listed(source.splits["train"])[0] == ([[1, 2], [3, 4]], "x")


def test_series_that_tfds_prepared(tmp_path):
    write(tmp_path, {"train.ts": CASES})
    source = series(tmp_path, tmp_path / "data")
    folder = tmp_path / "data" / source.name / "1.0.0"
    again = prepared_records(folder, {"series": "series", "label": "label"}, validation=0.0)
    for one, two in zip(source.splits["train"], again.splits["train"], strict=True):
        assert one["label"] == two["label"]
        np.testing.assert_array_equal(one["series"], two["series"])
    with pytest.raises(UserError, match=r"no feature 'label' of numbers over time, only series"):
        prepared_records(folder, {"series": "label"})


def test_features_of_a_sequence_stand_side_by_side():
    numbers = {"x": np.float64, "y": np.uint8, "name": tfds.features.Text()}
    features = flat(tfds.features.FeaturesDict({"steps": tfds.features.Sequence(numbers)}))
    made = {name: steps_of(feature) for name, feature in features.items()}
    assert made["steps/name"] is None
    assert made["steps/x"]([1, 2]).dtype == np.float32 and made["steps/y"]([1]).dtype == np.uint8
    assert steps_of(tfds.features.Tensor(shape=(), dtype=np.int32)) is None
    labels = tfds.features.Sequence(tfds.features.ClassLabel(names=["a"]))
    assert steps_of(labels) is None
    side_by_side = _series(pathlib.Path("set"), ["steps/x", "steps/y"], features)
    np.testing.assert_array_equal(
        side_by_side({"steps": {"x": [1, 2, 3], "y": [4, 5, 6]}}), [[1, 4], [2, 5], [3, 6]]
    )
    for values in ([], [1, np.nan]):
        with pytest.raises(ValueError, match="steps/x: no steps, or a number that is not finite"):
            _series(pathlib.Path("set"), ["steps/x"], features)({"steps": {"x": values}})


def test_waves_are_transcribed_by_a_table_or_a_rule(tmp_path):
    files = {"a/1.wav": WAVE, "a/2.wav": WAVE, "texts.tsv": "a/2.wav\tso be it\r\na/1.wav\tno \n"}
    write(tmp_path / "in", files)
    (split,) = said(tmp_path / "in", tmp_path / "data").splits.values()
    assert [record["text"] for record in split] == ["no", "so be it"]
    np.testing.assert_array_equal(split[0]["series"], np.arange(-50, 50))
    texts = dict(text=lambda name: name[-5], splits={"test": "2"}, validation=0.0)
    splits = transcribed_waves(tmp_path / "in", tmp_path / "data", 8000, **texts).splits
    assert [(name, split[0]["text"]) for name, split in splits.items()] == [
        ("train", "1"),
        ("test", "2"),
    ]
    with pytest.raises(UserError, match=r"1\.wav: its text is empty"):
        transcribed_waves(tmp_path / "in", tmp_path / "data", 8000, lambda name: "")


def test_waves_are_labelled_by_their_folders_or_names(tmp_path):
    files = {"one/b.wav": WAVE, "two/a.wav": sound(np.ones(3)), "two/notes.txt": "no sound"}
    write(tmp_path / "waves", files)
    (split,) = waves(tmp_path / "waves", tmp_path / "data").splits.values()
    assert [(len(r["series"]), r["label"]) for r in split] == [(100, "one"), (3, "two")]
    assert (
        np.array_equal(split[0]["series"], np.arange(-50, 50)) and split[0]["series"].dtype == "<i2"
    )
    packed = tmp_path / "waves.tar.xz"
    with tarfile.open(packed, "w:xz") as opened:
        opened.add(tmp_path / "waves", "top")
    source = labelled_waves(
        packed, tmp_path / "data", 8000, r"(\w)\.wav$", {"test": "/two/"}, validation=0.0
    )
    assert {name: [r["label"] for r in rows] for name, rows in source.splits.items()} == {
        "train": ["b"],
        "test": ["a"],
    }


def test_frames_are_split_by_who_is_seen(tmp_path):
    write(tmp_path, {"video.npz": archive()})
    splits = recordings(tmp_path, tmp_path / "data").splits
    assert listed(splits["train"]) == [([[0], [1]], "7"), ([[2], [3]], "8")]
    assert listed(splits["test"]) == [([[4], [5]], "7")]


def test_a_table_is_cut_by_counts_or_times(tmp_path):
    write(tmp_path, {"hours.csv": HOURS})
    by_count = hours(tmp_path, tmp_path / "data").splits
    assert by_count["train"][0]["series"].tolist() == [[1, 2], [3, 4]]
    assert by_count["test"][0]["times"] == ["2020-01-01 02:00:00"]
    assert by_count["train"][0]["columns"] == ["a", "b"]
    until = (("train", "2020-01-01 01:00"), ("validation", "2021-01-01"))
    by_time = hours(tmp_path, tmp_path / "data", until, ("b",)).splits
    assert [by_time[split][0]["series"].tolist() for split in ("train", "validation")] == [
        [[2]],
        [[4], [6]],
    ]


def unlike(folder, data):
    return labelled_series({"train": folder / "train.ts", "test": folder / "test.ts"}, data, 0.0)


def grouped(folder, data):
    return recordings(folder, data, validation=(2,), test=(2, 3))


def regrouped(folder, data):
    return recordings(folder, data, train=(1,), test=(2,))


def patterned(folder, data):
    return labelled_waves(folder, data, 8000, validation=0.0, splits={"test": "["})


def timed(folder, data):
    return hours(folder, data, (("train", "2020"),))


def shared(folder, data):
    return hours(folder, data, (("train", "2021-01-01T00:00+01:00"),))


WIDE = sound(np.ones(9)).replace(b"\x02\x00\x10\x00", b"\x02\x00\x18\x00")
SUMMER = "date,a\n2020-10-25T02:30+02:00,1\n2020-10-25T02:30+01:00,2\n"
FAULTS = {
    "no @data": (series, {"train.ts": CASES.replace("@data", "@date")}, r"train\.ts:5: .*# or @"),
    "no labels": (series, {"train.ts": "@data\n1:a\n"}, r"train\.ts:2: no line .* @classLabel"),
    "time stamps": (
        series,
        {"train.ts": "@timestamps true\n" + CASES},
        r"train\.ts:1: time stamps",
    ),
    "an unknown label": (
        series,
        {"train.ts": CASES.replace("3:b", "3:c")},
        r"ts:8: label 'c'.*a, b",
    ),
    "a NaN": (
        series,
        {"train.ts": CASES.replace("8:9", "NaN:9")},
        r"ts:6: dimension 1, value 2.*NaN",
    ),
    "a missing value": (
        series,
        {"train.ts": CASES.replace("5,", "?,")},
        r"ts:5: dimension 2.*'\?'",
    ),
    "dimensions": (series, {"train.ts": CASES.replace("2:3:b", "2:b")}, r"ts:8: 1 dimensions.* 2"),
    "unequal": (series, {"train.ts": CASES.replace("9,1", "9")}, r"ts:6: .*unequal lengths: 2, 1"),
    "no cases": (series, {"train.ts": CASES[: CASES.index("1,2")]}, r"ts:4: no cases"),
    "cut": (images, {"train": IMAGES[:-8]}, r"train:3: 1 pixels before the label, expected 4"),
    "rows": (images, {"train": "1,2,3,x\n"}, r"train:1: 3 pixels.*a multiple of 2"),
    "a word": (images, {"train": IMAGES.replace("6", "six")}, r"train:2: value 2 is 'six'"),
    "an empty label": (images, {"train": IMAGES.replace("x", " ")}, r"train:1: the label.*empty"),
    "another rate": (
        waves,
        {"a/b.wav": sound(np.ones(9), 44100)},
        r"b\.wav: 44100 .*expected 8000",
    ),
    "a cut header": (waves, {"a/b.wav": WAVE[:30]}, r"b\.wav: .*its header is cut off"),
    "cut sound": (waves, {"a/b.wav": WAVE[:-20]}, r"b\.wav: cut off: 90 samples.* 100"),
    "no sound": (waves, {"a/b.wav": sound(np.ones(0))}, r"b\.wav: cut off: 0 samples"),
    "no wav": (waves, {"a/b.wav": "text"}, r"b\.wav: no wav file"),
    "no files": (waves, {"a/b.txt": "text"}, r"no wav file is left for train"),
    "no folder": (waves, {"b.wav": WAVE}, r"b\.wav: no label in 'b\.wav'"),
    "no text": (said, {"a/b.wav": WAVE, "texts.tsv": "b.wav\tyes"}, r"b\.wav: no line in .*texts"),
    "no tab": (
        said,
        {"b.wav": WAVE, "texts.tsv": "b.wav\tyes\nc.wav no"},
        r"tsv:2: expected a path",
    ),
    "an empty text": (said, {"b.wav": WAVE, "texts.tsv": "b.wav\t "}, r"tsv:1: expected a path"),
    "three columns": (
        said,
        {"b.wav": WAVE, "texts.tsv": "b.wav\tyes\t2"},
        r"tsv:1: expected a path, a tab",
    ),
    "two texts": (said, {"b.wav": WAVE, "texts.tsv": "b.wav\ty\nb.wav\tz"}, r"tsv:2: .*already"),
    "an unsorted date": (
        hours,
        {"hours.csv": HOURS.replace("02:00:00", "00:30:00")},
        r"hours\.csv:4: date '2020-01-01 00:30:00' is not later than '2020-01-01 01:00:00'",
    ),
    "a missing date": (
        hours,
        {"hours.csv": HOURS.replace("2020-01-01 01:00:00", "")},
        r":3: ''.*no time",
    ),
    "a date of words": (
        hours,
        {"hours.csv": HOURS.replace("2020-01-01 01", "noon")},
        r":3: 'noon:00:00'",
    ),
    "no value": (hours, {"hours.csv": HOURS.replace("3,4", ",4")}, r":3: column 'a', .*''"),
    "no column": (
        hours,
        {"hours.csv": HOURS.replace("date", "time")},
        r":1: .*one column named 'date'",
    ),
    "columns": (hours, {"hours.csv": HOURS.replace("3,4", "3,4,5")}, r":3: 4 values, expected 3"),
    "too few lines": (
        hours,
        {"hours.csv": HOURS[: HOURS.rindex("2020")]},
        r"test would be lines 4 to 4.*lines 2 to",
    ),
    "not UTF-8": (hours, {"hours.csv": HOURS.encode() + b"\xff"}, r"hours\.csv:5: not UTF-8"),
    "no archive": (
        recordings,
        {"video.npz": archive()[:-30]},
        r"video\.npz: no whole NumPy archive",
    ),
    "no array": (recordings, {"video.npz": archive(what=None)}, r"video\.npz: holds no 'what'"),
    "offsets": (recordings, {"video.npz": archive(offsets=np.array([0, 2, 2, 6]))}, r"do not grow"),
    "an offset": (
        recordings,
        {"video.npz": archive(offsets=np.array([0, 6]))},
        r"3 of 'what' and 2",
    ),
    "not finite": (
        recordings,
        {"video.npz": archive(frames=np.array([[0], [1], [2], [np.nan], [4], [5]]))},
        r"video\.npz: recording 1, frame 1 is not finite",
    ),
    "another series": (
        unlike,
        {"train.ts": CASES, "test.ts": "@classLabel true a\n@data\n1,2:a\n"},
        r"test\.ts: series 0 of test has steps of float32\[1\], the first series float32\[2\]",
    ),
    "too large": (images, {"train": IMAGES.replace("6", "1e39")}, r"train:2: value 2 is '1e39'"),
    "a split twice": (
        grouped,
        {"video.npz": archive()},
        r"who \[2\] stand in validation and in test",
    ),
    "the rest": (regrouped, {"video.npz": archive()}, r"expected validation and test alone"),
    "unsigned": (
        recordings,
        {"video.npz": archive(offsets=np.array([0, 4, 2, 6], np.uint32))},
        r"do not grow",
    ),
    "fractions": (
        recordings,
        {"video.npz": archive(offsets=np.arange(4) * 2.0)},
        r"'offsets' .*float64",
    ),
    "a scalar": (
        recordings,
        {"video.npz": archive(who=np.array(1))},
        r"'who' holds int64\[\], expected",
    ),
    "complex": (
        recordings,
        {"video.npz": archive(frames=np.ones((6, 1)) * 1j)},
        r"complex128.*real",
    ),
    "an expression": (patterned, {"a/b.wav": WAVE}, r"test: '\[' is no regular expression"),
    "bits": (waves, {"a/b.wav": WIDE}, r"1 channels of 24 bits, expected 1 of 16"),
    "an odd byte": (waves, {"a/b.wav": WAVE[:-21]}, r"b\.wav: cut off: 89 samples.* 100"),
    "a year": (
        timed,
        {"hours.csv": HOURS},
        r"train is '2020', expected a number of lines or a time",
    ),
    "no zone": (shared, {"hours.csv": HOURS}, r"give all an offset from UTC, or none"),
    "some zones": (
        hours,
        {"hours.csv": HOURS.replace("01:00:00", "01:00:00+00:00")},
        r":3: date .*give all an offset",
    ),
    "back in time": (
        hours,
        {"hours.csv": SUMMER.replace("02:30+01:00", "02:31+05:00")},
        r":3: date .* is not later",
    ),
    "nobody": (
        recordings,
        {"video.npz": archive(who=np.array([1, 1, 1]))},
        r"no recording for test",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_that_says_where(name, tmp_path):
    opener, files, said = FAULTS[name]
    write(tmp_path / "in", files)
    with pytest.raises(UserError, match=said) as raised:
        opener(tmp_path / "in", tmp_path / "data")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())


def test_a_cut_archive_is_named(tmp_path):
    packed = tmp_path / "waves.tar.xz"
    packed.write_bytes(lzma.compress(b"x" * 2000)[:-9])
    with pytest.raises(UserError, match=r"waves\.tar\.xz: neither a folder nor a whole tar"):
        labelled_waves(packed, tmp_path / "data", 8000)


def test_a_class_of_one_example_is_told_where_training_loses_it(tmp_path, caplog):
    files = {f"{name}/{n}.wav": sound(np.full(5, n)) for name in "ab" for n in range(4)}
    write(tmp_path / "in", files | {"alone/1.wav": WAVE})
    source = labelled_waves(tmp_path / "in", tmp_path / "data", 8000, validation=0.9)
    assert len(source.splits["train"]) == 1
    assert re.search(r"no training example has these of label: . \(validation\)", caplog.text)


def test_an_hour_that_comes_twice_is_told_apart_by_its_offset(tmp_path):
    write(tmp_path, {"hours.csv": SUMMER})
    splits = hours(tmp_path, tmp_path / "data", (("train", 2),)).splits
    assert splits["train"][0]["series"].tolist() == [[1], [2]]


def test_other_settings_prepare_another_set(tmp_path):
    write(tmp_path, {"train": IMAGES, "video.npz": archive(), "a/b1.wav": WAVE, "a/b2.wav": WAVE})
    data = tmp_path / "data"
    names = [image_rows({"train": tmp_path / "train"}, data, rows, 0.0).name for rows in (1, 2, 4)]
    for arguments in (
        ("frames", "what", "who"),
        ("frames", "who", "who"),
        ("frames", "what", "what"),
    ):
        groups = {"test": (8,) if arguments[2] == "what" else (2,)}
        path = tmp_path / "video.npz"
        names.append(labelled_frames(path, data, *arguments, groups, 0.0).name)
    for label, test in ((r"b(.)", "b1"), (r"(.)\.wav", "b1"), (r"(b)", "b2")):
        source = labelled_waves(tmp_path / "a", data, 8000, label, {"test": test}, 0.0)
        names.append(source.name)
    assert len(set(names)) == len(names)
