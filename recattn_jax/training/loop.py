"""The one training loop."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recattn_jax.data import Data
from recattn_jax.training.experiment import Experiment
from recattn_jax.training.runs import RunFolder


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
      step: the last step taken.
      reason: "finished", "stopped early" or "already done".
      metrics: of the last evaluation of the validation split.
      best_step: step of the best evaluation.
      best: its headline.
      training_seconds: first to last step of this attempt, evaluations included, compilation not.
    """

    step: int
    reason: str
    metrics: dict[str, float]
    best_step: int
    best: float
    training_seconds: float


def fit(
    experiment: Experiment,
    data: Data,
    run: RunFolder,
    *,
    initial_params: Any = None,
    profile_steps: tuple[int, int] | None = None,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Trains, or resumes, or says that the run is done.

    Args:
      experiment: what to train.
      data: `experiment.data()`, opened.
      run: the folder, opened with `RunFolder.open`.
      initial_params: parameters to start from (`load_run(other).params`) where the folder has no
        checkpoint yet; None initialises them.
      profile_steps: (a, b) traces steps a to b, both included, into `profile/`.
      say: where plain lines for a person go.

    Raises:
      UserError, NonFiniteError, StorageError, Interrupted.
    """
    raise NotImplementedError
