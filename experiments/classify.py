"""One label for a text, on your own tab-separated file: an LSTM beside self-attention (system S3).

    python -m launch.train --config=experiments/classify.py --config.train=a.tsv --config.classes=3

Columns are found by the names in the first line, `text` and `label`. Without --config.validation a
tenth of the training lines is held out. With --config.mixer=lstm or --config.mixer=attention the
model is one half of itself. Time and the number to expect are matters of the text.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import classification, encoders, settings
from recattn_jax.data import Source, labelled_tsv
from recattn_jax.models import AttentionPooled
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **encoders.of_symbols(),
        **classification.numbers(),
        train="",  # paths; gzipped where they end in .gz
        validation="",
        test="",
        text="text",  # names of columns; numbers from 0 where the first line holds no names
        label="label",
        steps=1000,
        evaluate_every=100,
        patience=5,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        paths = settings.splits(c, train="train", validation="validation", test="test")
        return labelled_tsv(paths, data_dir, column(c.text), column(c.label))

    return classification.classification(
        c,
        source,
        spaced=False,
        frontend=encoders.embedding(c, classification.vocabulary(c)),
        body=encoders.encoder(c),
        readout=AttentionPooled(c.classes, c.width),
        optimization=settings.adamw(c),
    )


def column(name: str) -> str | int:
    """A column by its name, or by its number from 0 where it is one."""
    return int(name) if name.isdecimal() else name


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "peak_lr": (1e-3, 3e-3, 1e-2),
        "mixer": ("lstm", "attention", "lstm+attention"),
        "dropout": (0.3, 0.5, 0.6),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(width=16, heads=2)
    return classification.tiny(c)
