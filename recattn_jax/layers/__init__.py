"""Sequence layers: recurrence, attention, and the ways of combining them."""

from recattn_jax.layers.attention import AttentionState, SelfAttention
from recattn_jax.layers.base import Context, SequenceLayer, Stacked, map_batch, zero_state
from recattn_jax.layers.combinators import Parallel, Repeat, Residual, Serial, add, concat
from recattn_jax.layers.noise import Noise
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
from recattn_jax.layers.recurrent import GRU, LSTM, RNN, Recurrent, RecurrentState
from recattn_jax.layers.xlstm import SLSTM

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SLSTM",
    "AttentionState",
    "Context",
    "Dense",
    "Dropout",
    "Embed",
    "GatedMLP",
    "Identity",
    "LayerNorm",
    "Noise",
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
