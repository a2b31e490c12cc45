"""Which collectives of a compiled program stand inside loops, and how large they are."""

from recattn_jax.analysis import hlo
from recattn_jax.analysis.costs import KINDS


def loops(text: str) -> int:
    """How many loops there are."""
    return len(hlo.parse(text).loops())


def collectives_in_loops(text: str, at_least: int) -> list[str]:
    """Collectives of so many elements anywhere inside a loop.

    One that was born in a loop and then moved out, which is this compiler's kindness and not to be
    counted on, is found by the name of its operation.
    """
    return [
        f"{instruction.shape} {instruction.opcode} {instruction.op_name}"
        for run in hlo.parse(text).runs()
        for instruction in run.computation.values()
        if instruction.opcode.removesuffix("-start") in KINDS
        and (run.loops or "/while/body/" in instruction.op_name)
        and max(array.elements for array in instruction.arrays) >= at_least
    ]
