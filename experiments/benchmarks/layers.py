"""Times an LSTM layer against torch's and flax's, in turn in one process, as ratios.

    python -m experiments.benchmarks.layers [--rounds=9] [--out=FILE.json]

Each round runs every implementation once; what is compared is medians. Absolute times hold for the
machine they were taken on only. torch is left out where it is not installed (`pip install torch`).
"""

import importlib.util
import json
import os
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.benchmarks.timing import machine, medians
from recattn_jax.layers import LSTM

ROUNDS = flags.DEFINE_integer("rounds", 9, "How often each implementation is timed.")
OUT = flags.DEFINE_string("out", "", "Where to save the figures as JSON; empty saves nothing.")

SHAPES = ((32, 128, 128, 128), (64, 128, 256, 256), (32, 256, 512, 512), (16, 256, 1024, 1024))
"""Batch, steps, input width, units."""

Programs = dict[str, Callable[[], Any]]


def jax_programs(layer: nn.Module, read: Callable[[Any], jax.Array], x: jax.Array) -> Programs:
    """Forward, and forward with the gradients of parameters and inputs."""
    variables = layer.init(jax.random.key(1), x)

    def loss(variables: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(read(layer.apply(variables, x))))

    forward, both = jax.jit(loss), jax.jit(jax.grad(loss, (0, 1)))
    return {
        "forward": lambda: forward(variables, x),
        "both": lambda: both(variables, x),
    }


def torch_programs(x: jax.Array, units: int) -> Programs:
    """The same of torch.nn.LSTM, on a GPU where both have one."""
    import torch  # noqa: PLC0415  (optional)

    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    layer = torch.nn.LSTM(x.shape[-1], units, batch_first=True, device=device)
    tensor = torch.tensor(np.asarray(x), requires_grad=True, device=device)

    def forward() -> None:
        with torch.no_grad():
            layer(tensor)[0].square().sum()
        wait()

    def both() -> None:
        layer.zero_grad()
        tensor.grad = None
        layer(tensor)[0].square().sum().backward()
        wait()

    return {"forward": forward, "both": both}


def main(argv: list[str]) -> None:
    """Prints a table; saves it where asked to."""
    del argv
    with_torch = importlib.util.find_spec("torch") is not None
    print(machine())
    print("LSTM, float32, median ms forward / forward+backward; ratio of forward+backward")
    rows = []
    for batch, steps, width, units in SHAPES:
        x = jax.random.normal(jax.random.key(0), (batch, steps, width))
        programs = {
            "recattn_jax": jax_programs(LSTM(units), lambda out: out[0], x),
            "flax": jax_programs(nn.RNN(nn.OptimizedLSTMCell(units)), lambda out: out, x),
        }
        if with_torch:
            programs["torch"] = torch_programs(x, units)
        times: dict[str, dict[str, float]] = {name: {} for name in programs}
        for kind in ("forward", "both"):
            one_kind = {name: program[kind] for name, program in programs.items()}
            for name, milliseconds in medians(one_kind, ROUNDS.value).items():
                times[name][kind] = milliseconds
        shape = f"B{batch} T{steps} D{width} H{units}"
        own = times["recattn_jax"]["both"]
        ratios = {name: own / times[name]["both"] for name in times if name != "recattn_jax"}
        print(
            f"{shape:22}"
            + "".join(f"  {n} {t['forward']:.1f} / {t['both']:.1f}" for n, t in times.items())
            + "".join(f"  {ratio:.2f}x {name}" for name, ratio in ratios.items()),
            flush=True,
        )
        rows.append({"shape": shape, "milliseconds": times, "ratio": ratios})
    if OUT.value:
        with open(OUT.value, "w") as file:
            json.dump(
                {"jax": jax.__version__, "cores": os.cpu_count(), "rows": rows}, file, indent=2
            )


if __name__ == "__main__":
    app.run(main)
