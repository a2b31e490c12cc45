"""Models: tokens or features in, predictions out."""

from recattn_jax.models.encoder_decoder import EncoderDecoder
from recattn_jax.models.forecasters import DirectForecaster, RollingForecaster
from recattn_jax.models.readouts import (
    Asked,
    AttentionPooled,
    Comparison,
    Joint,
    Last,
    Max,
    Mean,
    PerStep,
    Pooled,
    Readout,
    TiedPerStep,
)
from recattn_jax.models.sequence_model import SequenceModel

__all__ = [
    "Asked",
    "AttentionPooled",
    "Comparison",
    "DirectForecaster",
    "EncoderDecoder",
    "Joint",
    "Last",
    "Max",
    "Mean",
    "PerStep",
    "Pooled",
    "Readout",
    "RollingForecaster",
    "SequenceModel",
    "TiedPerStep",
]
