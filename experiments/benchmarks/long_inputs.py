"""Time and memory over long inputs: attention windowed, chunked and full, and system S0; a figure.

    python -m experiments.benchmarks.long_inputs [--rounds=3] [--figure=FILE.png] [--out=FILE.json]

Forward and backward, batch 1. Memory is what the compiled program needs beside its inputs and
outputs, as the compiler plans it; full attention is left out where that passes --limit_gib.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.benchmarks.timing import machine, medians
from recattn_jax.layers import Chunked, SelfAttention, SequenceLayer
from recattn_jax.models import hybrids

ROUNDS = flags.DEFINE_integer("rounds", 3, "How often each program is timed.")
LIMIT = flags.DEFINE_float("limit_gib", 6.0, "Programs that need more memory are left out.")
FIGURE = flags.DEFINE_string("figure", "", "Where to draw the figure; empty draws none.")
OUT = flags.DEFINE_string("out", "", "Where to save the figures as JSON; empty saves nothing.")

LENGTHS = (4_096, 8_192, 16_384, 32_768)
WIDTH, HEADS, WINDOW = 64, 2, 128


def kinds() -> dict[str, SequenceLayer]:
    """What is compared."""
    local = SelfAttention(HEADS, window=WINDOW)
    both = SelfAttention(HEADS, window=WINDOW, causal=False)
    return {
        "window, causal": local,
        "window, both ways": both,
        "chunked, causal": Chunked(local.clone(), WINDOW),
        "chunked, both ways": Chunked(both.clone(), WINDOW),
        "S0, causal": hybrids.chunked_attention_then_recurrence(
            WIDTH, HEADS, WINDOW, causal=True, residual=True
        ),
        "full, causal": SelfAttention(HEADS),
    }


def compiled(layer: SequenceLayer, length: int) -> tuple[Callable[[], Any], float]:
    """The gradient program at a length, and the GiB that it plans for."""
    x = jax.random.normal(jax.random.key(0), (1, length, WIDTH))
    variables = layer.init(jax.random.key(1), x[:, :1])

    def loss(variables: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(layer.apply(variables, x)[0]))

    program = jax.jit(jax.grad(loss, (0, 1))).lower(variables, x).compile()
    memory = program.memory_analysis()
    assert memory is not None  # the CPU and the GPU both tell
    return lambda: program(variables, x), memory.temp_size_in_bytes / 2**30


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Milliseconds and GiB over the length, one line a kind."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, quantity in zip(figure.subplots(1, 2), ("ms", "GiB"), strict=True):
        for kind in dict.fromkeys(row["kind"] for row in rows):
            points = [(row["length"], row[quantity]) for row in rows if row["kind"] == kind]
            axes.loglog(*zip(*points, strict=True), marker="o", label=kind)
        axes.set(xlabel="steps", ylabel=quantity)
        axes.set_xticks(LENGTHS, [f"{length // 1024}k" for length in LENGTHS])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> None:
    """Prints a table; draws and saves it where asked to."""
    del argv
    print(machine())
    print(f"width {WIDTH}, {HEADS} heads, window and chunk {WINDOW}, forward+backward")
    rows = []
    for length in LENGTHS:
        programs, memory = {}, {}
        for kind, layer in kinds().items():
            program, gib = compiled(layer, length)
            if gib > LIMIT.value:
                print(f"{kind:20} T={length:,}: {gib:.1f} GiB, left out")
                continue
            programs[kind], memory[kind] = program, gib
        # Full attention by itself: it leaves nothing of the others in the caches.
        full = {kind: programs.pop(kind) for kind in list(programs) if kind.startswith("full")}
        times = medians(programs, ROUNDS.value) | medians(full, ROUNDS.value)
        for kind, milliseconds in times.items():
            gib = memory[kind]
            print(f"{kind:20} T={length:,}: {milliseconds:,.0f} ms, {gib:.3f} GiB", flush=True)
            rows.append({"kind": kind, "length": length, "ms": milliseconds, "GiB": gib})
    if FIGURE.value:
        draw(rows, Path(FIGURE.value))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2))


if __name__ == "__main__":
    app.run(main)
