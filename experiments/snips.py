"""What a command wants, and the words that say how: intents and slots at once.

    python -m launch.train --config=experiments/snips.py --config.folder=FOLDER

where FOLDER holds `train_INTENT_full.json` and `validate_INTENT.json` of seven intents, perhaps as
.gz; the latter are the test, as is usual, and 700 training commands are held out. A bidirectional
LSTM beside self-attention reads the words; tags are read off every step and the intent off their
attention-weighted mean. With --config.mixer=lstm or --config.mixer=attention it is one half of
itself.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: intents 97.0 %, slot F1 88.8 by a slot-gated bidirectional LSTM with attention.

Tried: 8,000 words in the vocabulary and dropout 0.5 gave a slot F1 of 85 on validation, 4,500 words
and dropout 0.4 one of 88 after as many steps: the names in new commands are unknown words, and what
to make of those only the rare words of training teach. 3,000 subwords gave 81.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import encoders, settings, tagging
from recattn_jax.data import Source, intent_slots
from recattn_jax.layers import SequenceLayer
from recattn_jax.models import AttentionPooled, Joint, PerStep, Readout
from recattn_jax.training import Experiment, Optimization


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **encoders.of_symbols() | dict(dropout=0.4),
        **tagging.numbers() | dict(tags=72, intents=7, vocabulary=3_500, lowercase=True, length=40),
        folder="",
        steps=2500,
        evaluate_every=625,
        score_every=625,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    return commands(
        c,
        frontend=tagging.embedding(c),
        body=encoders.encoder(c),
        readout=Joint((PerStep(c.tags), AttentionPooled(c.intents, c.width))),
        optimization=settings.adamw(c),
    )


def commands(
    c: ConfigDict,
    frontend: SequenceLayer,
    body: SequenceLayer,
    readout: Readout,
    optimization: Optimization,
) -> Experiment:
    """The same for any model; see `tagging.tagging`."""

    def source(data_dir: Path) -> Source:
        folder = settings.path(c, "folder", "train_INTENT_full.json and validate_INTENT.json")
        return intent_slots(folder, data_dir, validation=700 / 13784)

    return tagging.tagging(c, source, frontend, body, readout, optimization)


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
