"""What people may set wrongly in an experiment, and what it answers; no model is trained."""

import collections
import re
from pathlib import Path

import jax
import pytest

from experiments import (
    char_lm,
    classify,
    classify_frames,
    copy_memory,
    forecast,
    formal,
    mqar,
    multi30k,
    s2,
    s3,
    s4,
    scan,
    sst2,
    tag,
    translate,
)
from experiments.common import classification, settings
from recattn_jax.errors import UserError
from recattn_jax.training.state import abstract_state
from tests.stand_ins import stand_in


def config(file, tmp_path: Path, **changed):
    c = file.get_config()
    c.data_dir = str(tmp_path / "data")
    c.update(changed)
    return c


def refused(file, c, message: str, opened: bool = False) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        experiment = file.build(c)
        if opened:
            experiment.data()


def test_data_that_are_not_named_are_asked_for(tmp_path):
    refused(sst2, config(sst2, tmp_path), "set --config.folder=PATH: stsa", opened=True)
    refused(classify, config(classify, tmp_path), "set --config.train=PATH", opened=True)
    one_side = config(translate, tmp_path, source="a", target="b", source_test="c")
    refused(translate, one_side, "each split needs two files", opened=True)
    refused(multi30k, config(multi30k, tmp_path, languages="deen"), "two with a hyphen")


def test_a_wrong_number_of_classes_is_answered_by_the_right_one(tmp_path):
    given = stand_in("classify", tmp_path)
    refused(classify, config(classify, tmp_path, **given, classes=3), "classes=2", opened=True)
    given = stand_in("tag", tmp_path)
    refused(tag, config(tag, tmp_path, **given, tags=5), "set --config.tags=3", opened=True)


def test_a_class_that_training_lacks_has_a_place(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel\nfine\tgood\nawful\tbad\n")
    (tmp_path / "b.tsv").write_text("text\tlabel\nso so\tneutral\n")
    paths = {"train": str(tmp_path / "a.tsv"), "validation": str(tmp_path / "b.tsv")}
    data = classify.build(config(classify, tmp_path, **paths, classes=3)).data()
    assert data.vocabularies["label"].names == ("bad", "good", "neutral")
    assert "missing from train: neutral" in data.summary


def test_columns_by_number(tmp_path):
    lines = [f"good\ttext {n}\nbad\ttext {n} not" for n in range(9)]
    (tmp_path / "a.tsv").write_text("\n".join(lines))
    given = {"train": str(tmp_path / "a.tsv"), "text": "1", "label": "0"}
    data = classify.build(config(classify, tmp_path, **given)).data()
    assert data.vocabularies["label"].names == ("bad", "good")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"class_weights": "1,x"}, "must be 2 numbers with commas"),
        ({"class_weights": "1,2,3"}, "must be 2 numbers with commas"),
        ({"gamma": 2.0, "smoothing": 0.1}, "the focal loss takes no smoothing"),
        ({"balance": True, "privacy_noise": 1.0}, "no epsilon covers such sampling"),
        ({"mixer": "gru"}, "mixer='gru' is not one of"),
    ],
)
def test_numbers_that_do_not_fit(tmp_path, changed, message):
    refused(sst2, config(sst2, tmp_path, **changed), message)


def test_plain_adam_refuses_what_it_does_not_read(tmp_path):
    refused(s4, config(s4, tmp_path, weight_decay=0.1), "plain Adam; leave it at 0")


@pytest.mark.parametrize("file", [char_lm, s3, s4, sst2], ids=lambda file: file.__name__)
def test_no_experiment_takes_its_privacy_for_nothing(file, tmp_path):
    private = file.build(config(file, tmp_path, privacy_noise=1.1)).optimization.privacy
    assert private is not None and private.noise_multiplier == 1.1


def test_commands_of_other_words_are_refused(tmp_path):
    given = stand_in("scan", tmp_path)
    for file in tmp_path.glob("tasks_*"):
        file.write_text(file.read_text().replace("I_LOOK", "I_WALK"))
    refused(
        scan, config(scan, tmp_path, **given), "target: expected 6 different words", opened=True
    )


def test_the_arm_without_attention_hears_of_one_position_alone(tmp_path):
    """Its decoder looks at the same vector everywhere, and has no weights that the hybrid lacks."""

    def shapes(mixer):
        params = abstract_state(scan.build(config(scan, tmp_path, mixer=mixer))).params
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    assert shapes("lstm") == shapes("lstm+attention")


def test_every_arm_of_s2_names_a_known_encoder(tmp_path):
    refused(s2, config(s2, tmp_path, mixer="rnn", encoder="mine"), "encoder='mine' is not one of")


def test_weights_of_classes_are_read_in_their_order():
    c = settings.numbers(**classification.numbers() | {"class_weights": ".5, 2"})
    assert classification.loss(c).keywords["weights"] == (0.5, 2.0)


def test_generated_problems_that_cannot_be_asked(tmp_path):
    refused(mqar, config(mqar, tmp_path, vocabulary=8), "pairs=4 of vocabulary=8")
    refused(mqar, config(mqar, tmp_path, length=10), "length=10: 4 pairs need 16 or more")
    refused(formal, config(formal, tmp_path, shown=500), "shown=500, longest=500")
    refused(formal, config(formal, tmp_path, curriculum=2.0), "curriculum=2.0")
    refused(formal, config(formal, tmp_path, mixer="perceptron"), "mixer='perceptron'")
    refused(copy_memory, config(copy_memory, tmp_path, wait=0), "lengths of (0, 0)", opened=True)


def test_frames_that_do_not_fit_their_sides(tmp_path):
    refused(
        classify_frames, config(classify_frames, tmp_path, features=901), "features=901, height"
    )
    refused(classify_frames, config(classify_frames, tmp_path, test="a,2"), "test='a,2'")


def test_formal_languages_are_asked_by_length_too(tmp_path):
    evaluation = formal.build(config(formal, tmp_path)).data().evaluation
    ranges = ["41_80", "81_160", "161_320", "321_500"]
    assert set(evaluation) == {"validation", "test", *(f"test_{each}" for each in ranges)}
    lengths = [
        int(row.sum()) - 1 for batch in evaluation["test"].epoch() for row in batch["segments"]
    ]
    counts = collections.Counter(length for length in lengths if length >= 0)  # -1 is padding
    assert set(counts) == set(range(41, 501)) and set(counts.values()) == {2}


def test_a_table_is_cut_by_lines_or_by_days_and_read_in_part(tmp_path):
    rows = [f"2020-01-{day:02d},{day},note,{-day}" for day in range(1, 31)]
    (tmp_path / "a.csv").write_text("\n".join(["day,a,text,b", *rows]) + "\n")
    given = dict(path=str(tmp_path / "a.csv"), time="day", columns="a, b", features=2)
    sizes = dict(length=3, horizon=2, patch=1, batch=2)
    days = dict(train="2020-01-16", validation="2020-01-24", test="")
    by_days = forecast.build(config(forecast, tmp_path, **given, **sizes, **days)).data()
    lines = dict(train="15", validation="8", test="0")
    by_lines = forecast.build(config(forecast, tmp_path, **given, **sizes, **lines)).data()
    assert by_days.vocabularies["columns"].names == ("a", "b")
    assert set(by_days.evaluation) == {"validation"}
    assert by_days.train.fingerprint == by_lines.train.fingerprint
    refused(
        forecast, config(forecast, tmp_path, **given, train="soon"), "train is 'soon'", opened=True
    )
