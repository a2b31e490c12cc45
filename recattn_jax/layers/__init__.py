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
    multiply,
)
from recattn_jax.layers.convolution import CausalConvolution, ConvolutionState
from recattn_jax.layers.cross_attention import CrossAttention, LocationAttention, LocationState
from recattn_jax.layers.depth import Remat, Repeat, Tied, stack
from recattn_jax.layers.feedback_memory import FeedbackMemory, FeedbackMemoryState
from recattn_jax.layers.final import Final
from recattn_jax.layers.frames import FrameConvolutions, RandomAffine
from recattn_jax.layers.linear_attention import MLSTM, LinearAttention
from recattn_jax.layers.linear_recurrent import RGLRU, MinGRU, MinLSTM
from recattn_jax.layers.noise import Noise
from recattn_jax.layers.pointwise import (
    Activation,
    Boom,
    Dense,
    Dropout,
    Embed,
    EmbedBag,
    GatedMLP,
    Identity,
    LayerNorm,
    Pointwise,
    RMSNorm,
    Slice,
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
from recattn_jax.layers.recurrent import GRU, LSTM, RNN, Recurrent
from recattn_jax.layers.recurrent_state import RecurrentState
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
    "FrameConvolutions",
    "GRU",
    "LSTM",
    "MLSTM",
    "RGLRU",
    "RNN",
    "SLSTM",
    "ALiBi",
    "Activation",
    "Additive",
    "AttendToInput",
    "AttentionState",
    "Bidirectional",
    "BlockRecurrent",
    "BlockState",
    "Boom",
    "CausalConvolution",
    "Chunked",
    "ChunkedState",
    "Combinator",
    "Combine",
    "Context",
    "ConvolutionState",
    "Cosine",
    "CrossAttention",
    "Dense",
    "Dot",
    "Dropout",
    "Embed",
    "EmbedBag",
    "Feedback",
    "FeedbackMemory",
    "FeedbackMemoryState",
    "FeedbackState",
    "Final",
    "FixedGate",
    "Gate",
    "GatedMLP",
    "General",
    "Identity",
    "LSTMGate",
    "LayerNorm",
    "LearnedPositions",
    "LinearAttention",
    "Local",
    "LocalState",
    "LocationAttention",
    "LocationState",
    "MinGRU",
    "MinLSTM",
    "Noise",
    "NormalizedMean",
    "Parallel",
    "Pointwise",
    "PositionState",
    "Positions",
    "RMSNorm",
    "RandomAffine",
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
    "Slice",
    "Stacked",
    "Tied",
    "add",
    "concat",
    "map_batch",
    "multiply",
    "stack",
    "zero_state",
]
