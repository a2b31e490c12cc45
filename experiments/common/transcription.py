"""From sound and what is said in it to an experiment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.common import encoders, series, settings
from recattn_jax.data import (
    TRANSCRIBED,
    CharTokenizer,
    Data,
    Examples,
    Pipeline,
    Source,
    Vocabulary,
    bucketed,
    record_data,
    transcribed_examples,
)
from recattn_jax.errors import UserError
from recattn_jax.layers import Dense, Dropout, Serial
from recattn_jax.models import PerStep, SequenceModel
from recattn_jax.tasks import Transcription
from recattn_jax.training import Experiment


def numbers() -> dict[str, Any]:
    """The numbers that `transcription` reads, those of sound and of an encoder among them."""
    return (
        encoders.numbers()
        | series.sound()
        | dict(
            letters=40,  # different ones, at most
            length=400,  # frames of a recording, at most
            text=80,  # letters of a text, at most
            batch=32,
        )
    )


def transcription(c: ConfigDict, source: Callable[[Path], Source]) -> Experiment:
    """An experiment that writes down what is said, letter by letter, by way of CTC.

    Args:
      c: the config.
      source: from the folder for prepared data to records of "series" and "text".
    """

    def data() -> Data:
        found = source(settings.data_dir(c))
        # Of all splits: what training never heard must be written at least, to be evaluated.
        splits = found.splits.values()
        letters = CharTokenizer.of(record["text"] for records in splits for record in records)
        if letters.vocabulary_size > c.letters + 1:
            raise UserError(
                f"the texts have {letters.vocabulary_size - 1} different letters, and letters is"
                f" {c.letters}; give --config.letters={letters.vocabulary_size - 1} or more"
            )
        spectra = series.spectra(c, found)
        vocabularies: dict[str, Vocabulary] = {"series": spectra, "text": letters}
        return record_data(found.splits, found.summary(), vocabularies, examples, pipeline)

    def examples(split: str, records: Any, vocabularies: Any) -> Examples:
        return transcribed_examples(split, records, vocabularies, (c.length, c.text))

    def pipeline(made: Examples, host: int, hosts: int) -> Pipeline:
        return bucketed(made, c.batch, [(c.length, c.text)], c.seed, host, hosts)

    return Experiment(
        model=SequenceModel(
            frontend=Serial((Dense(c.width), Dropout(c.dropout))),
            body=encoders.encoder(c),
            readout=PerStep(c.letters + 1),
        ),
        task=Transcription(c.letters + 1),
        data=data,
        batch=TRANSCRIBED.holding("inputs", (c.features,), np.float32).batch(
            c.batch, c.length, c.text
        ),
        optimization=settings.adamw(c),
        cadence=settings.cadence(c),
        layout=settings.layout(c),
        seed=c.seed,
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return series.sweep()


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return settings.tiny(c, batch=8, length=48, text=16, width=16, heads=2)
