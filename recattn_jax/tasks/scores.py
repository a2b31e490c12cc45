"""Scores of labels and of tagged spans, on the host; those of texts are in `text_scores`."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recattn_jax.shapes import Float, Int

Counts = Int[np.ndarray, "C C"]


def confusion_matrix(predicted: Sequence[int], wanted: Sequence[int], classes: int) -> Counts:
    """Counts pairs of labels.

    Args:
      predicted: N class numbers.
      wanted: the N right ones.
      classes: C.

    Returns:
      `[C, C]`; a row for each right class, a column for each predicted one.

    Raises:
      ValueError: not as many predictions as labels, or a number outside [0, C).

    >>> confusion_matrix([0, 1, 1], [0, 0, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    pairs = np.array(list(zip(wanted, predicted, strict=True)), np.int64).reshape(-1, 2)
    if pairs.size and not 0 <= pairs.min() <= pairs.max() < classes:
        raise ValueError(f"a class number is outside of 0 to {classes - 1}")
    flat = np.bincount(pairs[:, 0] * classes + pairs[:, 1], minlength=classes**2)
    return flat.reshape(classes, classes)


def accuracy(counts_CC: Counts) -> float:
    """The share of a confusion matrix that lies on its diagonal; nan for an empty one."""
    total = counts_CC.sum()
    return float(np.trace(counts_CC) / total) if total else float("nan")


def class_f1(counts_CC: Counts) -> Float[np.ndarray, " C"]:
    """F1 of each class, `2 hits / (right + predicted)`; nan for a class that is in neither.

    >>> class_f1(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])).round(3).tolist()
    [0.667, 0.667, nan]
    """
    hits_C = np.diag(counts_CC)
    either_C = counts_CC.sum(axis=1) + counts_CC.sum(axis=0)
    return np.where(either_C > 0, 2.0 * hits_C / np.maximum(either_C, 1), np.nan)


def macro_f1(counts_CC: Counts) -> float:
    """The mean F1 of the classes that are right or predicted somewhere; nan if none is."""
    f1_C = class_f1(counts_CC)
    defined = f1_C[~np.isnan(f1_C)]
    return float(defined.mean()) if defined.size else float("nan")


def confusion_text(counts_CC: Counts, names: Sequence[str]) -> str:
    r"""A confusion matrix as lines for a person; classes without a right label are named.

    >>> print(confusion_text(np.array([[3, 1], [0, 0]]), ["no", "yes"]))
    right \ predicted     0     1    f1
    0 no                  3     1 0.857
    1 yes                 0     0 0.000
    no record is labelled 'yes'
    """
    corner = "right \\ predicted"
    heads = [f"{index} {name}" for index, name in enumerate(names)]
    width = max(len(head) for head in (*heads, corner))
    lines = [f"{corner:<{width}}" + "".join(f" {i:5d}" for i in range(len(names))) + "    f1"]
    for head, counts_C, f1 in zip(heads, counts_CC, class_f1(counts_CC), strict=True):
        lines.append(f"{head:<{width}}" + "".join(f" {n:5d}" for n in counts_C) + f" {f1:5.3f}")
    absent = [repr(name) for name, n in zip(names, counts_CC.sum(axis=1), strict=True) if not n]
    if absent:
        lines.append(f"no record is labelled {', '.join(absent)}")
    return "\n".join(lines)


class Span(NamedTuple):
    """An entity: its kind, its first word, and the word after its last."""

    kind: str
    start: int
    end: int


class SpanScores(NamedTuple):
    """How many of the predicted spans are right, how many of the right ones found, and both."""

    precision: float
    recall: float
    f1: float


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of a sentence, by strict IOB2: `B-X`, and every `I-X` that follows it at once.

    An `I-X` that continues no span of kind X belongs to no entity.

    Args:
      tags: one a word: `O`, `B-<kind>` or `I-<kind>`.

    Raises:
      ValueError: a tag is none of these.

    >>> spans(["B-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-PER"])
    [Span(kind='PER', start=0, end=2), Span(kind='LOC', start=4, end=5)]
    """
    found: list[Span] = []
    kind: str | None = None  # of the span that is open
    for index, tag in enumerate(tags):
        prefix, _, name = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not name):
            raise ValueError(
                f"tag {index} is {tag!r}, which is no IOB2 tag (O, B-<kind>, I-<kind>)"
            )
        if prefix == "I" and name == kind:
            found[-1] = found[-1]._replace(end=index + 1)
        elif prefix == "B":
            kind = name
            found.append(Span(name, index, index + 1))
        else:
            kind = None
    return found


def span_scores(
    predicted: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]
) -> dict[str, SpanScores]:
    """Precision, recall and F1 of whole entities: kind, start and end must all be right.

    Args:
      predicted: tags of each sentence.
      wanted: the right ones, as many.

    Returns:
      The scores of each kind of entity, sorted, and of all together under "". A score whose
      denominator is 0 is 0.

    Raises:
      ValueError: a sentence has not as many predicted tags as right ones.

    >>> span_scores([["B-PER", "O"]], [["B-PER", "B-LOC"]])[""]
    SpanScores(precision=1.0, recall=0.5, f1=0.6666666666666666)
    """
    counts: dict[str, list[int]] = {"": [0, 0, 0]}
    for got, right in zip(predicted, wanted, strict=True):
        if len(got) != len(right):
            raise ValueError(f"{len(got)} predicted tags for {len(right)} words")
        got_spans, right_spans = set(spans(got)), set(spans(right))
        for column, some in enumerate((got_spans & right_spans, got_spans, right_spans)):
            for span in some:
                counts.setdefault(span.kind, [0, 0, 0])[column] += 1
                counts[""][column] += 1
    return {kind: _ratios(*counts[kind]) for kind in sorted(counts)}


def _ratios(hits: int, predicted: int, wanted: int) -> SpanScores:
    either = predicted + wanted
    return SpanScores(
        precision=hits / predicted if predicted else 0.0,
        recall=hits / wanted if wanted else 0.0,
        f1=2 * hits / either if either else 0.0,
    )
