"""System S0: attention inside chunks, then a recurrence over them; on film reviews.

    python -m launch.train --config=experiments/s0.py --config.folder=FOLDER

with the data of `sst2`. `y = LSTM([Attention(X_1); ...; Attention(X_N)])`, the last step is read.
With --config.residual=true attention is added to the input in place of taking its place. With
--config.mixer=lstm there is no attention, with --config.mixer=attention no LSTM, and then the whole
sentence is one chunk.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from experiments import sst2
from experiments.common import classification, encoders, settings
from recattn_jax.errors import choose
from recattn_jax.layers import LSTM, Dropout, Rotary, SelfAttention, SequenceLayer, Serial
from recattn_jax.models import Last
from recattn_jax.models.hybrids import chunked_attention_then_recurrence
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **classification.numbers(),
        mixer="attention+lstm",  # or lstm, attention
        chunk=8,  # words that attend to each other
        residual=False,
        width=128,
        heads=4,
        embedding=0.1,
        dropout=0.5,
        folder="",
        steps=1000,
        evaluate_every=100,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    mixers: dict[str, Callable[[], SequenceLayer]] = {
        "attention+lstm": lambda: chunked_attention_then_recurrence(
            c.width, c.heads, c.chunk, causal=False, residual=c.residual
        ),
        "lstm": lambda: LSTM(c.width),
        "attention": lambda: SelfAttention(c.heads, causal=False, positions=Rotary()),
    }
    return sst2.reviews(
        c,
        frontend=encoders.embedding(c, classification.vocabulary(c)),
        body=Serial((choose(mixers, c.mixer, "mixer")(), Dropout(c.dropout))),
        readout=Last(c.classes),
        optimization=settings.adamw(c),
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {"chunk": (2, 4, 8, 16), "mixer": ("lstm", "attention", "attention+lstm")}


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(width=16, heads=2)
    return classification.tiny(c)
