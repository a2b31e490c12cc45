"""The same layers and models, written with what other frameworks bring along.

A framework is imported by its own file alone, which nobody imports where it is not installed.
"""

from typing import NamedTuple


class Shape(NamedTuple):
    """The sizes of a layer, whose inputs are `[batch, steps, width]`.

    Args:
      batch: rows B.
      steps: T.
      width: D.
      units: H of a recurrence; heads of attention, where each has width / heads channels.
      window: steps that local attention sees, or those of a chunk; 0 where there is none.
    """

    batch: int
    steps: int
    width: int
    units: int
    window: int = 0

    def __str__(self) -> str:
        kind = f"window {self.window}" if self.window else ""
        return f"B{self.batch} T{self.steps} D{self.width} H{self.units} {kind}".strip()


class ModelShape(NamedTuple):
    """The sizes of a language model.

    Args:
      batch: rows B.
      steps: T.
      width: D, also the units of recurrences.
      heads: of attention, and blocks of a linear recurrence's gates.
      window: steps that local attention sees; 0 for all steps before.
      hidden: width inside MLPs; 0 where there are none.
      depth: blocks.
      vocabulary: V.
    """

    batch: int
    steps: int
    width: int
    heads: int
    window: int
    hidden: int
    depth: int
    vocabulary: int

    def __str__(self) -> str:
        return f"B{self.batch} T{self.steps} D{self.width} depth {self.depth}"
