"""Times one token far along a stream against one near its beginning, and weighs the state.

    python -m experiments.benchmarks.streaming [--rounds=200] [--width=256] [--out=FILE.json]

Every layer that streams is fed 1,024 and 32,768 steps; then single steps from both states are timed
in turn. Ratios near 1 and a state of one size are what a bounded state promises.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from experiments.benchmarks.timing import machine, medians
from recattn_jax import layers
from recattn_jax.layers import Context, SequenceLayer, zero_state
from recattn_jax.models import hybrids

ROUNDS = flags.DEFINE_integer("rounds", 200, "How often a step is timed at each position.")
WIDTH = flags.DEFINE_integer("width", 256, "Width of the inputs, and units.")
OUT = flags.DEFINE_string("out", "", "Where to save the figures as JSON; empty saves nothing.")

NEAR, FAR, BLOCK = 1_024, 32_768, 1_024


def streaming_layers(width: int) -> dict[str, SequenceLayer]:
    """Every kind of layer with a bounded state."""
    local = layers.SelfAttention(4, window=256)
    return {
        "RNN": layers.RNN(width),
        "LSTM": layers.LSTM(width),
        "GRU": layers.GRU(width),
        "SLSTM": layers.SLSTM(width, heads=4),
        "MinGRU": layers.MinGRU(width),
        "MinLSTM": layers.MinLSTM(width),
        "RGLRU": layers.RGLRU(heads=4),
        "MLSTM": layers.MLSTM(heads=4),
        "LinearAttention": layers.LinearAttention(heads=4),
        "SelfAttention": local,
        "SelfAttention, ALiBi": layers.SelfAttention(4, window=256, positions=layers.ALiBi()),
        "SelfAttention, additive": layers.SelfAttention(4, window=256, score=layers.Additive(16)),
        "CrossAttention": layers.CrossAttention(4),
        "CausalConvolution": layers.CausalConvolution(4),
        "Chunked": layers.Chunked(layers.SelfAttention(4, window=256), 256),
        "Local": layers.Local(layers.RNN(width), 16),
        "AttendToInput": layers.AttendToInput(layers.RNN(width), local.clone(), layers.add),
        "Feedback": layers.Feedback(layers.LSTM(width), width),
        "FeedbackMemory": layers.FeedbackMemory(layers.CrossAttention(4), 256),
        "recurrence_beside_attention": hybrids.recurrence_beside_attention(width, 4, 256),
        "griffin": hybrids.griffin(width, 4, 256, hidden=width, depth=3, dropout=0.0),
        "block_recurrent_transformer": hybrids.block_recurrent_transformer(
            4, hidden=width, block=64, slots=16, gate=layers.FixedGate(), skip=False, dropout=0.0
        ),
        "transformer_xl": hybrids.transformer_xl(4, width, 2, window=256, buckets=32, dropout=0.0),
    }


def positions(layer: SequenceLayer, width: int) -> tuple[Any, Any, Any]:
    """A compiled step, and the states after NEAR and after FAR steps."""
    memory = Context(memory=jax.random.normal(jax.random.key(1), (1, 64, width)))
    x = jax.random.normal(jax.random.key(0), (1, BLOCK, width))
    variables = layer.init(jax.random.key(2), x[:, :1], None, memory)
    state = zero_state(layer, variables, x[:, :1], None, memory)
    apply = jax.jit(layer.apply)
    for steps in range(BLOCK, FAR + 1, BLOCK):
        state = apply(variables, x, state, memory)[1]
        if steps == NEAR:
            near = state
    token = x[:, :1]
    return lambda state: apply(variables, token, state, memory), near, state


def size(state: Any) -> int:
    """Bytes of a state."""
    return sum(leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(state))


def main(argv: list[str]) -> None:
    """Prints a table; saves it where asked to."""
    del argv
    print(machine())
    print(f"one token, batch 1, width {WIDTH.value}, float32: median ms, ratio, bytes of state")
    rows = []
    for name, layer in streaming_layers(WIDTH.value).items():
        step, near, far = positions(layer, WIDTH.value)
        programs = {"near": lambda: step(near), "far": lambda: step(far)}  # noqa: B023
        times = medians(programs, ROUNDS.value)
        ratio = times["far"] / times["near"]
        print(
            f"{name:28} at {NEAR:,}: {times['near']:.3f}  at {FAR:,}: {times['far']:.3f}"
            f"  ratio {ratio:.2f}  state {size(near):,} -> {size(far):,}",
            flush=True,
        )
        rows.append({"layer": name, "ratio": ratio, "bytes": [size(near), size(far)], **times})
    if OUT.value:
        with open(OUT.value, "w") as file:
            json.dump({"machine": machine(), "rows": rows}, file, indent=2)


if __name__ == "__main__":
    app.run(main)
