import pytest

from recattn_jax.data.records import Lazy, Source, surveyed, with_validation
from recattn_jax.errors import UserError


def rows(count, distinct=None):
    return [{"text": f"row {i % (distinct or count)}", "label": "ab"[i % 2]} for i in range(count)]


TRAIN = [
    {"tokens": ["x", "y"], "tags": ["O", "B-place"], "label": "go"},
    {"tokens": ["z"], "tags": ["O"], "label": "stop"},
]


def digest(splits):
    return surveyed("name", splits).digest


def test_lazy_is_a_sequence():
    made = []
    squares = Lazy(5, lambda i: made.append(i) or i * i)
    assert made == [] and squares[-1] == 16 and made == [4]
    assert list(squares) == squares[:] == [0, 1, 4, 9, 16] and squares[1:-1:2] == [1, 9]
    assert len(squares) == 5 and 9 in squares
    with pytest.raises(IndexError):
        squares[5]


def test_a_failing_item_is_not_the_end():
    def get(index):
        raise IndexError("damaged")

    with pytest.raises(IndexError):
        list(Lazy(3, get))


@pytest.mark.parametrize(
    "other",
    [
        {"train": TRAIN[::-1]},
        {"train": TRAIN[:1]},
        {"test": TRAIN},
        {"train": TRAIN, "test": []},
        {"train": [TRAIN[0] | {"tags": ["O", "B-date"]}, TRAIN[1]]},
        {"train": [TRAIN[0] | {"label": "stop"}, TRAIN[1]]},
        {"train": [TRAIN[0] | {"tokens": ["xy", ""]}, TRAIN[1]]},
        {"train": [TRAIN[0] | {"tokens": ["x", "y", ""]}, TRAIN[1]]},
        {"train": [TRAIN[0], TRAIN[1] | {"tokens": "z"}]},
        {"train": [TRAIN[0], {"words": ["z"], "tags": ["O"], "label": "stop"}]},
    ],
)
def test_every_field_is_in_the_digest(other):
    assert digest(other) != digest({"train": TRAIN})


def test_the_order_of_fields_and_splits_is_not_in_the_digest():
    turned = [dict(reversed(record.items())) for record in TRAIN]
    assert digest({"test": [], "train": turned}) == digest({"train": TRAIN, "test": []})


def test_summary_counts_classes_and_names_those_that_training_lacks():
    test = [{"tokens": ["u", "v"], "tags": ["B-date", "I-date"], "label": "wait"}]
    source = surveyed("set", {"train": TRAIN, "test": test})
    assert source.counts["tags"] == {"train": {"place": 1}, "test": {"date": 1}}
    assert source.missing == {"label": ["wait"], "tags": ["date"]}
    assert source.summary() == (
        "set: examples: train 2, test 1; label in train: go 1, stop 1; tags in train: place 1; "
        f"label missing from train: wait; tags missing from train: date; "
        f"content {source.digest[:16]}"
    )


def test_a_declared_class_without_an_example_is_missing():
    counts = {"label": {"train": {"a": 3}}}
    assert Source("set", "0", {"train": []}, counts, ("a", "b")).missing == {"label": ["b"]}


def test_texts_are_read_when_asked_for():
    records = Lazy(2, lambda index: {"text": f"text {index}"})
    assert list(Source("set", "0", {"train": records}).texts("train")) == ["text 0", "text 1"]


def test_validation_is_carved_by_content():
    train = rows(50)
    found = with_validation({"train": train, "test": []}, 0.2, "here")
    assert list(found) == ["train", "validation", "test"]
    assert len(found["validation"]) == 10
    held = [record["text"] for record in found["validation"]]
    assert sorted([*found["train"], *found["validation"]], key=str) == sorted(train, key=str)
    assert list(found["train"]) == [record for record in train if record["text"] not in held]
    # Neither the order of the file nor rows that come later decide.
    again = with_validation({"train": train[::-1]}, 0.2, "here")
    assert [record["text"] for record in again["validation"]] == held[::-1]
    assert held != [record["text"] for record in train[:10]]


def test_equal_records_stay_on_one_side():
    found = with_validation({"train": rows(40, distinct=4)}, 0.1, "here")
    sides = [{record["text"] for record in found[split]} for split in ("train", "validation")]
    assert sides[0] | sides[1] == {f"row {i}" for i in range(4)} and not sides[0] & sides[1]
    assert len(found["validation"]) == 10


def test_a_given_validation_split_stays():
    splits = {"validation": rows(1), "train": rows(9)}
    assert with_validation(splits, 0.5, "here") == splits
    assert with_validation({"train": rows(9)}, 0.0, "here") == {"train": rows(9)}


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_each_side_gets_an_example(share):
    found = with_validation({"train": rows(3)}, share, "here")
    assert sorted(map(len, found.values())) == [1, 2]


@pytest.mark.parametrize(
    ("train", "share", "message"),
    [
        (rows(5, distinct=1)[::2], 0.1, "here: 1 different examples are too few"),
        (rows(5), 1.0, "from 0 to below 1, found 1.0"),
        (rows(5), -0.1, "found -0.1"),
    ],
)
def test_what_cannot_be_carved(train, share, message):
    with pytest.raises(UserError, match=message):
        with_validation({"train": train}, share, "here")
