"""What was found about an experiment on slices of TPUs: tables, a page, numbers and a figure."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from launch.chips import GIB, Estimate, Topology, efficiencies, estimate
from recattn_jax.analysis.costs import KINDS
from recattn_jax.analysis.reports import as_markdown
from recattn_jax.errors import UserError
from recattn_jax.training.sharding import AXES

_COLUMNS = (
    "topology", "mesh", "fits", "GiB", "of", "TFLOP", "GB moved", "GB sent", "ms at best",
    "products + messages", "tokens/s/chip", "scaling", "compiled",
)  # fmt: skip
NOTES = """\
GiB: the most that a device holds at once, of so many. TFLOP, GB moved (to and from its memory) and
GB sent (around rings): of one device in one step of training, loops counted as often as they run.
ms at best: max(products, memory) + messages, each at the peak of the chip. A token is a
step of a row, whatever it holds. scaling: tokens/s/chip over those of the least of its kind."""

SENT = """\
GB that a device sends in a step, and all of it as a multiple of the parameters' bytes: by the
textbook up to 2 where every device has them all, up to 3 where they are split over all devices."""


@dataclasses.dataclass(frozen=True)
class Check:
    """What is known about an experiment on one topology.

    Args:
      topology: where it would run.
      mesh: sizes of the axes.
      sizes: of the model and the batch: `parameters`, `parameter_bytes` and `batch_tokens`.
      facts: as `topology_compiler.answer` gives them; None where it did not answer.
      problem: why not.
      warnings: of the partitioner.
    """

    topology: Topology
    mesh: tuple[int, ...]
    sizes: dict[str, int]
    facts: dict[str, Any] | None = None
    problem: str = ""
    warnings: Sequence[str] = ()

    @property
    def fits(self) -> bool:
        """Whether it was compiled, and fits the memory."""
        return self.facts is not None and self.facts["fits"]

    @property
    def estimate(self) -> Estimate | None:
        """How long a step would take at best; None where it does not fit."""
        if self.facts is None or not self.fits:
            return None
        facts = self.facts
        return estimate(self.topology, facts["flops"], facts["traffic_bytes"], self.sent())

    @property
    def rate(self) -> float | None:
        """Tokens a second and chip, at best."""
        found = self.estimate
        if found is None:
            return None
        return self.sizes["batch_tokens"] / found.step / self.topology.chips

    def sent(self, kind: str | None = None) -> float:
        """Bytes that a device sends in messages of this kind, or of all."""
        collectives = self.facts["collectives"] if self.facts else []
        return sum(c["ring_bytes"] for c in collectives if kind in (None, c["kind"]))

    @property
    def mesh_name(self) -> str:
        """Its axes of more than one device."""
        axes = zip(AXES, self.mesh, strict=True)
        return ",".join(f"{axis}:{size}" for axis, size in axes if size > 1) or "1"


def tables(checks: Sequence[Check]) -> str:
    """What there is to say, in Markdown that reads well on a terminal."""
    size, times, *more = found(checks)
    sent = [SENT] if any(check.fits for check in checks) else []
    return "\n\n".join([size, times, NOTES, *sent, *more])


def found(checks: Sequence[Check]) -> list[str]:
    """What was found of one model: its size, a table, and of what fits what is sent; remarks."""
    sizes = checks[0].sizes
    compared = efficiencies([c.rate for c in checks], [c.topology for c in checks])
    rows = [_row(check, scaling) for check, scaling in zip(checks, compared, strict=True)]
    sent = [
        (
            str(c.topology),
            c.mesh_name,
            *(f"{c.sent(kind) / 1e9:.3f}" for kind in KINDS),
            f"{c.sent() / sizes['parameter_bytes']:.2f}",
        )
        for c in checks
        if c.fits
    ]
    remarks = [f"- {c.topology}: {line}" for c in checks for line in _remarks(c)]
    return [
        f"{sizes['parameters']:,} parameters, {sizes['parameter_bytes'] / GIB:.2f} GiB;"
        f" {sizes['batch_tokens']:,} tokens a batch",
        as_markdown(rows, _COLUMNS),
        *([as_markdown(sent, ("topology", "mesh", *KINDS, "parameters"))] if sent else []),
        *(["\n".join(remarks)] if remarks else []),
    ]


def _row(check: Check, scaling: float | None) -> tuple[str, ...]:
    chip = check.topology.chip
    start = (str(check.topology), check.mesh_name)
    found = check.estimate
    if check.facts is None or found is None:
        verdict = "not compiled" if check.facts is None else "no"
        blank = [""] * (len(_COLUMNS) - 5)
        return (*start, verdict, "", str(chip.memory), *blank)
    facts = check.facts
    return (
        *start,
        "yes",
        f"{facts['peak_bytes'] / GIB:.2f}",
        str(chip.memory),
        f"{facts['flops'] / 1e12:.3f}",
        f"{facts['traffic_bytes'] / 1e9:.2f}",
        f"{check.sent() / 1e9:.3f}",
        f"{1e3 * found.step:.2f}",
        f"max({1e3 * found.compute:.2f}, {1e3 * found.memory:.2f}) + {1e3 * found.messages:.2f}",
        f"{check.rate:,.0f}",
        f"{scaling:.0%}",
        f"{facts['compile_seconds']:.0f} s",
    )


def _remarks(check: Check) -> list[str]:
    """What a table has no place for, a line each."""
    if check.facts is None:
        return [check.problem]
    if not check.fits:
        return [check.facts["why"]]
    facts = check.facts
    lines = list(check.warnings)
    # In a loop over layers each has its own weights; in one over steps they are always the same.
    inside = [c for c in facts["collectives"] if c["over_steps"]]
    for c in sorted(inside, key=lambda c: -c["ring_bytes"])[:5]:
        lines.append(
            f"in a loop over steps: {c['kind']} of {c['bytes']:,} bytes, {c['times']} times,"
            f" {c['name'] or 'made by the compiler'}"
        )
    for name in facts["loops_of_unknown_length"]:
        lines.append(f"counted once, since its length is not known: the loop {name}")
    if facts["kernels"]:
        lines.append(f"{facts['kernels']} kernels, whose products are not counted")
    return lines


def make(folder: Path) -> None:
    """Makes the folder for what `write` writes, before minutes are spent on it.

    Raises:
      UserError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={folder}: it cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out={folder}: it cannot be written")


