"""Reads compiled HLO: which collectives stand inside loops, and how large they are."""

import math
import re

COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<name>all-gather|all-reduce|all-to-all|reduce-scatter"
    r"|collective-permute)(-start)?\("
)
CALLED = re.compile(r"(?:body|condition|to_apply|calls|branch_computations)=\{?(%[\w.\-, %]+)")


def computations(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        opening = re.match(r"(?:ENTRY )?(%[\w.\-]+) .*\{$", line)
        if opening:
            name = opening[1]
            found[name] = []
        elif name:
            found[name].append(line)
    return found


def bodies(text: str) -> list[str]:
    return re.findall(r" while\(.*body=(%[\w.\-]+)", text)


def loops(text: str) -> int:
    """How many loops there are."""
    return len(bodies(text))


def collectives_in_loops(text: str, at_least: int) -> list[str]:
    """Lines with a collective of so many elements, anywhere that a loop body reaches.

    One that was born in a loop and then moved out, which is this compiler's kindness and not to be
    counted on, is found by the name of its operation.
    """
    code = computations(text)
    reached: set[str] = set()
    queue = bodies(text)
    while queue:
        name = queue.pop()
        if name in reached or name not in code:
            continue
        reached.add(name)
        for line in code[name]:
            for group in CALLED.findall(line):
                queue += re.findall(r"%[\w.\-]+", group)
    found = []
    for name, lines in code.items():
        for line in lines:
            match = COLLECTIVE.search(line)
            inside = name in reached or "/while/body/" in line
            if match and inside and max(map(elements, shapes(match["shapes"]))) >= at_least:
                found.append(line.strip())
    return found


def shapes(text: str) -> list[str]:
    return re.findall(r"\w+\[([\d,]*)\]", text)


def elements(shape: str) -> int:
    return math.prod(int(size) for size in shape.split(",") if size)
