"""From records and vocabularies to examples, one function a kind of task.

Every function here maps each record to one example and leaves none out, so example i is record i.
What is longer than the limit is cut, and the summary says how often and by how much.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from recattn_jax import partition
from recattn_jax.data.kinds import (
    PAIRS,
    TAGGED,
    TAGGED_AND_LABELLED,
    TEXT,
    TRANSCRIBED,
    Examples,
    Kind,
)
from recattn_jax.data.pipelines import Data, Pipeline
from recattn_jax.data.records import Record
from recattn_jax.data.spelling import spell
from recattn_jax.data.steps import Steps
from recattn_jax.data.tokenizers import Tokenizer
from recattn_jax.data.vocabularies import Labels, Vocabulary
from recattn_jax.data.word_features import WordFeatureTokenizer
from recattn_jax.errors import UserError


def text_examples(
    split: str,
    records: Sequence[Record],
    vocabularies: Mapping[str, Vocabulary],
    length: int,
) -> Examples:
    """Makes examples of classification from records with "text" and "label".

    An empty text becomes a lone separator.

    Args:
        split: the name of the split, for messages.
        records: one each.
        vocabularies: "text", a tokenizer, and "label", names.
        length: the rest of a longer text is cut off.

    Returns:
        Examples of kind `TEXT`.

    Raises:
        UserError: for no records, or one that the vocabularies do not cover; names it.

    >>> from recattn_jax.data import ByteTokenizer, Labels
    >>> vocabularies = {"text": ByteTokenizer(), "label": Labels(("bad", "good"))}
    >>> records = [{"text": "fine", "label": "good"}]
    >>> text_examples("train", records, vocabularies, length=64).arrays["inputs"].tolist()
    [102, 105, 110, 101]
    """
    tokenizer, labels = _tokenizer(vocabularies, "text"), _labels(vocabularies, "label")
    texts, numbers, notes = [], [], _Notes(length)

    def make(record: Record) -> None:
        texts.append(notes.cut("texts", notes.filled(tokenizer, _field(record, "text"))))
        numbers.append(labels.index(_field(record, "label")))

    _each(split, records, make)
    return _examples(TEXT, split, [{"inputs": texts}], numbers, records, notes)


def series_examples(
    split: str,
    records: Sequence[Record],
    vocabularies: Mapping[str, Vocabulary],
    length: int,
) -> Examples:
    """Makes examples of classification from records with "series" and "label".

    Args:
        split: the name of the split, for messages.
        records: one each.
        vocabularies: "series", what makes features of it, and "label", names.
        length: the rest of a longer series is cut off.

    Returns:
        Examples of kind `TEXT`, their inputs float32 features.

    Raises:
        UserError: for no records, or one that the vocabularies do not cover; names it.

    >>> from recattn_jax.data import Labels, Measurements
    >>> records = [{"series": np.ones((5, 2), np.float32), "label": "up"}]
    >>> steps = Measurements.of(record["series"] for record in records)
    >>> vocabularies = {"series": steps, "label": Labels(("up",))}
    >>> series_examples("train", records, vocabularies, length=100).arrays["inputs"].shape
    (5, 2)
    """
    steps, labels = _steps(vocabularies), _labels(vocabularies, "label")
    made, numbers, notes = [], [], _Notes(length)

    def make(record: Record) -> None:
        made.append(notes.cut("series", steps.of_series(_field(record, "series"))))
        numbers.append(labels.index(_field(record, "label")))

    _each(split, records, make)
    kind = TEXT.holding("inputs", (steps.features,), np.float32)
    return _examples(kind, split, [{"inputs": made}], numbers, records, notes)


def transcribed_examples(
    split: str,
    records: Sequence[Record],
    vocabularies: Mapping[str, Vocabulary],
    lengths: tuple[int, int],
) -> Examples:
    """Makes examples of transcription from records with "series" and "text".

    Args:
        split: the name of the split, for messages.
        records: one each.
        vocabularies: "series", what makes features of it, and "text", a tokenizer.
        lengths: of steps and of symbols, at most.

    Returns:
        Examples of kind `TRANSCRIBED`, their inputs float32 features.

    Raises:
        UserError: for no records, or one that the vocabularies do not cover, that is too long or
            without a symbol, or whose symbols have no place: each needs a step, and one more where
            it repeats the one before; names it.

    >>> from recattn_jax.data import CharTokenizer, Measurements
    >>> records = [{"series": np.ones((5, 2), np.float32), "text": "up"}]
    >>> steps = Measurements.of(record["series"] for record in records)
    >>> vocabularies = {"series": steps, "text": CharTokenizer.of(["up"])}
    >>> examples = transcribed_examples("train", records, vocabularies, (300, 40))
    >>> examples.arrays["symbols"].tolist()
    [1, 0]
    """
    steps, tokenizer = _steps(vocabularies), _tokenizer(vocabularies, "text")
    series, symbols = [], []

    def make(record: Record) -> None:
        text = _field(record, "text")
        features = steps.of_series(_field(record, "series"))
        ids = np.asarray(tokenizer.encode(text), np.int32)
        needed = len(ids) + int((ids[1:] == ids[:-1]).sum())
        if not len(ids):
            raise UserError(f"{text!r:.60} has no symbol; say what is said there")
        # Nobody knows what of the text belongs to the rest of a series that is cut.
        for what, given, most in (
            ("steps", features, lengths[0]),
            ("symbols", ids, lengths[1]),
        ):
            if len(given) > most:
                raise UserError(
                    f"{text!r:.60} has {len(given)} {what}, at most {most} fit; raise their number,"
                    " or leave this one out"
                )
        if needed > len(features):
            raise UserError(
                f"{text!r:.60} needs {needed} steps, and there are {len(features)}; cut the series"
                " into more steps, or leave this one out"
            )
        series.append(features)
        symbols.append(ids)

    _each(split, records, make)
    kind = TRANSCRIBED.holding("inputs", (steps.features,), np.float32)
    return _examples(kind, split, [{"inputs": series}, {"symbols": symbols}], [], records)


def tagged_examples(
    split: str,
    records: Sequence[Record],
    vocabularies: Mapping[str, Vocabulary],
    length: int,
) -> Examples:
    """Makes examples of tagging from records with "tokens" and "tags".

    A tag stands at the last piece of its word (see `spell`), and -1 at the others.

    Args:
        split: the name of the split, for messages.
        records: one each.
        vocabularies: "text", a tokenizer, and "tag", names; with "label", names, the records have
            a "label" too.
        length: the words that do not fit are cut off, and their tags with them.

    Returns:
        Examples of kind `TAGGED`, or `TAGGED_AND_LABELLED`.

    Raises:
        UserError: for no records, one without words or with another number of tags than words, or
            one that the vocabularies do not cover; names it.

    >>> from recattn_jax.data import ByteTokenizer, Labels
    >>> record = {"tokens": ["in", "Rome"], "tags": ["O", "B-place"]}
    >>> vocabularies = {"text": ByteTokenizer(), "tag": Labels(("B-place", "O"))}
    >>> tagged_examples("train", [record], vocabularies, length=64).arrays["tags"].tolist()
    [-1, 1, -1, -1, -1, -1, 0]
    """
    tokenizer, names = _tokenizer(vocabularies, "text", rows=True), _labels(vocabularies, "tag")
    labels = _labels(vocabularies, "label") if "label" in vocabularies else None
    texts, tags, numbers, notes = [], [], [], _Notes(length)

    def make(record: Record) -> None:
        words, word_tags = _field(record, "tokens"), _field(record, "tags")
        if len(words) != len(word_tags) or not words:
            raise UserError(
                f"{len(words)} words and {len(word_tags)} tags; expected as many of both, and at"
                " least one"
            )
        ids, last = spell(words, tokenizer)
        marks = np.full(len(ids), -1, np.int32)
        marks[last] = [names.index(tag) for tag in word_tags]
        texts.append(notes.cut("texts", ids))
        tags.append(marks[:length])
        notes.count("words", int((last >= length).sum()))
        if labels is not None:
            numbers.append(labels.index(_field(record, "label")))

    _each(split, records, make)
    kind = TAGGED if labels is None else TAGGED_AND_LABELLED
    if texts[0].ndim > 1:
        kind = kind.holding("inputs", texts[0].shape[1:], np.int32)
    return _examples(kind, split, [{"inputs": texts, "tags": tags}], numbers, records, notes)


def pair_examples(
    split: str,
    records: Sequence[Record],
    vocabularies: Mapping[str, Vocabulary],
    lengths: tuple[int, int],
) -> Examples:
    """Makes examples of sequence to sequence from records with "source" and "targets".

    The first target t_1 .. t_n is what is learned: `inputs` are `separator, t_1 .. t_n`, `targets`
    are `t_1 .. t_n, separator`. An empty source becomes a lone separator.

    Args:
        split: the name of the split, for messages.
        records: one each.
        vocabularies: "source" and "target", tokenizers, which may be the same.
        lengths: of source and of targets; the rest of a longer one is cut off, so a target that is
            cut has no separator at its end.

    Returns:
        Examples of kind `PAIRS`.

    Raises:
        UserError: for no records, one without a target, or one that the vocabularies do not cover;
            names it.

    >>> from recattn_jax.data import ByteTokenizer
    >>> vocabularies = {"source": ByteTokenizer(), "target": ByteTokenizer()}
    >>> records = [{"source": "hi", "targets": ["ciao"]}]
    >>> pair_examples("train", records, vocabularies, (64, 64)).lengths.tolist()
    [[2, 5]]
    """
    from_ids, to_ids = _tokenizer(vocabularies, "source"), _tokenizer(vocabularies, "target")
    sources, inputs, targets = [], [], []
    source_notes, target_notes = _Notes(lengths[0]), _Notes(lengths[1])

    def make(record: Record) -> None:
        source, references = _field(record, "source"), _field(record, "targets")
        if not references:
            raise UserError("no target; expected at least one")
        ids = to_ids.encode(references[0])
        separator = np.array([to_ids.separator], np.int32)
        sources.append(source_notes.cut("sources", source_notes.filled(from_ids, source)))
        inputs.append(np.concatenate([separator, ids])[: lengths[1]])
        targets.append(target_notes.cut("targets", np.concatenate([ids, separator])))

    _each(split, records, make)
    parts = [{"source": sources}, {"inputs": inputs, "targets": targets}]
    return _examples(PAIRS, split, parts, [], records, source_notes, target_notes)


def record_data(
    splits: Mapping[str, Sequence[Record]],
    about: str,
    vocabularies: Mapping[str, Vocabulary],
    examples: Callable[[str, Sequence[Record], Mapping[str, Vocabulary]], Examples],
    pipeline: Callable[[Examples, int, int], Pipeline],
) -> Data:
    """Makes examples of every split of records, and a pipeline of each.

    Args:
        splits: records by split, "train" among them.
        about: what they are, for the log.
        vocabularies: of all splits, by name.
        examples: one of the functions of this module, such as `text_examples`, with the length
            bound.
        pipeline: from examples, and this host's number among how many, to batches: `bucketed` or
            `packed` with all else bound; `examples.split` tells training from the rest.

    Returns:
        The vocabularies, the training pipeline and those of the other splits.

    Raises:
        UserError: if there is no "train", or records do not fit the vocabularies or the pipeline.

    >>> import functools
    >>> from recattn_jax.data import ByteTokenizer, Labels, bucketed
    >>> vocabularies = {"text": ByteTokenizer(), "label": Labels(("bad", "good"))}
    >>> make = functools.partial(text_examples, length=64)
    >>> rows = lambda examples, host, hosts: bucketed(examples, 1, (16, 64), 0, host, hosts)
    >>> splits = {"train": [{"text": "fine", "label": "good"}]}
    >>> record_data(splits, "words", vocabularies, make, rows).train.spec["inputs"].shape
    (1, 64)
    """
    if "train" not in splits:
        raise UserError(f"{about}: no split train, only {', '.join(sorted(splits))}")
    made = {split: examples(split, records, vocabularies) for split, records in splits.items()}
    hosts = partition.hosts()
    pipelines = {split: pipeline(some, *hosts) for split, some in made.items()}
    summary = "\n".join([about, *(some.summary() for some in made.values())])
    return Data(vocabularies, pipelines.pop("train"), pipelines, summary)


class _Notes:
    """Cuts arrays at a length, and counts what it did."""

    def __init__(self, length: int):
        if length < 1:
            raise UserError(f"length: expected 1 or more, found {length}")
        self.length = length
        self.empty = 0
        self.counts: dict[str, int] = {}

    def count(self, what: str, number: int) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def filled(self, tokenizer: Tokenizer, text: str) -> np.ndarray:
        """The ids of a text; a model that reads nothing at all has nothing to say."""
        ids = tokenizer.encode(text)
        if len(ids):
            return ids
        self.empty += 1
        return np.array([tokenizer.separator], np.int32)

    def cut(self, what: str, ids: np.ndarray) -> np.ndarray:
        over = len(ids) - self.length
        self.count(what, int(over > 0))
        self.count("steps", max(over, 0))
        return ids[: self.length]

    def lines(self) -> list[str]:
        """What happened, in words; nothing where nothing happened."""
        cut = ", ".join(f"{number} {what}" for what, number in self.counts.items() if number)
        lines = [f"cut at {self.length} steps: {cut}"] if cut else []
        return lines + ([f"empty, so a separator alone: {self.empty}"] if self.empty else [])


def _each(split: str, records: Sequence[Record], make: Callable[[Record], None]) -> None:
    """Calls `make` with every record, and says which one an error is about."""
    if not len(records):
        raise UserError(f"{split} split: there are no records")
    for number, record in enumerate(records):
        try:
            make(record)
        except UserError as error:
            raise UserError(f"{split} split, record {number}: {error}") from None


def _field(record: Record, name: str) -> Any:
    if name not in record:
        raise UserError(f"no field {name!r}, only {', '.join(record)}")
    return record[name]


def _examples(
    kind: Kind,
    split: str,
    parts: Sequence[Mapping[str, Sequence[np.ndarray]]],
    numbers: Sequence[int],
    records: Sequence[Record],
    *notes: _Notes,
) -> Examples:
    arrays, offsets = {}, []
    for part, said in zip(parts, kind.parts, strict=True):
        for name, pieces in part.items():
            arrays[name] = np.concatenate(pieces).astype(said.leaves[name].dtype)
        offsets.append(np.cumsum([0, *map(len, next(iter(part.values())))]))
    labels = np.array(numbers, np.int32) if kind.labelled else None
    lines = [line for some in notes for line in some.lines()]
    return Examples(kind, split, arrays, offsets, labels, records, lines)


def _tokenizer(vocabularies: Mapping[str, Vocabulary], name: str, rows: bool = False) -> Tokenizer:
    found = _named(vocabularies, name)
    if not isinstance(found, Tokenizer):
        raise UserError(f"vocabularies: {name!r} is a {type(found).__name__}, not a tokenizer")
    if isinstance(found, WordFeatureTokenizer) and not rows:
        raise UserError(f"vocabularies: {name!r} has several ids a word, which only tagging reads")
    return found


def _steps(vocabularies: Mapping[str, Vocabulary]) -> Steps:
    found = _named(vocabularies, "series")
    if not isinstance(found, Steps):
        raise UserError(f"vocabularies: 'series' is a {type(found).__name__}, makes no features")
    return found


def _labels(vocabularies: Mapping[str, Vocabulary], name: str) -> Labels:
    found = _named(vocabularies, name)
    if not isinstance(found, Labels):
        raise UserError(f"vocabularies: {name!r} is a {type(found).__name__}, not a list of names")
    return found


def _named(vocabularies: Mapping[str, Vocabulary], name: str) -> Vocabulary:
    if name not in vocabularies:
        raise UserError(f"vocabularies: no {name!r}, only {', '.join(vocabularies)}")
    return vocabularies[name]
