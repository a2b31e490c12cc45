"""Encoders of whole rows: a recurrence in both directions, attention, or both, added."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from recattn_jax.errors import choose
from recattn_jax.layers import (
    LSTM,
    Bidirectional,
    Dropout,
    Embed,
    Noise,
    Parallel,
    Residual,
    RMSNorm,
    SelfAttention,
    SequenceLayer,
    Serial,
    add,
)


def numbers() -> dict[str, Any]:
    """The numbers that `encoder` reads."""
    return dict(
        mixer="lstm+attention",  # or one half of it: lstm, attention
        width=128,
        depth=1,
        heads=4,
        dropout=0.5,
        zoneout=0.0,
    )


def of_symbols() -> dict[str, Any]:
    """The numbers that `encoder` and `embedding` read."""
    vectors = dict(embedding=0.1)  # standard deviation of the vectors of symbols at first
    return numbers() | vectors


def mixer(c: ConfigDict) -> SequenceLayer:
    """What mixes the steps of a row, `[B, T, width] -> [B, T, width]`.

    A bidirectional LSTM beside self-attention, added (system S3 in both directions), or either.
    """

    def lstm() -> SequenceLayer:
        noise = Noise(zoneout=c.zoneout)
        half = c.width // 2
        return Bidirectional(LSTM(half, noise=noise), LSTM(half, noise=noise))

    def attention() -> SequenceLayer:
        return SelfAttention(c.heads, causal=False)

    mixers: dict[str, Callable[[], SequenceLayer]] = {
        "lstm": lstm,
        "attention": attention,
        "lstm+attention": lambda: Parallel((lstm(), attention()), combine=add),
    }
    return choose(mixers, c.mixer, "mixer")()


def encoder(c: ConfigDict) -> SequenceLayer:
    """`depth` residual mixers behind norms, and a norm at the end."""
    blocks = [Residual(Serial((RMSNorm(), mixer(c), Dropout(c.dropout)))) for _ in range(c.depth)]
    return Serial((*blocks, RMSNorm(), Dropout(c.dropout)))


def embedding(c: ConfigDict, vocabulary: int) -> SequenceLayer:
    """Vectors of symbols, some of their entries dropped."""
    return Serial((Embed(vocabulary, c.width, stddev=c.embedding), Dropout(c.dropout)))
