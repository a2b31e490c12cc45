"""System S1': LSTM(64), attention over its outputs, and a dense softmax at every step; on slots.

    python -m launch.train --config=experiments/s1_dense.py --config.folder=FOLDER

with the data of `snips`, a tag a word, and exactly the told settings: dot-product attention whose
queries, keys and values are the LSTM's outputs, no projections; Adam, cross-entropy, batches of 32,
10 epochs. What the text leaves open: words are embedded in 64 numbers, and the learning rate is
1e-3 throughout. With --config.mixer=lstm there is no attention; with --config.mixer=attention no
LSTM.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from experiments import snips
from experiments.common import settings, tagging
from recattn_jax.errors import choose
from recattn_jax.layers import LSTM, Dot, Embed, SelfAttention, SequenceLayer
from recattn_jax.models import PerStep
from recattn_jax.models.hybrids import attention_over_recurrence
from recattn_jax.training import Experiment

EPOCH = 409  # batches of 32 of 13,084 commands; another batch wants other steps


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **tagging.numbers() | dict(tags=72, vocabulary=3_500, lowercase=True, length=40, batch=32),
        mixer="lstm+attention",  # or lstm, attention
        embedding=0.05,  # standard deviation of the vectors of words at first
        folder="",
        steps=10 * EPOCH,
        log_every=EPOCH,
        evaluate_every=EPOCH,
        score_every=EPOCH,
        peak_lr=1e-3,
        warmup=0,
        weight_decay=0.0,
        clip=0.0,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    mixers: dict[str, Callable[[], SequenceLayer]] = {
        "lstm+attention": lambda: attention_over_recurrence(64, causal=False, window=None),
        "lstm": lambda: LSTM(64),
        "attention": lambda: SelfAttention(
            heads=1, causal=False, score=Dot(), positions=None, project=False
        ),
    }
    return snips.commands(
        c,
        frontend=Embed(tagging.vocabulary(c), 64, stddev=c.embedding),
        body=choose(mixers, c.mixer, "mixer")(),
        readout=PerStep(c.tags),
        optimization=settings.adam(c),
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {"peak_lr": (3e-4, 1e-3, 3e-3), "mixer": ("lstm", "attention", "lstm+attention")}


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return tagging.tiny(c)
