"""From labelled records and a model to an experiment."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import settings
from recattn_jax.data import (
    TEXT,
    Data,
    Examples,
    Kind,
    Pipeline,
    Record,
    Source,
    Vocabulary,
    WordTokenizer,
    balanced,
    bucketed,
    record_data,
    text_examples,
)
from recattn_jax.errors import UserError
from recattn_jax.layers import SequenceLayer
from recattn_jax.models import Readout, SequenceModel
from recattn_jax.tasks import Classification, losses
from recattn_jax.training import Experiment, Optimization

Vocabularies = Mapping[str, Vocabulary]


def labels() -> dict[str, Any]:
    """The numbers that `labelled` reads."""
    return dict(
        classes=2,
        class_weights="",  # one number a class, with commas, in the order of their names
        gamma=0.0,  # of the focal loss; 0 is cross-entropy
        smoothing=0.0,  # of the labels; not with gamma
        balance=False,  # draw the examples of each class equally often
        batch=32,
        length=64,  # steps of the widest rows; others are half of it
    )


def numbers() -> dict[str, Any]:
    """The numbers that `classification` and `vocabulary` read."""
    words = dict(
        words=8_000,  # of the vocabulary, at most: the most frequent of the training text
        lowercase=True,
    )
    return labels() | words


def vocabulary(c: ConfigDict) -> int:
    """How many symbols an embedding must hold: the words, unknown ones, and the separator."""
    return int(c.words) + 2


def classification(
    c: ConfigDict,
    source: Callable[[Path], Source],
    spaced: bool,
    frontend: SequenceLayer,
    body: SequenceLayer,
    readout: Readout,
    optimization: Optimization,
) -> Experiment:
    """An experiment that puts one label on a text.

    Args:
      c: the config.
      source: from the folder for prepared data to the records.
      spaced: whether the words of the text stand between spaces already.
      frontend: from word ids below `vocabulary(c)`.
      body: mixes the steps.
      readout: pools them to `c.classes` logits.
      optimization: how parameters move.

    Raises:
      UserError: sampling is balanced, and training private.
    """

    def words(found: Source) -> Vocabularies:
        return {"text": WordTokenizer.of(found.texts("train"), c.words, c.lowercase, spaced)}

    model = SequenceModel(frontend, body, readout)
    return labelled(c, source, words, text_examples, TEXT, model, optimization, "accuracy")


def labelled(
    c: ConfigDict,
    source: Callable[[Path], Source],
    inputs: Callable[[Source], Vocabularies],
    examples: Callable[[str, Sequence[Record], Vocabularies, int], Examples],
    kind: Kind,
    model: SequenceModel,
    optimization: Optimization,
    headline: str,
) -> Experiment:
    """An experiment that puts one label on whatever `examples` makes of a record.

    Args:
      c: the config.
      source: from the folder for prepared data to the records.
      inputs: from the records to what makes the inputs, by name.
      examples: `text_examples` or `series_examples`.
      kind: what it makes.
      model: from inputs to `c.classes` logits a row.
      optimization: how parameters move.
      headline: what the best step is chosen by, see `Classification`.

    Raises:
      UserError: sampling is balanced, and training private.
    """
    if c.balance and c.privacy_noise:
        raise UserError("balance and privacy_noise are both set; no epsilon covers such sampling")

    def data() -> Data:
        found = source(settings.data_dir(c))
        labels = settings.labels(c, "classes", found, "label")
        vocabularies = {**inputs(found), "label": labels}
        return record_data(found.splits, found.summary(), vocabularies, make, pipeline)

    def make(split: str, records: Sequence[Record], vocabularies: Vocabularies) -> Examples:
        return examples(split, records, vocabularies, c.length)

    def pipeline(made: Examples, host: int, hosts: int) -> Pipeline:
        widths = sorted({max(1, c.length // 2), c.length})
        weights = None
        if c.balance and made.split == "train":
            assert made.labels is not None
            weights = balanced(made.labels)
        return bucketed(made, c.batch, widths, c.seed, host, hosts, weights)

    return Experiment(
        model=model,
        task=Classification(c.classes, loss(c), headline),
        data=data,
        batch=kind.batch(c.batch, c.length),
        optimization=optimization,
        cadence=settings.cadence(c),
        layout=settings.layout(c),
        seed=c.seed,
    )


def loss(c: ConfigDict) -> losses.Loss:
    """The loss that the numbers describe.

    Raises:
      UserError: class weights that are no numbers, or not one a class; smoothing and gamma at once.
    """
    weights = None
    if c.class_weights:
        try:
            weights = tuple(float(weight) for weight in c.class_weights.split(","))
        except ValueError:
            weights = ()
        if len(weights) != c.classes:
            raise UserError(
                f"class_weights is {c.class_weights!r}, must be {c.classes} numbers with commas"
            )
    if c.gamma and c.smoothing:
        raise UserError("gamma and smoothing are both set; the focal loss takes no smoothing")
    if c.gamma:
        return functools.partial(losses.focal, gamma=c.gamma, weights=weights)
    return functools.partial(losses.cross_entropy, smoothing=c.smoothing, weights=weights)


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return settings.tiny(c, batch=8, length=16, words=50)
