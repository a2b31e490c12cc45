"""From tagged text and a model to an experiment."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.common import encoders, settings
from recattn_jax.data import (
    TAGGED,
    TAGGED_AND_LABELLED,
    ByteTokenizer,
    Data,
    Examples,
    Pipeline,
    Source,
    SubwordTokenizer,
    Tokenizer,
    Vocabulary,
    WordFeatureTokenizer,
    WordTokenizer,
    bucketed,
    record_data,
    tagged_examples,
)
from recattn_jax.errors import UserError, choose
from recattn_jax.layers import Dropout, EmbedBag, SequenceLayer, Serial
from recattn_jax.models import Readout, SequenceModel
from recattn_jax.tasks import Tagging, losses
from recattn_jax.training import Experiment, Optimization


def numbers() -> dict[str, Any]:
    """The numbers that `tagging` and `vocabulary` read."""
    return dict(
        tags=3,  # how many there are, O included
        intents=0,  # how many labels of whole texts there are; 0 for none
        symbols="words",  # what is read: words, features of words, subwords or bytes
        vocabulary=8_000,  # how many of them, at most; there are 256 bytes
        features=24,  # of a word, at most
        unknown=0.0,  # probability that of a word's features its shape alone is seen in training
        lowercase=False,
        smoothing=0.0,  # of the tags
        outside=1.0,  # weight of O, which most words have, in the loss; the last of sorted tags
        batch=32,
        length=64,  # symbols of the widest rows; others are half of it
    )


def vocabulary(c: ConfigDict) -> int:
    """How many symbols an embedding must hold: with unknown ones, and the separator."""
    return 257 if c.symbols == "bytes" else int(c.vocabulary) + 2


def embedding(c: ConfigDict) -> SequenceLayer:
    """Vectors of the symbols, some of their entries dropped; see `encoders.embedding`."""
    if c.symbols != "features":
        return encoders.embedding(c, vocabulary(c))
    shapes = WordFeatureTokenizer.shapes
    bag = EmbedBag(vocabulary(c), c.width, c.embedding, unknown=c.unknown, kept=shapes)
    return Serial((bag, Dropout(c.dropout)))


def tagging(
    c: ConfigDict,
    source: Callable[[Path], Source],
    frontend: SequenceLayer,
    body: SequenceLayer,
    readout: Readout,
    optimization: Optimization,
) -> Experiment:
    """An experiment that puts a tag on every word, and with intents a label on the whole text.

    Args:
      c: the config.
      source: from the folder for prepared data to the records.
      frontend: from ids below `vocabulary(c)`.
      body: mixes the steps.
      readout: to `c.tags` logits a step; with intents a `Joint` of these and `c.intents` a text.
      optimization: how parameters move.
    """

    def data() -> Data:
        found = source(settings.data_dir(c))
        train = found.splits["train"]
        vocabularies: dict[str, Vocabulary] = {
            "text": tokenizer(c, [record["tokens"] for record in train]),
            "tag": settings.labels(c, "tags", found, "tags"),
        }
        if c.intents:
            vocabularies["label"] = settings.labels(c, "intents", found, "label")
        examples = functools.partial(tagged_examples, length=c.length)
        return record_data(found.splits, found.summary(), vocabularies, examples, pipeline)

    def pipeline(examples: Examples, host: int, hosts: int) -> Pipeline:
        widths = sorted({max(1, c.length // 2), c.length})
        return bucketed(examples, c.batch, widths, c.seed, host, hosts)

    if c.intents and c.outside != 1.0:
        raise UserError("outside weighs tags, and with intents one loss serves both; leave it at 1")
    weights = None if c.outside == 1.0 else (*(1.0,) * (c.tags - 1), c.outside)
    loss = functools.partial(losses.cross_entropy, smoothing=c.smoothing, weights=weights)
    kind = TAGGED_AND_LABELLED if c.intents else TAGGED
    if c.symbols == "features":
        kind = kind.holding("inputs", (c.features,), np.int32)
    return Experiment(
        model=SequenceModel(frontend, body, readout),
        task=Tagging(c.tags, loss, c.intents),
        data=data,
        batch=kind.batch(c.batch, c.length),
        optimization=optimization,
        cadence=settings.cadence(c),
        layout=settings.layout(c),
        seed=c.seed,
    )


def tokenizer(c: ConfigDict, texts: list[list[str]]) -> Tokenizer:
    """What cuts words into symbols, made of the training text."""
    makers: dict[str, Callable[[], Tokenizer]] = {
        "words": lambda: WordTokenizer.of_words(
            (word for words in texts for word in words), c.vocabulary, c.lowercase
        ),
        "features": lambda: WordFeatureTokenizer.of_words(
            (word for words in texts for word in words), c.vocabulary, c.features
        ),
        "subwords": lambda: SubwordTokenizer.of(map(" ".join, texts), c.vocabulary, c.lowercase),
        "bytes": ByteTokenizer,
    }
    return choose(makers, c.symbols, "symbols")()


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return settings.tiny(c, batch=8, length=32, vocabulary=280)