def write(checks: Sequence[Check], title: str, folder: Path) -> str:
    """Writes the page, the numbers and the figure; returns their names."""
    name = "compile_check"
    numbers = [
        {
            "topology": str(check.topology),
            "mesh": dict(zip(AXES, check.mesh, strict=True)),
            **check.sizes,
            "facts": check.facts,
            "problem": check.problem,
            "warnings": list(check.warnings),
            "estimate": check.estimate and dataclasses.asdict(check.estimate),
        }
        for check in checks
    ]
    files = [folder / f"{name}.{end}" for end in ("md", "json", "png")]
    page = f"# {title} on slices of TPUs\n\n{tables(checks)}\n\n![{name}]({name}.png)\n"
    files[0].write_text(page, encoding="utf-8")
    files[1].write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    draw(checks, files[2])
    return ", ".join(map(str, files))


def draw(checks: Sequence[Check], path: Path) -> None:
    """Draws memory against what there is, the parts of a step, and how it scales, by topology.

    Args:
      checks: what to draw; of what does not fit there is only its place.
      path: the PNG to write.
    """
    figure = Figure(figsize=(4 + 2.2 * len(checks), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    memory, time = figure.subplots(1, 2)
    colours = {"products": "tab:blue", "memory": "tab:orange", "messages": "tab:green"}
    for place, check in enumerate(checks):
        there = check.topology.chip.memory
        memory.bar(place, there, 0.7, color="none", edgecolor="gray", linestyle="--")
        found = check.estimate
        if check.facts is None or found is None:
            for axes in (memory, time):
                words = "not compiled" if check.facts is None else "does not fit"
                axes.annotate(words, (place, 0), ha="center", va="bottom", fontsize=8)
            time.bar(place, 0.0)
            continue
        memory.bar(place, check.facts["peak_bytes"] / GIB, 0.7, color="tab:blue")
        parts = (found.compute, found.memory, found.messages)
        for index, (seconds, colour) in enumerate(zip(parts, colours.values(), strict=True)):
            time.bar(place + 0.25 * (index - 1), 1e3 * seconds, 0.25, color=colour)
    ticks = [f"{check.topology}\n{check.mesh_name}" for check in checks]
    scaling = efficiencies([c.rate for c in checks], [c.topology for c in checks])
    scaled = [
        tick if share is None else f"{tick}\nscaling {share:.0%}"
        for tick, share in zip(ticks, scaling, strict=True)
    ]
    for axes, below in ((memory, ticks), (time, scaled)):
        axes.set_xticks(range(len(below)), below, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    memory.set_ylabel("GiB a device (dashed: what it has)")
    time.set_ylabel("ms a step, each at its peak")
    time.legend([Patch(color=colour) for colour in colours.values()], colours, fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": None})
