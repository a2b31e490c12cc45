"""What a run notices of itself: peaks between two lines of the log, and steps gone bad."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WATCHED = ("loss", "grad_norm")
_NAMED = 8


class Peaks:
    """The largest loss and gradient norm since the last line of the log.

    A spike between two lines would be seen by nobody. Peaks are kept with a checkpoint, so that a
    run that goes on writes the lines that it would have written.

    Args:
      notes: of a checkpoint, as `notes` gave them; {} starts anew.

    >>> peaks = Peaks({})
    >>> peaks.see({"loss": 2.0, "grad_norm": 0.5}), peaks.see({"loss": 1.0, "grad_norm": 3.0})
    (None, None)
    >>> peaks.take()
    {'loss_peak': 2.0, 'grad_norm_peak': 3.0}
    """

    def __init__(self, notes: Mapping[str, Any]):
        self._peaks = {name: float(value) for name, value in notes.items()}

    def see(self, numbers: Mapping[str, float]) -> None:
        """Takes the finite numbers of a step."""
        for name in WATCHED:
            peak = f"{name}_peak"
            self._peaks[peak] = max(self._peaks.get(peak, -math.inf), numbers[name])

    def take(self) -> dict[str, float]:
        """The peaks, for a line of the log; the next ones start anew."""
        peaks, self._peaks = self._peaks, {}
        return peaks

    def notes(self) -> dict[str, float]:
        """The peaks, for a checkpoint."""
        return dict(self._peaks)


def not_finite(numbers: Mapping[str, float]) -> str:
    """What is wrong with the numbers of a step, "loss is nan", or nothing.

    >>> not_finite({"loss": 1.0, "grad_norm": math.inf})
    'grad norm is inf'
    """
    bad = [name for name in WATCHED if not math.isfinite(numbers[name])]
    return " and ".join(f"{name.replace('_', ' ')} is {numbers[name]}" for name in bad)


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether every number in a tree of arrays is finite."""
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def examples_of(rows: Mapping[str, np.ndarray]) -> list[int]:
    """The numbers of the examples in a batch, of this host's rows; none where it cuts a stream."""
    if "example" not in rows:
        return []
    return sorted({int(number) for number in np.ravel(rows["example"]) if number >= 0})


@dataclass(frozen=True)
class BadStep:
    """A step whose loss or gradient is not finite.

    Args:
      step: its number.
      what: is wrong with it, as `not_finite` says.
      examples: in its batch.
      skipped: steps of the run that were left out so far, this one included.

    >>> print(BadStep(8, "loss is nan", [3, 5], 0))
    loss is nan at step 8, batch 7 of the training pipeline, examples 3, 5
    """

    step: int
    what: str
    examples: list[int]
    skipped: int

    def record(self) -> dict[str, Any]:
        """For the log."""
        return {
            "step": self.step,
            "split": "nonfinite",
            "batch": self.step - 1,
            "examples": self.examples,
            "what": self.what,
            "skipped": self.skipped,
        }

    def __str__(self) -> str:
        """For a person, with some of the examples."""
        named = ", ".join(map(str, self.examples[:_NAMED]))
        more = len(self.examples) - _NAMED
        return (
            f"{self.what} at step {self.step}, batch {self.step - 1} of the training pipeline"
            + (f", examples {named}" if named else "")
            + (f" and {more} more" if more > 0 else "")
            + (" of the first host's rows" if named and jax.process_count() > 1 else "")
        )
