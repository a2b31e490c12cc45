"""What one run of a compiled program takes of each device: products, memory, and messages.

Counted on the program's text, every loop as often as it runs, where the compiler's own analysis
counts the body of a loop once.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from recattn_jax.analysis.hlo import Array, Computation, Instruction, Loop, Program, arrays

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# What only names memory, or is counted by what it calls or what waits for it.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "after-all", "opt-barrier", "partition-id", "replica-id", "async-update",
}  # fmt: skip
_MESH_GROUPS = re.compile(
    r"replica_groups=mesh\[(?P<sizes>[^\]]*)\](, device_ids=\([^{]*\))? \{(?P<names>[^}]*)\}"
)
_FREE_CALLS = (
    "AllocateBuffer",
    "AssumeGatherIndicesInBound",
    "AsyncCollectiveDone",
    "AsyncCollectiveStart",
    "ConcatBitcast",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """Messages between devices.

    Args:
      kind: one of `KINDS`.
      bytes: of the whole array: gathered, reduced, or what a device has of one that moves.
      group: how many devices exchange it.
      loops: around it, the outermost first.
      name: what of the source it comes from.

    >>> Collective("all-gather", 1000, 4, (Loop("while", 3, False),), "").times
    3
    """

    kind: str
    bytes: int
    group: int
    loops: tuple[Loop, ...]
    name: str

    @property
    def times(self) -> int:
        """How often it runs; loops of which that is not known count once."""
        return math.prod(loop.times or 1 for loop in self.loops)

    @property
    def over_steps(self) -> bool:
        """Whether it stands in a loop over something else than layers, as time is."""
        return any(loop.over_steps for loop in self.loops)


def ring_bytes(collective: Collective) -> float:
    """Bytes that each device sends, one after the other around a ring, in all runs together.

    `(n - 1) / n` of the array; an all-reduce is a reduce-scatter and an all-gather, so twice that;
    a permutation sends what it has.

    Args:
      collective: a message.

    Returns:
      Bytes.

    >>> ring_bytes(Collective("all-reduce", 1000, 4, (), ""))
    1500.0
    """
    share = (collective.group - 1) / collective.group
    passes = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(collective.kind, share)
    return passes * collective.bytes * collective.times


def collectives(program: Program) -> list[Collective]:
    """All messages of a program.

    A TPU's compiler fuses pieces of one collective with other work, even with that of loops, and
    they share a channel: such a one is counted where it starts.

    Args:
      program: as `hlo.parse` reads it.

    Returns:
      One for every place where one runs.

    >>> from recattn_jax.analysis.hlo import parse
    >>> program = parse('''ENTRY %main (x: f32[2,2]) -> f32[2,2] {
    ...   %x = f32[2,2] parameter(0)
    ...   ROOT %y = f32[2,2] dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
    ... }''')
    >>> collectives(program)
    []
    """
    spread = {
        _channel(instruction)
        for computation in program.computations.values()
        if _starts(computation)
        for instruction in computation.values()
    }
    found = []
    for run in program.runs():
        for instruction in run.computation.values():
            kind = instruction.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            piece = run.fusion and _channel(instruction) in spread
            if piece and not _starts(run.computation):
                continue
            if run.fusion and run.fusion.name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            group = _group(instruction, program.partitions)
            operands = [run.computation[name] for name in instruction.operands]
            size = sum(operand.bytes for operand in operands)
            if kind == "all-gather":
                size *= group
            found.append(Collective(kind, size, group, run.loops, instruction.op_name))
    return found


def _starts(computation: Computation) -> bool:
    return any('"AsyncCollectiveStart"' in last.text for last in list(computation.values())[-1:])


def _channel(instruction: Instruction) -> str:
    return instruction.attribute("channel_id") or instruction.name


def flops(program: Program) -> float:
    """Multiplications and additions of all products of matrices, convolutions included.

    What custom calls (kernels) compute is not in the text, so it is not counted.

    Args:
      program: as `hlo.parse` reads it.

    Returns:
      How many, in one run.

    >>> from recattn_jax.analysis.hlo import parse
    >>> program = parse('''ENTRY %main (x: f32[2,2]) -> f32[2,2] {
    ...   %x = f32[2,2] parameter(0)
    ...   ROOT %y = f32[2,2] dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
    ... }''')
    >>> flops(program)
    16.0
    """
    total = 0.0
    for run in program.runs():
        for instruction in run.computation.values():
            if instruction.opcode == "dot":
                total += run.times * _dot(instruction, run.computation)
            elif instruction.opcode == "convolution":
                total += run.times * _convolution(instruction, run.computation)
    return total


def traffic(program: Program) -> float:
    """Bytes that are read from and written to the main memory.

    Each operation that is not part of a fusion reads its operands and writes its result; of an
    array that it slices or updates in place, the slice. What the compiler keeps in a faster memory
    is not counted, nor is what messages read and write.

    Args:
      program: as `hlo.parse` reads it.

    Returns:
      Bytes, in one run.

    >>> from recattn_jax.analysis.hlo import parse
    >>> program = parse('''ENTRY %main (x: f32[2,2]) -> f32[2,2] {
    ...   %x = f32[2,2] parameter(0)
    ...   ROOT %y = f32[2,2] dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
    ... }''')
    >>> traffic(program)
    48.0
    """
    total = 0.0
    for run in program.runs():
        if run.fusion is None:
            moved = sum(
                _moved(instruction, run.computation, program)
                for instruction in run.computation.values()
            )
            total += run.times * moved
    return total


def _group(collective: Instruction, partitions: int) -> int:
    """How many devices exchange something; the groups are written in one of four ways."""
    if collective.opcode.startswith("collective-permute"):
        return max(2, partitions)
    mesh = _MESH_GROUPS.search(collective.text)
    if mesh:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh["sizes"]))
        names = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh["names"])
        return math.prod(int(part or sizes[name]) for name, part in names)
    groups = collective.attribute("replica_groups") or "{}"
    if groups.startswith("["):
        return int(groups[1 : groups.index("]")].split(",")[-1])
    first = re.match(r"\{\{([\d,]+)\}", groups)
    return first[1].count(",") + 1 if first else partitions


def _only(instruction: Instruction) -> Array:
    return instruction.arrays[0]


def _dot(dot: Instruction, computation: Computation) -> float:
    left = _only(computation[dot.operands[0]])
    axes = (dot.attribute("lhs_contracting_dims") or "{}").strip("{}")
    contracted = math.prod(left.sizes[int(axis)] for axis in axes.split(",") if axis)
    return 2.0 * _only(dot).elements * contracted


def _convolution(convolution: Instruction, computation: Computation) -> float:
    """Two for every pair of an entry of the input and one of the kernel that meet.

    A TPU writes products of matrices so, batches as windows full of holes.
    """
    left, right = (_only(computation[name]).sizes for name in convolution.operands)
    labels = convolution.attribute("dim_labels") or ""
    inputs, kernel, outputs = re.split("_|->", labels)
    result = _only(convolution).sizes
    groups = int(convolution.attribute("batch_group_count") or 1)
    total = 2.0 * left[inputs.index("b")] / groups
    total *= right[kernel.index("i")] * right[kernel.index("o")]
    window = _window(convolution.attribute("window") or "{}")
    for axis in (letter for letter in outputs if letter.isdigit()):
        total *= _meetings(
            left[inputs.index(axis)],
            right[kernel.index(axis)],
            result[outputs.index(axis)],
            {name: sizes[int(axis)] for name, sizes in window.items()},
        )
    return total


def _window(text: str) -> dict[str, list[int]]:
    """`{size=3x1 pad=1_1x0_0}` as numbers by axis; of the padding the one before."""
    found = {}
    for name, value in re.findall(r"(\w+)=(\S+)", text.strip("{}")):
        found[name] = [int(size.split("_")[0]) for size in re.split(r"(?<=\d)x", value)]
    return found


def _meetings(size: int, kernel: int, outputs: int, window: Mapping[str, int]) -> int:
    """How many pairs of an output and an entry of the kernel have an entry of the input."""
    holes = window.get("lhs_dilate", 1)
    starts = np.arange(outputs) * window.get("stride", 1) - window.get("pad", 0)
    positions = starts[:, None] + np.arange(kernel)[None] * window.get("rhs_dilate", 1)
    inside = (positions >= 0) & (positions <= (size - 1) * holes) & (positions % holes == 0)
    return int(inside.sum())


def _free(instruction: Instruction) -> bool:
    """Whether an instruction only names memory, sends, or is counted by what it calls."""
    opcode = instruction.opcode
    return (
        opcode in _FREE
        or opcode.removesuffix("-start").removesuffix("-done") in KINDS
        or (opcode == "custom-call" and any(f'"{n}"' in instruction.text for n in _FREE_CALLS))
    )


def _main(found: Sequence[Array]) -> int:
    return sum(array.bytes for array in found if array.main)


def _moved(instruction: Instruction, computation: Computation, program: Program) -> int:
    opcode = instruction.opcode
    if _free(instruction):
        return 0
    result = _main(instruction.arrays)
    operands = [_main(computation[name].arrays) for name in instruction.operands]
    if opcode.endswith("-start"):  # its result holds what it reads, and `-done` what it writes
        return sum(operands)
    if opcode.endswith("-done"):
        return result
    if opcode in ("dynamic-slice", "gather"):
        return 2 * result
    if opcode == "dynamic-update-slice":
        return 2 * operands[1]
    if opcode == "fusion":
        called = program.computations[(instruction.attribute("calls") or "%")[1:]]
        operands = [
            min(whole, _read(called, index, program)) for index, whole in enumerate(operands)
        ]
        result = min(result, _written(called))
    return sum(operands) + result


def _read(called: Computation, index: int, program: Program) -> int:
    """How much of an operand a fusion reads."""
    parameter = next(
        i.name
        for i in called.values()
        if i.opcode == "parameter" and i.text[1:].startswith(f"{index})")
    )
    total, aliases = 0, {parameter}
    for user in called.values():
        places = [place for place, name in enumerate(user.operands) if name in aliases]
        if not places:
            continue
        if user.opcode == "bitcast":
            aliases.add(user.name)
        elif user.opcode in ("dynamic-slice", "gather") and places == [0]:
            total += user.bytes
        elif _free(user) or (user.opcode == "dynamic-update-slice" and places == [0]):
            pass
        elif user.opcode == "fusion":
            inner = program.computations[(user.attribute("calls") or "%")[1:]]
            total += sum(_read(inner, place, program) for place in places)
        else:
            return arrays(called[parameter].shape)[0].bytes
    return total


def _written(called: Computation) -> int:
    """How much of its result a fusion writes."""
    root = list(called.values())[-1]
    parts = [called[name] for name in root.operands] if root.opcode == "tuple" else [root]
    total = 0
    for part in parts:
        while part.opcode == "bitcast":
            part = called[part.operands[0]]
        if part.opcode == "dynamic-update-slice":
            total += called[part.operands[1]].bytes
        elif not _free(part):
            total += part.bytes
    return total
