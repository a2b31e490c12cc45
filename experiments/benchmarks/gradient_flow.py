"""How much of a step reaches a later output, before training: recurrences, attention, hybrids.

    python -m experiments.benchmarks.gradient_flow [--figure=FILE.png] [--out=FILE.json]

Layers as they are first drawn, on normal inputs; means over rows, random directions and seeds, each
relative to the step itself. The table says at which lag it has fallen to a hundredth.
"""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from absl import app, flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.benchmarks.harness import machine
from recattn_jax.analysis.flow import gradient_flow, lag_below
from recattn_jax.layers import GRU, LSTM, RGLRU, RNN, ScaledDot, SelfAttention, SequenceLayer
from recattn_jax.models import hybrids

FIGURE = flags.DEFINE_string("figure", "", "Where to draw the figure; empty draws none.")
OUT = flags.DEFINE_string("out", "", "Where to save the numbers as JSON; empty saves nothing.")

WIDTH, HEADS, STEPS, ROWS, SEEDS = 64, 4, 256, 8, 5
LAGS = (1, 4, 16, 64, 255)
GONE = 0.01


def layers() -> dict[str, Callable[[], SequenceLayer]]:
    """What is compared, `[B, T, WIDTH] -> [B, T, WIDTH]`."""
    return {
        "tanh RNN": lambda: RNN(WIDTH),
        "LSTM": lambda: LSTM(WIDTH),
        "GRU": lambda: GRU(WIDTH),
        "RG-LRU": lambda: RGLRU(HEADS),
        "attention": lambda: SelfAttention(HEADS, window=STEPS),
        "S1: tanh RNN attends to inputs": lambda: hybrids.recurrence_attends_to_input(
            WIDTH, ScaledDot(), causal=True, window=STEPS
        ),
        "S3: LSTM + attention": lambda: hybrids.recurrence_beside_attention(WIDTH, HEADS, STEPS),
    }


def flow(make: Callable[[], SequenceLayer]) -> np.ndarray:
    """The flow at each lag, relative to that of the step itself; a mean over seeds."""
    found = []
    for seed in range(SEEDS):
        keys = jax.random.split(jax.random.key(seed), 3)
        x = jax.random.normal(keys[0], (ROWS, STEPS, WIDTH))
        layer = make()
        found.append(gradient_flow(layer, layer.init(keys[1], x), x, keys[2]))
    mean = np.mean(found, axis=0)
    return mean / mean[0]


def draw(flows: dict[str, np.ndarray], path: Path) -> None:
    """One line a layer, over the lag."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, values in flows.items():
        axes.loglog(np.arange(1, STEPS), np.maximum(values[1:], 1e-12), label=name)
    axes.set(
        xlabel="lag in steps",
        ylabel="gradient of the last output, relative to lag 0",
        ylim=(1e-9, 3),
        title="What reaches a later output, before training",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower left")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main(argv: list[str]) -> None:
    """Prints a table; draws and saves it where asked to."""
    del argv
    print(machine())
    print(f"width {WIDTH}, {STEPS} steps, {ROWS} rows, {SEEDS} seeds; relative to lag 0")
    flows = {name: flow(make) for name, make in layers().items()}
    print(f"{'lag':32}" + "".join(f"{lag:>10}" for lag in LAGS) + f"{f'below {GONE:g} at':>16}")
    for name, values in flows.items():
        gone = lag_below(values, GONE)
        said = f"{'never' if gone is None else gone:>16}"
        print(f"{name:32}" + "".join(f"{values[lag]:10.1e}" for lag in LAGS) + said)
    if FIGURE.value:
        draw(flows, Path(FIGURE.value))
    if OUT.value:
        rows = {name: values.tolist() for name, values in flows.items()}
        Path(OUT.value).write_text(json.dumps({"machine": machine(), "flows": rows}, indent=2))


if __name__ == "__main__":
    app.run(main)
