"""A tag for every word, on your own CoNLL file: an LSTM beside self-attention (system S3).

    python -m launch.train --config=experiments/tag.py --config.train=mine.conll --config.tags=5

A word a line, its tag in the last column, an empty line between texts; tags are IOB2. Without
--config.validation a tenth of the training texts is held out. --config.symbols=bytes reads words by
their letters, which helps where names are new. With --config.mixer=lstm or --config.mixer=attention
the model is one half of itself. Time and the number to expect are matters of the text.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import encoders, settings, tagging
from recattn_jax.data import Source, conll
from recattn_jax.models import PerStep
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **encoders.of_symbols() | dict(dropout=0.4),
        **tagging.numbers() | dict(vocabulary=4_000),
        train="",  # paths; gzipped where they end in .gz
        validation="",
        test="",
        steps=1000,
        evaluate_every=100,
        score_every=100,
        patience=5,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        paths = settings.splits(c, train="train", validation="validation", test="test")
        return conll(paths, data_dir)

    return tagging.tagging(
        c,
        source,
        frontend=tagging.embedding(c),
        body=encoders.encoder(c),
        readout=PerStep(c.tags),
        optimization=settings.adamw(c),
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "peak_lr": (1e-3, 3e-3, 1e-2),
        "mixer": ("lstm", "attention", "lstm+attention"),
        "dropout": (0.2, 0.3, 0.5),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(width=16, heads=2)
    return tagging.tiny(c)
