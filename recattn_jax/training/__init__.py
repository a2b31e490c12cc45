"""Training: experiments as values, one step, one loop, checkpoints that know their own bits."""

from recattn_jax.training.evaluation import evaluate
from recattn_jax.training.experiment import (
    Cadence,
    Experiment,
    Layout,
    MeshShape,
    Optimization,
    Rule,
)
from recattn_jax.training.experiment_file import load_experiment_file
from recattn_jax.training.loading import Run, load_run
from recattn_jax.training.loop import Outcome, fit
from recattn_jax.training.prediction import LinePredictor
from recattn_jax.training.privacy import Privacy
from recattn_jax.training.runs import RunFolder
from recattn_jax.training.sharding import DEFAULT_RULES
from recattn_jax.training.space import Span

__all__ = [
    "DEFAULT_RULES",
    "Cadence",
    "Experiment",
    "Layout",
    "LinePredictor",
    "MeshShape",
    "Optimization",
    "Outcome",
    "Privacy",
    "Rule",
    "Run",
    "RunFolder",
    "Span",
    "evaluate",
    "fit",
    "load_experiment_file",
    "load_run",
]
