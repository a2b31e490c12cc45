"""Streams.

    python -m experiments.benchmarks.streaming [--rounds=15] [--only=REGEX] [--record]

One token, batch 1, far along a stream and near its beginning, for every layer that streams: it is
fed the steps before, and single steps from the state at each position are timed in turn. Ratios
near 1 and a state of one size are what a bounded state promises. Beside them torch: an LSTM,
attention whose cache of keys and values grows with the stream, and attention to a ring buffer.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks import plots
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
from recattn_jax import layers
from recattn_jax.layers import Context, SequenceLayer, zero_state
from recattn_jax.models import hybrids

POSITIONS: tuple[int, ...] = (1_024, 2_048, 4_096, 8_192, 16_384, 32_768)
WIDTH, HEADS, WINDOW, BLOCK = 256, 4, 256, 1_024
TINY_POSITIONS, TINY_WIDTH, TINY_BLOCK = (16, 32), 16, 16


def streaming_layers(width: int) -> dict[str, SequenceLayer]:
    """Every kind of layer with a bounded state."""
    local = layers.SelfAttention(HEADS, window=WINDOW)
    return {
        "RNN": layers.RNN(width),
        "LSTM": layers.LSTM(width),
        "GRU": layers.GRU(width),
        "SLSTM": layers.SLSTM(width, heads=HEADS),
        "MinGRU": layers.MinGRU(width),
        "MinLSTM": layers.MinLSTM(width),
        "RGLRU": layers.RGLRU(heads=HEADS),
        "MLSTM": layers.MLSTM(heads=HEADS),
        "LinearAttention": layers.LinearAttention(HEADS),
        "SelfAttention": local,
        "SelfAttention, ALiBi": layers.SelfAttention(
            HEADS, window=WINDOW, positions=layers.ALiBi()
        ),
        "SelfAttention, additive": layers.SelfAttention(
            HEADS, window=WINDOW, score=layers.Additive(16)
        ),
        "CrossAttention": layers.CrossAttention(HEADS),
        "CausalConvolution": layers.CausalConvolution(4),
        "Chunked": layers.Chunked(layers.SelfAttention(HEADS, window=WINDOW), WINDOW),
        "Local": layers.Local(layers.RNN(width), 16),
        "AttendToInput": layers.AttendToInput(layers.RNN(width), local.clone(), layers.add),
        "Feedback": layers.Feedback(layers.LSTM(width), width),
        "FeedbackMemory": layers.FeedbackMemory(layers.CrossAttention(HEADS), WINDOW),
        "recurrence_beside_attention": hybrids.recurrence_beside_attention(width, HEADS, WINDOW),
        "griffin": hybrids.griffin(width, HEADS, WINDOW, hidden=width, depth=3, dropout=0.0),
        "block_recurrent_transformer": hybrids.block_recurrent_transformer(
            HEADS,
            hidden=width,
            block=64,
            slots=16,
            gate=layers.FixedGate(),
            skip=False,
            dropout=0.0,
        ),
        "transformer_xl": hybrids.transformer_xl(
            HEADS, width, 2, window=WINDOW, buckets=32, dropout=0.0
        ),
    }


def states(
    layer: SequenceLayer, width: int, positions: Sequence[int], block: int
) -> tuple[Callable[[Any], Any], dict[int, Any]]:
    """A compiled step, and the states after so many steps, fed in blocks."""
    memory = Context(memory=jax.random.normal(jax.random.key(1), (1, 64, width)))
    x = jax.random.normal(jax.random.key(0), (1, block, width))
    variables = layer.init(jax.random.key(2), x[:, :1], None, memory)
    state = zero_state(layer, variables, x[:, :1], None, memory)
    apply = jax.jit(layer.apply)
    kept = {}
    for steps in range(block, max(positions) + 1, block):
        state = apply(variables, x, state, memory)[1]
        if steps in positions:
            kept[steps] = state
    token = x[:, :1]
    return lambda state: apply(variables, token, state, memory), kept


def size(state: Any) -> int:
    """Bytes of a state."""
    return sum(leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(state))


def measured(bench: Bench) -> Iterator[Row]:
    """A row for each layer and position."""
    positions, width, block = POSITIONS, WIDTH, BLOCK
    if bench.quick:
        positions, width, block = TINY_POSITIONS, TINY_WIDTH, TINY_BLOCK
    for name, layer in streaming_layers(width).items():
        if bench.wants(name):
            step, kept = states(layer, width, positions, block)
            programs: dict[str, Program] = {
                str(position): functools.partial(step, state) for position, state in kept.items()
            }
            for row in bench.rows({"layer": name}, programs):
                position = int(row.pop("program"))
                yield row | {"position": position, "bytes": size(kept[position])}
            jax.clear_caches()
    if not bench.has("torch"):
        return
    from experiments.benchmarks.peers import torch_models

    for name, at in torch_models.steps(width, HEADS, WINDOW).items():
        if bench.wants(name):
            programs = {str(position): at(position) for position in positions}
            for row in bench.rows({"layer": name}, programs):
                yield row | {"position": int(row.pop("program"))}


def tables(rows: Sequence[Row]) -> list[Table]:
    """Near and far, and what the state weighs there."""
    positions = sorted(position for (position,) in distinct(rows, "position"))
    near, far = positions[0], positions[-1]
    cells = []
    for (name,) in distinct(rows, "layer"):
        look = functools.partial(found, rows, layer=name)
        times = look(position=near), look(position=far)
        weights = [look("bytes", position=position) for position in (near, far)]
        sizes = ["-" if weight is None else f"{weight:,.0f}" for weight in weights]
        cells.append([name, *map(number, times), number(ratio(*times[::-1])), *sizes])
    columns = ["layer", f"ms at {near:,}", f"ms at {far:,}", "ratio"]
    columns += [f"bytes of state at {near:,}", f"at {far:,}"]
    return [Table("One token, far along a stream and near its beginning", columns, cells)]


SHOWN = ("LSTM", "SelfAttention", "LinearAttention", "griffin")


def draw(rows: Sequence[Row], path: Path) -> None:
    """Time a token over the position: some layers, and torch's."""
    lines = {
        name: [(row["position"], row["ms"]) for row in rows if row["layer"] == name]
        for (name,) in distinct(rows, "layer")
        if name in SHOWN or name.startswith("torch") or len(distinct(rows, "layer")) < 10
    }
    plots.panels([plots.Lines("One token, batch 1", "position", "ms a token", lines)], path)


SUITE = Suite("streaming", measured, tables, draw, rounds=15)

if __name__ == "__main__":
    main(SUITE)
