"""System S1: hidden states attend over the inputs, and what they find is added; on slots.

    python -m launch.train --config=experiments/s1.py --config.folder=FOLDER

with the data of `snips`, a tag a word. `h = RNN(x)`, `y_t = h_t + sum_s softmax_s(score(h_t, x_s))
x_s`, over the whole command, or its past with --config.causal=true; --config.score is dot,
scaled_dot, cosine, general or additive. With --config.mixer=rnn there is no attention; with
--config.mixer=attention the inputs ask in place of the states.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from experiments import snips
from experiments.common import encoders, settings, tagging
from recattn_jax.errors import choose
from recattn_jax.layers import (
    RNN,
    Additive,
    Cosine,
    Dot,
    Dropout,
    General,
    Residual,
    ScaledDot,
    Score,
    SelfAttention,
    SequenceLayer,
    Serial,
)
from recattn_jax.models import PerStep
from recattn_jax.models.hybrids import recurrence_attends_to_input
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **tagging.numbers() | dict(tags=72, vocabulary=3_500, lowercase=True, length=40),
        mixer="rnn+attention",  # or rnn, attention
        score="general",
        causal=False,  # whether only the past is seen
        width=128,
        embedding=0.1,
        dropout=0.3,
        folder="",
        steps=1500,
        evaluate_every=500,
        score_every=500,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    scores: dict[str, Callable[[], Score]] = {
        "dot": Dot,
        "scaled_dot": ScaledDot,
        "cosine": Cosine,
        "general": General,
        "additive": lambda: Additive(c.width),
    }
    score = choose(scores, c.score, "score")()

    def attends() -> SequenceLayer:
        return recurrence_attends_to_input(c.width, score, causal=c.causal, window=None)

    def attention() -> SequenceLayer:
        return Residual(
            SelfAttention(heads=1, causal=c.causal, score=score, positions=None, project=False)
        )

    mixers: dict[str, Callable[[], SequenceLayer]] = {
        "rnn+attention": attends,
        "rnn": lambda: RNN(c.width),
        "attention": attention,
    }
    return snips.commands(
        c,
        frontend=encoders.embedding(c, tagging.vocabulary(c)),
        body=Serial((choose(mixers, c.mixer, "mixer")(), Dropout(c.dropout))),
        readout=PerStep(c.tags),
        optimization=settings.adamw(c),
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "score": ("dot", "scaled_dot", "cosine", "general", "additive"),
        "mixer": ("rnn", "attention", "rnn+attention"),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(width=16)
    return tagging.tiny(c)
