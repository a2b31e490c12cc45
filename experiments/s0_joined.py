"""System S0': each input joined with its attention value, then a recurrence; on characters.

    python -m launch.train --config=experiments/s0_joined.py --config.folder=FOLDER

with the data of `shakespeare`. `y_t = LSTM([x_t; Attention(x)_t])`, a linear layer reads the last
step so far, each in turn, and the hidden state is carried from batch to batch. Attention sees the
last --config.window inputs; with --config.chunk=K it sees those of its own chunk of K up to itself,
and with 1 the input alone. With --config.mixer=lstm or --config.mixer=attention the model is one
half of itself.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from experiments import shakespeare
from experiments.common import language, settings
from recattn_jax.errors import choose
from recattn_jax.layers import LSTM, Chunked, SelfAttention, SequenceLayer
from recattn_jax.models.hybrids import input_joined_with_attention
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        folder="",  # where input.txt is; empty downloads it
        batch=32,
        length=128,
        carry_state=True,
        mixer="attention+lstm",  # or lstm, attention
        width=256,
        heads=4,
        window=64,  # characters that attention looks back
        chunk=0,  # characters that attend to each other, in place of a window; 0 is a window
        embedding=1.0,  # standard deviation of the vectors of characters at first
        steps=600,
        evaluate_every=300,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def attention() -> SequenceLayer:
        if c.chunk:
            return Chunked(SelfAttention(c.heads, window=c.chunk), c.chunk)
        return SelfAttention(c.heads, window=c.window)

    mixers: dict[str, Callable[[], SequenceLayer]] = {
        "attention+lstm": lambda: input_joined_with_attention(c.width, attention()),
        "lstm": lambda: LSTM(c.width),
        "attention": attention,
    }

    optimization = settings.adamw(c, carry_state=c.carry_state)
    return shakespeare.characters(c, choose(mixers, c.mixer, "mixer")(), optimization)


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "chunk": (0, 1, 16),
        "window": (16, 64),
        "mixer": ("lstm", "attention", "attention+lstm"),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(heads=2)
    return language.tiny(c)
