"""Tasks: what a batch means, the loss that is minimised and the metrics that are reported."""

from recattn_jax.tasks.base import Apply, Batch, Mean, Metrics, Scored, Task
from recattn_jax.tasks.language_model import LanguageModel

__all__ = ["Apply", "Batch", "LanguageModel", "Mean", "Metrics", "Scored", "Task"]
