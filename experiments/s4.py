"""System S4: embedding, LSTM, attention, dense; on the sentiment of film reviews.

    python -m launch.train --config=experiments/s4.py --config.folder=FOLDER

with the data of `sst2` and the settings as told: Embedding(64), LSTM(128) at all steps, attention,
Dense; Adam, batches of 64, 10 epochs; after each the log says loss and accuracy of its last batch
and of validation. One label is wanted, so attention pools the steps. With --config.mixer=lstm the
last step is read in its place; with --config.mixer=attention there is no LSTM, but attention of the
words to each other.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments import sst2
from experiments.common import classification, settings
from recattn_jax.errors import choose
from recattn_jax.layers import LSTM, Embed, Rotary, SelfAttention
from recattn_jax.models import AttentionPooled, Last
from recattn_jax.training import Experiment

EPOCH = 109  # batches of 64 of 6,920 reviews; another batch wants other steps


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **classification.numbers() | dict(batch=64),
        mixer="lstm+attention",  # or lstm, attention
        embedding=0.05,  # standard deviation of the vectors of words at first
        folder="",
        steps=10 * EPOCH,
        log_every=EPOCH,
        evaluate_every=EPOCH,
        peak_lr=1e-3,
        warmup=0,
        weight_decay=0.0,
        clip=0.0,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    mixers = {
        "lstm+attention": lambda: (LSTM(128), AttentionPooled(c.classes, 128)),
        "lstm": lambda: (LSTM(128), Last(c.classes)),
        "attention": lambda: (
            SelfAttention(heads=1, causal=False, positions=Rotary()),
            AttentionPooled(c.classes, 128),
        ),
    }
    body, readout = choose(mixers, c.mixer, "mixer")()
    frontend = Embed(classification.vocabulary(c), 64, stddev=c.embedding)
    return sst2.reviews(c, frontend, body, readout, settings.adam(c))


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {"peak_lr": (3e-4, 1e-3, 3e-3), "mixer": ("lstm", "attention", "lstm+attention")}


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return classification.tiny(c)
