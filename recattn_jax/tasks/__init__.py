"""Tasks: what a batch means, the loss that is minimised and the metrics that are reported."""

from recattn_jax.tasks import losses
from recattn_jax.tasks.answers import Answers
from recattn_jax.tasks.base import (
    Apply,
    Batch,
    Mean,
    Metrics,
    Perplexity,
    Scored,
    Task,
)
from recattn_jax.tasks.classification import Classification
from recattn_jax.tasks.language_model import LanguageModel
from recattn_jax.tasks.regression import Regression
from recattn_jax.tasks.sequence_to_sequence import SequenceToSequence
from recattn_jax.tasks.tagging import Tagging
from recattn_jax.tasks.text_scores import Bleu, ExactMatch, Rouge, TextScore
from recattn_jax.tasks.transcription import Transcription

__all__ = [
    "Answers",
    "Apply",
    "Batch",
    "Bleu",
    "Classification",
    "ExactMatch",
    "LanguageModel",
    "Mean",
    "Metrics",
    "Perplexity",
    "Regression",
    "Rouge",
    "Scored",
    "SequenceToSequence",
    "Tagging",
    "Task",
    "TextScore",
    "Transcription",
    "losses",
]
