"""Recurrence, attention and hybrids of both by name, for problems that tell them apart."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from recattn_jax.errors import choose
from recattn_jax.layers import (
    GRU,
    LSTM,
    RNN,
    Dot,
    Residual,
    RMSNorm,
    Rotary,
    SelfAttention,
    SequenceLayer,
    Serial,
)
from recattn_jax.models import hybrids

NAMES = (
    "rnn",
    "lstm",
    "gru",
    "rglru",
    "transformer",
    "attention",
    "s0",
    "s1",
    "s3",
    "griffin",
    "lstm+attention",
)


def numbers() -> dict[str, Any]:
    """The numbers that `architecture` reads."""
    return dict(
        mixer="lstm+attention",  # or another of NAMES
        width=128,
        heads=4,
        depth=2,  # blocks of rglru and transformer; griffin has three
        chunk=16,  # steps of the chunks of s0, and that griffin looks back
    )


def architecture(c: ConfigDict) -> SequenceLayer:
    """The body `[B, T, width] -> [B, T, width]` that `c.mixer` names.

    Recurrences are one layer as they are; attention sees all of the row, but in chunks of `c.chunk`
    (s0) or a window of as many steps (griffin). "attention" is "lstm+attention" without the LSTM.

    Raises:
      UserError: there is none of that name.
    """

    def attention() -> SequenceLayer:
        return SelfAttention(c.heads, causal=False, positions=Rotary())

    def linear_recurrence() -> SequenceLayer:
        recurrence = hybrids.gated_linear_recurrence(c.width, c.width, c.heads)
        return hybrids.pre_norm_block(recurrence, 2 * c.width, dropout=0.0)

    def looks() -> SequenceLayer:
        return Residual(Serial((RMSNorm(), attention())))

    def attends() -> SequenceLayer:
        return hybrids.pre_norm_block(attention(), 2 * c.width, dropout=0.0)

    def blocks(block: Callable[[], SequenceLayer]) -> SequenceLayer:
        return Serial((*[block() for _ in range(c.depth)], RMSNorm()))

    found: dict[str, Callable[[], SequenceLayer]] = {
        "rnn": lambda: RNN(c.width),
        "lstm": lambda: LSTM(c.width),
        "gru": lambda: GRU(c.width),
        "rglru": lambda: blocks(linear_recurrence),
        "transformer": lambda: blocks(attends),
        "attention": lambda: Serial((looks(), RMSNorm())),
        "s0": lambda: hybrids.chunked_attention_then_recurrence(
            c.width, c.heads, c.chunk, causal=False, residual=True
        ),
        "s1": lambda: hybrids.recurrence_attends_to_input(
            c.width, Dot(), causal=False, window=None
        ),
        "s3": lambda: hybrids.recurrence_beside_attention(
            c.width, c.heads, window=None, causal=False, positions=Rotary()
        ),
        "griffin": lambda: hybrids.griffin(
            c.width, c.heads, c.chunk, 2 * c.width, depth=3, dropout=0.0
        ),
        "lstm+attention": lambda: Serial((LSTM(c.width), looks(), RMSNorm())),
    }
    assert tuple(found) == NAMES
    return choose(found, c.mixer, "mixer")()
