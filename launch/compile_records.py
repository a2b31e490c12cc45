"""What was found of experiments on slices of TPUs: a line each, and their part of the results."""

import dataclasses
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch import compile_report
from launch.chips import Topology
from launch.compile_report import Check
from recattn_jax.errors import StorageError
from recattn_jax.files import write_atomically
from recattn_jax.training.machine import commit, cores

NAME = "compile_checks.jsonl"
_TITLE = """
## On slices of TPUs, compiled and not run

Made by `python -m launch.compile_check --record` from [compile_checks.jsonl](compile_checks.jsonl).
"""


@dataclasses.dataclass(frozen=True)
class Found:
    """One check, and how to make it again.

    Args:
      config_file: the experiment.
      command: as a person would type it.
      commit: of the checkout.
      versions: of what compiled it.
      hardware: where it was compiled.
      check: what was found.
    """

    config_file: str
    command: str
    commit: str
    versions: dict[str, str]
    hardware: str
    check: Check


def found(config_file: str, command: str, check: Check) -> Found:
    """A check that was made here and now."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    return Found(config_file, command, commit() or "unknown", versions, cores(), check)


def read(folder: Path) -> list[Found]:
    """Reads the lines of a folder; none where there is no file.

    Raises:
      StorageError: a line is damaged; it says which.
    """
    path = folder / NAME
    if not path.exists():
        return []
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values = json.loads(line)
            check = values.pop("check")
            kind, sizes, slices = check.pop("topology")
            topology = Topology(kind, tuple(sizes), slices)
            mesh = tuple(check.pop("mesh"))
            lines.append(Found(check=Check(topology, mesh, **check), **values))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StorageError(
                f"{path} line {number} is damaged ({error}); repair it or delete it"
            ) from error
    return lines


def record(folder: Path, new: Sequence[Found]) -> list[Found]:
    """Adds lines, in the place of those of the same command and topology; returns all.

    Raises:
      StorageError: the file is damaged or cannot be written.
    """
    made = {(line.command, str(line.check.topology)): line for line in (*read(folder), *new)}
    lines = sorted(made.values(), key=lambda line: (line.config_file, line.command))
    write_atomically(folder / NAME, "".join(_line(line) for line in lines))
    return lines


def _line(line: Found) -> str:
    check = line.check
    topology = [check.topology.kind, check.topology.sizes, check.topology.slices]
    shallow = {field.name: getattr(check, field.name) for field in dataclasses.fields(check)}
    shallow |= {"topology": topology, "facts": check.facts and _condensed(check.facts)}
    values = {field.name: getattr(line, field.name) for field in dataclasses.fields(line)}
    return json.dumps(values | {"check": shallow}, sort_keys=True) + "\n"


def _condensed(facts: dict[str, Any]) -> dict[str, Any]:
    """The messages of each kind together, and by themselves those in loops over steps."""
    sums: dict[str, float] = {}
    inside = []
    for message in facts.get("collectives", ()):
        if message["over_steps"]:
            inside.append(message)
        else:
            kind = message["kind"]
            sums[kind] = sums.get(kind, 0.0) + message["ring_bytes"]
    rest = [{"kind": kind, "ring_bytes": size, "over_steps": False} for kind, size in sums.items()]
    return facts | {"collectives": [*rest, *inside]} if facts["fits"] else facts


def section(lines: Sequence[Found]) -> str:
    """The section of the results' page: of each experiment and size a table, and its commands."""
    if not lines:
        return ""
    groups: dict[tuple[str, int], list[Found]] = {}
    for line in lines:
        groups.setdefault((line.config_file, line.check.sizes["parameters"]), []).append(line)
    parts = [_TITLE.strip(), compile_report.NOTES, compile_report.SENT]
    for (config_file, parameters), some in groups.items():
        parts.append(f"### {config_file}, {parameters:,} parameters")
        commands = dict.fromkeys(line.command for line in some)
        parts.append("```\n" + "\n".join(commands) + "\n```")
        made = dict.fromkeys(
            f"commit {line.commit[:7]}{line.commit[40:]}, jax {line.versions['jax']}, libtpu"
            f" {line.versions['libtpu']}, compiled on {line.hardware}"
            for line in some
        )
        parts.append("; ".join(made) + ":")
        parts += compile_report.found([line.check for line in some])
    return "\n" + "\n\n".join(parts) + "\n"
