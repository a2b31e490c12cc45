"""Time and memory over sizes.

    python -m experiments.benchmarks.scaling [--rounds=5] [--limit_gib=6] [--only=REGEX] [--record]

Forward and backward, float32. Attention of every kind and system S0 (attention inside chunks, and
an LSTM over what it gives) over the length; an LSTM over length, batch and units, with all gates
kept and with `remat_every`; and the depth of a stack, with and without `Remat` around each block.
Memory is what the compiled program needs for its outputs and temporaries, as the compiler plans
it: inputs come on top. Where doubling the length costs twice, time and memory are linear in it.

A program that plans for more than --limit_gib is left out.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.benchmarks import plots
from experiments.benchmarks.buffers import buffers
from experiments.benchmarks.harness import (
    Bench,
    Program,
    Row,
    Suite,
    Table,
    distinct,
    found,
    main,
    number,
    ratio,
)
from recattn_jax.layers import LSTM, Chunked, Remat, Repeat, SelfAttention, SequenceLayer
from recattn_jax.models import hybrids

GIB, MIB = 2**30, 2**20
HEADS, WINDOW, REMAT = 2, 128, 64
BIG = 0.02  # share of all memory from which a buffer is listed


class Sizes(NamedTuple):
    """What the suite is run at; `quick` has a tiny form.

    Args:
      attention: lengths T of attention, batch 1.
      width: of attention.
      steps: lengths of the LSTM, at `batch` and `units`.
      batches: of the LSTM, at `length` and `units`.
      many_units: of the LSTM, at `length` and `batch`.
      depths: of the stack, at `length`, `batch` and `narrow` units.
    """

    attention: tuple[int, ...] = (4_096, 8_192, 16_384, 32_768)
    width: int = 64
    steps: tuple[int, ...] = (512, 1_024, 2_048, 4_096, 8_192)
    batches: tuple[int, ...] = (1, 4, 16, 64)
    many_units: tuple[int, ...] = (128, 256, 512, 1_024)
    depths: tuple[int, ...] = (2, 4, 8, 16)
    length: int = 256
    batch: int = 8
    units: int = 256
    narrow: int = 128


TINY = Sizes((256, 512), 4, (8, 16), (1, 2), (2, 4), (1, 2), length=8, batch=2, units=4, narrow=4)


class Compiled(NamedTuple):
    """A gradient program.

    Args:
      program: what to time.
      lowered: what it was compiled from.
      bytes: of outputs and temporaries.
      whole: bytes of inputs, outputs, and the gates that an LSTM saves.
    """

    program: Program
    lowered: jax.stages.Lowered
    bytes: int
    whole: int


def attentions(width: int) -> dict[str, SequenceLayer]:
    """Attention of every kind, and S0."""
    local = SelfAttention(HEADS, window=WINDOW)
    both = SelfAttention(HEADS, window=WINDOW, causal=False)
    return {
        "window, causal": local,
        "window, both ways": both,
        "chunked, causal": Chunked(local.clone(), WINDOW),
        "chunked, both ways": Chunked(both.clone(), WINDOW),
        "S0, causal": hybrids.chunked_attention_then_recurrence(
            width, HEADS, WINDOW, causal=True, residual=True
        ),
        "full, causal": SelfAttention(HEADS),
    }


def recurrences(units: int) -> dict[str, SequenceLayer]:
    """An LSTM that keeps all its gates, and one that computes them again."""
    return {
        "LSTM": LSTM(units),
        f"LSTM, remat_every={REMAT}": LSTM(units, remat_every=REMAT),
    }


def stacks(units: int, depth: int) -> dict[str, SequenceLayer]:
    """Blocks of an LSTM and an MLP, and the same computed again in the backward pass."""
    block = hybrids.pre_norm_block(LSTM(units), 2 * units, dropout=0.0)
    return {
        "stack": Repeat(block, depth),
        "stack, Remat": Repeat(Remat(block.clone()), depth),
    }


def compiled(layer: SequenceLayer, batch: int, steps: int, width: int) -> Compiled:
    """The program of the gradients of parameters and inputs."""
    x = jax.random.normal(jax.random.key(0), (batch, steps, width))
    variables = layer.init(jax.random.key(1), x[:, :1])

    def loss(variables: Any, x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(layer.apply(variables, x)[0]))

    lowered = jax.jit(jax.grad(loss, (0, 1))).lower(variables, x)
    run = lowered.compile()
    memory = run.memory_analysis()
    assert memory is not None  # the CPU and the GPU both tell
    planned = memory.temp_size_in_bytes + memory.output_size_in_bytes
    gates = 4 * 4 * batch * steps * width  # float32, and as many units as inputs
    whole = memory.argument_size_in_bytes + memory.output_size_in_bytes + gates
    return Compiled(functools.partial(run, variables, x), lowered, planned, whole)


def timed(bench: Bench, section: str, over: Mapping[int, Mapping[str, Compiled]]) -> Iterator[Row]:
    """Rows of programs by size and kind, all of them in turn; too large ones are left out."""
    chosen = {}
    for size, kinds in over.items():
        for kind, made in kinds.items():
            gib = made.bytes / GIB
            if gib > bench.options.get("limit_gib", float("inf")):
                bench.leave_out(f"{section} {size:,}, {kind}: {gib:.1f} GiB, left out")
            else:
                chosen[f"{size} {kind}"] = (size, kind, made)
    programs = {name: made.program for name, (_, _, made) in chosen.items()}
    for row in bench.rows({"section": section}, programs):
        size, kind, made = chosen[row["program"]]
        yield (
            row
            | {"size": size, "program": kind, "gib": made.bytes / GIB}
            | {"share": made.bytes / made.whole}
        )


def measured(bench: Bench) -> Iterator[Row]:
    """Rows of all sections."""
    sizes = TINY if bench.quick else Sizes()
    for length in sizes.attention:
        made = {
            kind: compiled(layer, 1, length, sizes.width)
            for kind, layer in attentions(sizes.width).items()
            if bench.wants("attention T", length, kind)
        }
        # Full attention by itself: it leaves nothing of the others in the caches.
        full = {kind: made.pop(kind) for kind in list(made) if kind.startswith("full")}
        for some in (made, full):
            yield from timed(bench, "attention T", {length: some})
    sweeps = {
        "LSTM T": {n: (recurrences(sizes.units), sizes.batch, n) for n in sizes.steps},
        "LSTM B": {n: (recurrences(sizes.units), n, sizes.length) for n in sizes.batches},
        "LSTM H": {n: (recurrences(n), sizes.batch, sizes.length) for n in sizes.many_units},
        "depth": {n: (stacks(sizes.narrow, n), sizes.batch, sizes.length) for n in sizes.depths},
    }
    for section, over in sweeps.items():
        programs: dict[int, dict[str, Compiled]] = {}
        for size, (layers, batch, steps) in over.items():
            units = {"LSTM H": size, "depth": sizes.narrow}.get(section, sizes.units)
            programs[size] = {
                kind: compiled(layer, batch, steps, units)
                for kind, layer in layers.items()
                if bench.wants(section, size, kind)
            }
        yield from timed(bench, section, programs)
        if section == "LSTM T":
            yield from listed(bench, programs.get(max(sizes.steps), {}))


def listed(bench: Bench, programs: Mapping[str, Compiled]) -> Iterator[Row]:
    """The large buffers of programs, one by one."""
    for kind, made in programs.items():
        all_of_them = buffers(made.lowered)
        if not all_of_them:
            bench.leave_out("buffers one by one: this backend does not list them")
        total = sum(buffer.size for buffer in all_of_them)
        for buffer in all_of_them:
            if buffer.size >= BIG * total:
                labels = {"section": "buffers", "program": kind, "kind": buffer.kind}
                yield labels | {
                    "name": buffer.name, "shape": buffer.shape, "mib": buffer.size / MIB,
                }  # fmt: skip


WORDS = {
    "attention T": "Attention over the length T: batch 1, width {width}, window and chunk {window}",
    "LSTM T": "LSTM over the length T: B{batch} D{units} H{units}",
    "LSTM B": "LSTM over the batch B: T{length} D{units} H{units}",
    "LSTM H": "LSTM over the units H, as wide as its inputs: B{batch} T{length}",
    "depth": "Depth of a stack of blocks (LSTM and MLP): B{batch} T{length} H{narrow}",
}


def tables(rows: Sequence[Row]) -> list[Table]:
    """A table a section: time, memory, and what both are of the size before."""
    made = []
    for section, words in WORDS.items():
        some = [row for row in rows if row["section"] == section]
        lstm = section.startswith("LSTM")
        cells = []
        for (kind,) in distinct(some, "program"):
            for (size,) in distinct(some, "size"):
                look = functools.partial(found, some, program=kind, size=size)
                if look() is None:
                    continue
                half = functools.partial(found, some, program=kind, size=size // 2)
                cell = [kind, f"{size:,}", number(look()), number(look("gib"))]
                cell += [number(ratio(look(what), half(what))) for what in ("ms", "gib")]
                cells.append(cell + [number(look("share"))] * lstm)
        columns = ["kind", section.split()[-1], "ms", "GiB", "ms to half the size", "GiB to half"]
        columns += ["GiB to inputs, outputs and gates"] * lstm
        if cells:
            title = words.format(**Sizes()._asdict(), window=WINDOW)
            made.append(Table(title, columns, cells))
    cells = [
        [row["program"], row["kind"], f"`{row['name']}`", f"`{row['shape']}`", number(row["mib"])]
        for row in rows
        if row["section"] == "buffers"
    ]
    if cells:
        title = f"Buffers of the longest LSTM, those of {BIG:.0%} of all and more"
        made.append(Table(title, ["program", "kind", "buffer", "shape", "MiB"], cells))
    return made


def draw(rows: Sequence[Row], path: Path) -> None:
    """Time and memory over the size, two panels a section."""
    panels = []
    for section in WORDS:
        some = [row for row in rows if row["section"] == section]
        for quantity, words in (("ms", "ms"), ("gib", "GiB")) if some else ():
            lines = {
                kind: [(row["size"], row[quantity]) for row in some if row["program"] == kind]
                for (kind,) in distinct(some, "program")
            }
            panels.append(plots.Lines(section, section.split()[-1], words, lines))
    plots.panels(panels, path)


SUITE = Suite(
    "scaling",
    measured,
    tables,
    draw,
    rounds=5,
    options={"limit_gib": (6.0, "Programs that need more memory are left out.")},
)

if __name__ == "__main__":
    main(SUITE)
