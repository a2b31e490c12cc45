"""Reads the text of compiled programs (HLO): instructions, and how often each of them runs."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_OPENING = re.compile(r"(?P<entry>ENTRY )?%(?P<name>[\w.\-]+) .*\{$")
_DEFINED = re.compile(r"\s*(?P<root>ROOT )?%(?P<name>[\w.\-]+) = ")
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"(?P<dtype>[a-z]\w*)\[(?P<sizes>[\d,<=]*)\](?P<layout>\{[^}]*\})?")
_CALLED = re.compile(r"\b(?:calls|to_apply|true_computation|false_computation)=%([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_BITS = {"pred": 8, "s4": 4, "u4": 4, "c64": 64, "c128": 128, "token": 0}
# Of the computations in `to_apply`, only those of a call are steps of the program; others say how
# two numbers are reduced to one.
_REDUCES = ("reduce", "all-reduce", "reduce-scatter", "scatter", "reduce-window", "map", "sort")
_STACKED = re.compile(r"while/body/(?:[\w()]+/)*?stacked\b")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a shape.

    Args:
      sizes: of its axes.
      bytes: that it takes.
      main: whether it lies in the main memory.

    >>> Array(sizes=(2, 3), bytes=24, main=True).elements
    6
    """

    sizes: tuple[int, ...]
    bytes: int
    main: bool

    @property
    def elements(self) -> int:
        """The product of its sizes."""
        return math.prod(self.sizes)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a program.

    Args:
      name: unique in its program.
      shape: of its result, as it is written.
      opcode: such as `fusion`.
      operands: names of what it reads, all in the same computation.
      text: all that stands after the opcode.

    >>> Instruction("x", "f32[2]", "parameter", (), "(0)").bytes
    8
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    text: str

    @functools.cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of its result; several where it is a tuple."""
        return arrays(self.shape)

    @property
    def bytes(self) -> int:
        """Of its result."""
        return sum(array.bytes for array in self.arrays)

    @property
    def op_name(self) -> str:
        """What of the source it comes from; empty where the compiler made it."""
        match = _OP_NAME.search(self.text)
        return match[1] if match else ""

    def attribute(self, name: str) -> str | None:
        """An attribute as it is written, up to the next comma outside of brackets."""
        match = re.search(rf"[ ,]{name}=", self.text)
        return _balanced(self.text, match.end(), ",") if match else None


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop of a program.

    Args:
      name: what of the source it comes from.
      times: how often its body runs; None where the program does not say.
      over_layers: whether it is that of a `Repeat`, whose body is one layer with its own weights.

    >>> Loop("scan/while", times=4, over_layers=False).over_steps
    True
    """

    name: str
    times: int | None
    over_layers: bool

    @property
    def over_steps(self) -> bool:
        """Whether it is one of the source over anything else than layers.

        The compiler makes loops too, such as one over the devices that each have a part of a
        product, and names them after the product.
        """
        return not self.over_layers and (not self.name or self.name.endswith("while"))


