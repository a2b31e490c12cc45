"""What a sweep may vary besides a choice among a few: a range of numbers."""

import math
from dataclasses import dataclass

from recattn_jax.errors import UserError


@dataclass(frozen=True)
class Span:
    """All numbers from `low` to `high`, both included, as a value of an experiment's `sweep()`.

    Args:
      low: the least; an int, like `high`, for a key that counts.
      high: the largest.
      log: whether 1 to 10 is as much of it as 10 to 100.

    Raises:
      UserError: there is no number in it, or it begins at zero or below and is logarithmic.

    >>> {"peak_lr": Span(1e-4, 1e-2, log=True), "depth": Span(1, 4)}["depth"].high
    4
    """

    low: int | float
    high: int | float
    log: bool = False

    def __post_init__(self) -> None:
        numbers = (self.low, self.high)
        if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
            raise UserError(f"{self}: low and high must be finite numbers")
        if not self.low < self.high:
            raise UserError(f"{self}: low must be below high")
        if self.log and self.low <= 0:
            raise UserError(f"{self}: a logarithmic span must begin above 0")
