"""Sentiment of film reviews in two classes, without pretrained vectors.

    python -m launch.train --config=experiments/sst2.py --config.folder=FOLDER

where FOLDER holds `stsa.binary.train`, `.dev` and `.test`, perhaps as .gz: the 6,920 sentences are
all that is trained on. A bidirectional LSTM beside self-attention, pooled by attention; with
--config.mixer=lstm or --config.mixer=attention it is one half of itself.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Private training (DP-SGD) costs most of what was learned: at noise 0.6 (see RESULTS.md) the log says
an epsilon of 8.8 at a delta of 1e-5 if batches were Poisson samples, 50 for shuffled epochs.

Reference: accuracy of 82 to 85 % by bidirectional LSTMs with attention on GloVe vectors (from
memory).
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import classification, encoders, settings
from recattn_jax.data import Source, sst
from recattn_jax.layers import SequenceLayer
from recattn_jax.models import AttentionPooled, Readout
from recattn_jax.training import Experiment, Optimization


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **encoders.of_symbols(),
        **classification.numbers(),
        folder="",
        steps=1000,
        evaluate_every=100,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    return reviews(
        c,
        frontend=encoders.embedding(c, classification.vocabulary(c)),
        body=encoders.encoder(c),
        readout=AttentionPooled(c.classes, c.width),
        optimization=settings.adamw(c),
    )


def reviews(
    c: ConfigDict,
    frontend: SequenceLayer,
    body: SequenceLayer,
    readout: Readout,
    optimization: Optimization,
) -> Experiment:
    """The same for any model; see `classification.classification`."""

    def source(data_dir: Path) -> Source:
        folder = settings.path(c, "folder", "stsa.binary.train, .dev and .test")
        return sst(folder, data_dir, c.classes)

    return classification.classification(c, source, True, frontend, body, readout, optimization)


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
