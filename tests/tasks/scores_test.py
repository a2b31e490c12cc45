"""Scores of labels against scikit-learn, those of spans against seqeval."""

import warnings

import numpy as np
import pytest

from recattn_jax.tasks import scores
from tests.oracles import oracle

LABELS = {
    "random": (
        np.random.default_rng(0).integers(0, 4, 50),
        np.random.default_rng(1).integers(0, 4, 50),
    ),
    "a class in neither": ([0, 1, 3, 3], [0, 0, 3, 1]),
    "a class never predicted": ([0, 0, 0, 0], [0, 1, 2, 0]),
    "a class never right": ([2, 2, 1, 0], [0, 1, 1, 0]),
    "all wrong": ([1, 0], [0, 1]),
    "one": ([3], [3]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_equal_sklearn(name):
    metrics = oracle("sklearn.metrics")
    predicted, wanted = (list(map(int, labels)) for labels in LABELS[name])
    counts = scores.confusion_matrix(predicted, wanted, 4)
    np.testing.assert_array_equal(
        counts, metrics.confusion_matrix(wanted, predicted, labels=range(4))
    )
    assert scores.accuracy(counts) == pytest.approx(metrics.accuracy_score(wanted, predicted))
    f1 = metrics.f1_score(wanted, predicted, average="macro", zero_division=0)
    assert scores.macro_f1(counts) == pytest.approx(f1)
    each = metrics.f1_score(wanted, predicted, labels=range(4), average=None, zero_division=np.nan)
    np.testing.assert_allclose(scores.class_f1(counts), each)


def test_nothing_has_no_scores():
    counts = scores.confusion_matrix([], [], 3)
    assert counts.shape == (3, 3)
    assert np.isnan(scores.accuracy(counts)) and np.isnan(scores.macro_f1(counts))


def test_a_class_without_records_is_named():
    text = scores.confusion_text(scores.confusion_matrix([0, 2], [0, 0], 3), ["a", "b", "c"])
    assert text.splitlines()[-1] == "no record is labelled 'b', 'c'"
    text = scores.confusion_text(scores.confusion_matrix([0, 1], [0, 1], 2), ["a", "b"])
    assert "no record" not in text


def test_wrong_labels_are_refused():
    with pytest.raises(ValueError, match="outside of 0 to 1"):
        scores.confusion_matrix([2], [0], 2)
    with pytest.raises(ValueError, match="zip"):
        scores.confusion_matrix([0, 1], [0], 2)


def random_tags(seed, sentences=60):
    """Anything goes: most of these are no well-formed IOB2."""
    random = np.random.default_rng(seed)
    names = ["O", "B-a", "I-a", "B-b", "I-b", "I-c", "B-c-d"]
    return [list(random.choice(names, size=random.integers(1, 9))) for _ in range(sentences)]


def altered(tags, seed):
    random = np.random.default_rng(seed)
    return [[str(random.choice(["O", tag, "I-a", "B-a"])) for tag in some] for some in tags]


TAGS = {
    "random": (altered(random_tags(0), 1), random_tags(0)),
    "unrelated": (
        [tags[:1] for tags in random_tags(2)],
        [tags[:1] for tags in random_tags(3)],
    ),
    "I without B": ([["I-a", "I-a"], ["O", "I-b"]], [["B-a", "I-a"], ["O", "B-b"]]),
    "I of another kind": ([["B-a", "I-b", "I-a"]], [["B-a", "I-a", "I-a"]]),
    "neighbours": ([["B-a", "B-a", "I-a"]], [["B-a", "I-a", "I-a"]]),
    "to the end": ([["O", "B-a", "I-a"]], [["O", "B-a", "I-a"]]),
    "nothing found": ([["O", "O"]], [["B-a", "O"]]),
    "nothing to find": ([["B-a", "O"]], [["O", "O"]]),
    "nothing at all": ([["O"]], [["O"]]),
    "single words": ([["B-a"], ["B-b"]], [["B-a"], ["B-a"]]),
    "other scripts": ([["B-人名", "I-人名"]], [["B-人名", "I-人名"]]),
}


@pytest.mark.parametrize("name", TAGS)
def test_spans_equal_seqeval(name):
    seqeval, scheme = oracle("seqeval.metrics"), oracle("seqeval.scheme")
    predicted, wanted = ([list(map(str, tags)) for tags in some] for some in TAGS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every kind that is never predicted
        report = (
            seqeval.classification_report(
                wanted,
                predicted,
                mode="strict",
                scheme=scheme.IOB2,
                output_dict=True,
                zero_division=0,
            )
            if name != "nothing at all"
            else {}
        )
        triple = (
            [
                f(wanted, predicted, mode="strict", scheme=scheme.IOB2, zero_division=0)
                for f in (seqeval.precision_score, seqeval.recall_score, seqeval.f1_score)
            ]
            if name != "nothing at all"
            else [0, 0, 0]
        )
    found = scores.span_scores(predicted, wanted)
    assert list(found[""]) == pytest.approx(triple)
    kinds = {kind for kind in report if not kind.endswith(" avg")}
    assert kinds == set(found) - {""}
    for kind in kinds:
        each = report[kind]
        assert list(found[kind]) == pytest.approx(
            [each["precision"], each["recall"], each["f1-score"]]
        )


def test_wrong_tags_are_refused():
    for tag in ("S-a", "B", "B-", "", "a"):
        with pytest.raises(ValueError, match="no IOB2 tag"):
            scores.spans(["O", tag])
    with pytest.raises(ValueError, match="1 predicted tags for 2 words"):
        scores.span_scores([["O"]], [["O", "O"]])
