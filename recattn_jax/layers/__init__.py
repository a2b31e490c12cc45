"""Sequence layers: recurrence, attention, and the ways of combining them."""

from recattn_jax.layers.attention import AttentionState, SelfAttention
from recattn_jax.layers.base import Context, SequenceLayer, Stacked, map_batch, zero_state
from recattn_jax.layers.blocks import BlockRecurrent, BlockState
from recattn_jax.layers.combinators import AttendToInput, Parallel, Residual, Serial
from recattn_jax.layers.combine import (
    Combine,
    FixedGate,
    Gate,
    LSTMGate,
    NormalizedMean,
    add,
    concat,
)
from recattn_jax.layers.depth import Remat, Repeat, Tied, stack
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
from recattn_jax.layers.time import (
    Bidirectional,
    Chunked,
    ChunkedState,
    Feedback,
    FeedbackState,
    Local,
    LocalState,
)

__all__ = [
    "LSTM",
    "RNN",
    "AttendToInput",
    "AttentionState",
    "Bidirectional",
    "BlockRecurrent",
    "BlockState",
    "Chunked",
    "ChunkedState",
    "Combine",
    "Context",
    "Dense",
    "Dropout",
    "Embed",
    "Feedback",
    "FeedbackState",
    "FixedGate",
    "GatedMLP",
    "Gate",
    "Identity",
    "LSTMGate",
    "LayerNorm",
    "Local",
    "LocalState",
    "NormalizedMean",
    "Parallel",
    "Pointwise",
    "RMSNorm",
    "Recurrent",
    "RecurrentState",
    "Remat",
    "Repeat",
    "Residual",
    "SelfAttention",
    "SequenceLayer",
    "Serial",
    "Stacked",
    "Tied",
    "add",
    "concat",
    "map_batch",
    "stack",
    "zero_state",
]
