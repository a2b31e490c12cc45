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
from recattn_jax.layers.cross_attention import CrossAttention, LocationAttention, LocationState
from recattn_jax.layers.linear_attention import MLSTM, LinearAttention
from recattn_jax.layers.linear_recurrent import RGLRU, MinGRU, MinLSTM
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
from recattn_jax.layers.positions import (
    ALiBi,
    LearnedPositions,
    Positions,
    PositionState,
    RelativeBias,
    Rotary,
    SinusoidalPositions,
)
from recattn_jax.layers.recurrent import LSTM, RNN, Recurrent, RecurrentState
from recattn_jax.layers.scores import Additive, Cosine, Dot, General, ScaledDot, Score

__all__ = [
    "LSTM",
    "MLSTM",
    "RGLRU",
    "RNN",
    "ALiBi",
    "Additive",
    "AttentionState",
    "Combinator",
    "Context",
    "Cosine",
    "CrossAttention",
    "Dense",
    "Dot",
    "Dropout",
    "Embed",
    "GatedMLP",
    "General",
    "Identity",
    "LayerNorm",
    "LearnedPositions",
    "LocationAttention",
    "LocationState",
    "LinearAttention",
    "MinGRU",
    "MinLSTM",
    "Parallel",
    "Pointwise",
    "PositionState",
    "Positions",
    "RMSNorm",
    "Recurrent",
    "RecurrentState",
    "RelativeBias",
    "Repeat",
    "Residual",
    "Rotary",
    "ScaledDot",
    "Score",
    "SelfAttention",
    "SequenceLayer",
    "Serial",
    "SinusoidalPositions",
    "Stacked",
    "add",
    "concat",
    "map_batch",
    "zero_state",
]
