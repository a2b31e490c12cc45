"""Models: tokens or features in, predictions out."""

from recattn_jax.models.sequence_model import PerStep, SequenceModel

__all__ = ["PerStep", "SequenceModel"]