@dataclasses.dataclass(frozen=True)
class Run:
    """A computation in one of the places where it runs.

    Args:
      computation: its instructions by name.
      loops: around it, the outermost first.
      place: name of the nearest computation around it that is no part of a fusion.
      fusion: the fusion that it is part of, if it is.

    >>> Run({}, (Loop("while", 3, False), Loop("while", 2, False)), "main", None).times
    6
    """

    computation: "Computation"
    loops: tuple[Loop, ...]
    place: str
    fusion: Instruction | None

    @property
    def times(self) -> int:
        """How often it runs; loops of which that is not known count once."""
        return math.prod(loop.times or 1 for loop in self.loops)


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program.

    Args:
      computations: by name; the last instruction of each is its result.
      entry: name of the one where it begins.
      partitions: how many devices run it.

    >>> program = Program({"main": {}}, entry="main", partitions=1)
    >>> len(list(program.runs()))
    1
    """

    computations: dict[str, Computation]
    entry: str
    partitions: int

    def runs(self) -> Iterator[Run]:
        """Every computation in every place where it runs, the parts of fusions included.

        Of branches, of which one will run, all are there.
        """
        yield from self._below(self.entry, (), self.entry, None)

    def _below(
        self, name: str, loops: tuple[Loop, ...], place: str, fusion: Instruction | None
    ) -> Iterator[Run]:
        own = place if fusion else name
        yield Run(self.computations[name], loops, own, fusion)
        for instruction in self.computations[name].values():
            if instruction.opcode == "while":
                body = instruction.attribute("body")
                assert body is not None
                inside = (*loops, self._loop(instruction, body[1:]))
                yield from self._below(body[1:], inside, own, fusion)
            elif instruction.opcode not in _REDUCES:
                part = instruction if instruction.opcode == "fusion" else fusion
                for called in _called(instruction):
                    yield from self._below(called, loops, own, part)

    def loops(self) -> list[Loop]:
        """The loops, each once for every place where it runs."""
        return [
            self._loop(instruction, str(instruction.attribute("body"))[1:])
            for run in self.runs()
            for instruction in run.computation.values()
            if instruction.opcode == "while"
        ]

    def _loop(self, loop: Instruction, body: str) -> Loop:
        over_layers = any(
            _STACKED.match(instruction.op_name.removeprefix(loop.op_name.removesuffix("while")))
            for instruction in self.computations[body].values()
            if instruction.op_name.startswith(loop.op_name)
        )
        return Loop(loop.op_name, self._trips(loop), over_layers)

    def _trips(self, loop: Instruction) -> int | None:
        """What the compiler knows, or else the constant that the counter, from 0, stays below."""
        known = _TRIPS.search(loop.text)
        if known:
            return int(known[1])
        condition = self.computations[str(loop.attribute("condition"))[1:]]
        test = list(condition.values())[-1]
        if test.opcode != "compare" or test.attribute("direction") != "LT":
            return None
        limit = condition[test.operands[1]]
        return int(limit.text[1 : limit.text.index(")")]) if limit.opcode == "constant" else None


def parse(text: str) -> Program:
    r"""Reads a program.

    Args:
      text: as `compiled.as_text()` gives it.

    Returns:
      Its computations.

    >>> program = parse("ENTRY %main (x: f32[2]) -> f32[2] {\n  ROOT %x = f32[2] parameter(0)\n}")
    >>> program.computations["main"]["x"].bytes
    8
    """
    found: dict[str, Computation] = {}
    current: Computation = {}
    entry, root = "", None
    for line in text.splitlines():
        opening = _OPENING.match(line)
        if opening:
            current = found.setdefault(opening["name"], {})
            entry = opening["name"] if opening["entry"] else entry
            root = None
            continue
        if line.startswith("}"):
            if root is not None:  # which may stand anywhere
                current[root.name] = current.pop(root.name)
            continue
        defined = _DEFINED.match(line)
        if defined:
            instruction = _instruction(defined["name"], line[defined.end() :])
            current[instruction.name] = instruction
            root = instruction if defined["root"] else root
    partitions = re.search(r"num_partitions=(\d+)", text[: text.find("\n")])
    return Program(found, entry, int(partitions[1]) if partitions else 1)


def arrays(shape: str) -> tuple[Array, ...]:
    """Reads a shape, or a tuple of them.

    Args:
      shape: as a program writes it.

    Returns:
      Its arrays, in their order; `f32[2,3]` is one of the sizes (2, 3).

    >>> arrays("(f32[2,3]{1,0}, bf16[4]{0:T(128)S(1)})")
    (Array(sizes=(2, 3), bytes=24, main=True), Array(sizes=(4,), bytes=8, main=False))
    """
    found = []
    for match in _ARRAY.finditer(re.sub(r"/\*.*?\*/", "", shape)):
        sizes = tuple(int(size.lstrip("<=")) for size in match["sizes"].split(",") if size)
        bits = _BITS.get(match["dtype"])
        if bits is None:
            width = re.search(r"\d+", match["dtype"])
            bits = int(width[0]) if width else 0
        layout = match["layout"] or ""
        found.append(Array(sizes, -(-math.prod(sizes) * bits // 8), not re.search(r"S\(", layout)))
    return tuple(found)


def _instruction(name: str, rest: str) -> Instruction:
    shape = _balanced(rest, 0, " ")
    opcode, _, _ = rest[len(shape) + 1 :].partition("(")
    text = rest[len(shape) + 1 + len(opcode) :]
    inside = _balanced(text, 0, ",)") if text.startswith("(") else ""
    return Instruction(name, shape, opcode, tuple(_NAME.findall(inside)), text)


def _balanced(text: str, start: int, ends: str) -> str:
    """From `start` up to one of `ends` that stands in no bracket opened since."""
    depth = 0
    for index in range(start, len(text)):
        letter = text[index]
        if depth == 0 and letter in ends:
            return text[start:index]
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
    return text[start:]


def _called(instruction: Instruction) -> list[str]:
    names = _CALLED.findall(instruction.text)
    for branches in _BRANCHES.findall(instruction.text):
        names += _NAME.findall(branches)
    return names
