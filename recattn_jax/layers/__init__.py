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
from recattn_jax.layers.cross_attention import CrossAttention, LocationAttention, LocationState
from recattn_jax.layers.depth import Remat, Repeat, Tied, stack
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
from recattn_jax.layers.positions import (
    ALiBi,
    LearnedPositions,
    Positions,
    PositionState,
    RelativeBias,
    Rotary,
    SinusoidalPositions,
)
from recattn_jax.layers.recurrent import GRU, LSTM, RNN, Recurrent, RecurrentState
from recattn_jax.layers.scores import Additive, Cosine, Dot, General, ScaledDot, Score
from recattn_jax.layers.time import (
    Bidirectional,
    Chunked,
    ChunkedState,
    Feedback,
    FeedbackState,
    Local,
    LocalState,
)
from recattn_jax.layers.xlstm import SLSTM

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "ALiBi",
    "Additive",
    "AttendToInput",
    "SLSTM",
    "AttentionState",
    "Bidirectional",
    "BlockRecurrent",
    "BlockState",
    "Chunked",
    "ChunkedState",
    "Combinator",
    "Combine",
    "Context",
    "Cosine",
    "CrossAttention",
    "Dense",
    "Dot",
    "Dropout",
    "Embed",
    "Feedback",
    "FeedbackState",
    "FixedGate",
    "Gate",
    "GatedMLP",
    "General",
    "Identity",
    "LSTMGate",
    "LayerNorm",
    "LearnedPositions",
    "Local",
    "LocalState",
    "LocationAttention",
    "LocationState",
    "NormalizedMean",
    "Noise",
    "Parallel",
    "Pointwise",
    "PositionState",
    "Positions",
    "RMSNorm",
    "Recurrent",
    "RecurrentState",
    "RelativeBias",
    "Remat",
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
    "Tied",
    "add",
    "concat",
    "map_batch",
    "stack",
    "zero_state",
]
