"""Sequence layers: recurrence, attention, and the ways of combining them."""

from recattn_jax.layers.attention import AttentionState, SelfAttention
from recattn_jax.layers.base import (
    Combinator,
    Context,
    SequenceLayer,
    Stacked,
    map_batch,
    zero_state,
)
from recattn_jax.layers.combinators import Parallel, Repeat, Residual, Serial, add, concat
from recattn_jax.layers.pointwise import (
    Dense,
    Dropout,
    Embed,
    GatedMLP,
    Identity,
    LayerNorm,
    Pointwise,
    RMSNorm,
)
from recattn_jax.layers.recurrent import LSTM, RNN, Recurrent, RecurrentState

__all__ = [
    "LSTM",
    "RNN",
    "AttentionState",
    "Combinator",
    "Context",
    "Dense",
    "Dropout",
    "Embed",
    "GatedMLP",
    "Identity",
    "LayerNorm",
    "Parallel",
    "Pointwise",
    "RMSNorm",
    "Recurrent",
    "RecurrentState",
    "Repeat",
    "Residual",
    "SelfAttention",
    "SequenceLayer",
    "Serial",
    "Stacked",
    "add",
    "concat",
    "map_batch",
    "zero_state",
]
