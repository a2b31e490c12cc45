"""Layers.

    python -m experiments.benchmarks.layers [--rounds=9] [--only=REGEX] [--record]

Recurrent layers and attention against torch's, Flax's and Keras's (on its jax backend), all on
the same inputs `[B, T, D]`, under the mean square of the outputs: forward, and forward with the
gradients of inputs and parameters. H is the units of a recurrence, and the heads of attention. In
bfloat16 ours and Flax cast float32 parameters; those of torch and Keras are bfloat16.

`gemm` is no layer but plain products of as many operations: `[B T, D + H] x [D + H, G H]` for
G gates, and forward+backward three of that size, with no order in time. torch and Flax have no
RG-LRU: theirs is a loop over time, and `jax.lax.associative_scan`; their local attention is a
mask, in chunks a reshape. On a GPU our layers are also timed with the kernels that `implementation`
chooses, and the LSTM over a thousand steps.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
from experiments.benchmarks.peers import Shape, flax_models
from recattn_jax.kernels.backends import backend
from recattn_jax.layers import (
    GRU,
    LSTM,
    RGLRU,
    RNN,
    Chunked,
    LinearAttention,
    SelfAttention,
    SequenceLayer,
)

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
PASSES = ("forward", "forward+backward")
OURS, JAX_PEERS = "recattn_jax", ("flax", "keras")
KERNELS = {
    "LSTM": ("cudnn", "pallas"),
    "GRU": ("pallas",),
    "RG-LRU": ("pallas",),
    "attention": ("cudnn",),
}
"""What `implementation` chooses on a GPU, by the names of the table."""
PROGRAMS = (OURS, "cudnn", "pallas", "torch", *JAX_PEERS, "gemm")

RECURRENT = (
    Shape(32, 128, 128, 128),
    Shape(64, 128, 256, 256),
    Shape(32, 256, 512, 512),
    Shape(16, 256, 1024, 1024),
)
SHAPES = {
    **dict.fromkeys(GATES, RECURRENT),
    "RG-LRU": (Shape(16, 512, 512, 8), Shape(4, 2048, 512, 8)),
    "attention": (Shape(16, 256, 256, 4), Shape(4, 1024, 512, 8)),
    "windowed attention": (Shape(2, 4096, 256, 4, window=128),),
    "chunked attention": (Shape(2, 4096, 256, 4, window=128),),
    "linear attention": (Shape(2, 4096, 256, 4),),
}
GPU_SHAPES = {"LSTM": (Shape(16, 1024, 768, 768),)}
TINY = Shape(2, 8, 8, 2, window=4)


def layers(shape: Shape, kernel: str | None = None) -> dict[str, Callable[[], SequenceLayer]]:
    """Ours, by the names of the table; where there is a choice, with this kernel."""

    def attention(window: int | None) -> SequenceLayer:
        return SelfAttention(shape.units, window=window, positions=None, implementation=kernel)

    return {
        "LSTM": lambda: LSTM(shape.units, implementation=kernel),
        "GRU": lambda: GRU(shape.units, reset_after=True, implementation=kernel),
        "RNN": lambda: RNN(shape.units),
        "RG-LRU": lambda: RGLRU(shape.units, implementation=kernel),
        "attention": lambda: attention(None),
        "windowed attention": lambda: attention(shape.window),
        "chunked attention": lambda: Chunked(attention(shape.window), shape.window),
        "linear attention": lambda: LinearAttention(shape.units),
    }


def passes(apply: Callable[[Any, jax.Array], Any], params: Any, x: jax.Array) -> dict[str, Program]:
    """Forward, and forward with the gradients of parameters and inputs, of the mean square."""

    def loss(params: Any, x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(apply(params, x)))

    forward, both = jax.jit(loss), jax.jit(jax.value_and_grad(loss, (0, 1)))
    calls = (lambda: forward(params, x), lambda: both(params, x))
    return dict(zip(PASSES, calls, strict=True))


def first(layer: SequenceLayer) -> Callable[[Any, jax.Array], Any]:
    """The outputs of a layer without its state."""
    return lambda params, x: layer.apply(params, x)[0]


def products(gates: int, shape: Shape, dtype: str) -> dict[str, Program]:
    """Products of as many operations as a recurrent layer has."""
    keys = jax.random.split(jax.random.key(0))
    width = shape.width + shape.units
    x = jax.random.normal(keys[0], (shape.batch * shape.steps, width), dtype)
    kernel = jax.random.normal(keys[1], (width, gates * shape.units), dtype)

    @jax.jit
    def both(x: jax.Array, kernel: jax.Array) -> Any:
        y = x @ kernel
        return y, y @ kernel.T, x.T @ y

    forward = jax.jit(jnp.matmul)
    calls = (lambda: forward(x, kernel), lambda: both(x, kernel))
    return dict(zip(PASSES, calls, strict=True))


def implementations(
    bench: Bench, kind: str, shape: Shape, dtype: str
) -> dict[str, dict[str, Program]]:
    """The programs of a layer, by who wrote it and by pass."""
    x = jax.random.normal(jax.random.key(0), (shape.batch, shape.steps, shape.width), dtype)
    few, key = x[:1, :2], jax.random.key(1)
    ours = layers(shape)[kind]()
    params = ours.init(key, few)
    found = {OURS: passes(first(ours), params, x)}
    for kernel in KERNELS.get(kind, ()) if backend() == "gpu" else ():
        if kernel == "cudnn" and kind == "attention" and dtype == "float32":
            continue  # it knows halves only
        other = layers(shape, kernel)[kind]()
        found[kernel] = passes(first(other), params, x)
    theirs = flax_models.layers(shape, jnp.dtype(dtype)).get(kind)
    if theirs is not None:
        module = theirs()
        found["flax"] = passes(lambda v, x: module.apply(v, x), module.init(key, few), x)
    if kind in GATES and bench.has("keras"):
        from experiments.benchmarks.peers import keras_models

        found["keras"] = passes(*keras_models.layer(kind, shape, dtype), x)
    if kind in GATES:
        found["gemm"] = products(GATES[kind], shape, dtype)
    if bench.has("torch"):
        from experiments.benchmarks.peers import torch_models

        make = torch_models.layers(shape).get(kind)
        if make is not None:
            calls = torch_models.passes(make(), np.asarray(x, np.float32), dtype)
            found["torch"] = calls
    return found


def measured(bench: Bench) -> Iterator[Row]:
    """A row for each layer, shape, dtype, pass and implementation."""
    for kind, shapes in SHAPES.items():
        more = GPU_SHAPES.get(kind, ()) if backend() == "gpu" else ()
        for shape in (TINY,) if bench.quick else (*shapes, *more):
            for dtype in ("float32", "bfloat16"):
                if not bench.wants(kind, shape, dtype):
                    continue
                programs = implementations(bench, kind, shape, dtype)
                for name in PASSES:
                    labels = {"layer": kind, "shape": str(shape), "dtype": dtype, "pass": name}
                    yield from bench.rows(labels, {n: p[name] for n, p in programs.items()})
                jax.clear_caches()  # or the programs and the arrays in them stay


def tables(rows: Sequence[Row]) -> list[Table]:
    """Times and ratios, a row a layer, shape and dtype."""
    cells = []
    timed = {row["program"] for row in rows} | {OURS}
    programs = [name for name in PROGRAMS if name in timed]
    for kind, shape, dtype in distinct(rows, "layer", "shape", "dtype"):
        look = functools.partial(found, rows, layer=kind, shape=shape, dtype=dtype)
        times = {
            name: [look(program=name, **{"pass": part}) for part in PASSES] for name in programs
        }
        best = [
            min(
                (t for t in (look(program=p, **{"pass": part}) for p in JAX_PEERS) if t),
                default=None,
            )
            for part in PASSES
        ]
        nothing = [None] * len(PASSES)
        ratios = [
            [ratio(own, other) for own, other in zip(times[OURS], others, strict=True)]
            for others in (times.get("torch", nothing), best, times.get("gemm", nothing))
        ]
        cells.append([kind, shape, dtype, *map(pair, times.values()), *map(pair, ratios)])
    columns = ["layer", "shape", "dtype", "ours", *programs[1:]]
    columns += ["to torch", "to best JAX peer", "to gemm"]
    return [Table("Milliseconds, forward / forward+backward, and ratios of ours", columns, cells)]


def pair(values: Sequence[float | None]) -> str:
    """Two numbers in a cell.

    >>> pair([1.0, 2.5]), pair([None, None])
    ('1.00 / 2.50', '-')
    """
    return "-" if set(values) == {None} else " / ".join(map(number, values))


def draw(rows: Sequence[Row], path: Path) -> None:
    """Bars of forward and backward, a panel a layer and dtype."""
    panels = []
    for kind, dtype in distinct(rows, "layer", "dtype"):
        groups: dict[str, dict[str, float]] = {}
        for row in rows:
            if (row["layer"], row["dtype"], row["pass"]) == (kind, dtype, PASSES[1]):
                groups.setdefault(row["shape"].replace(" D", "\nD"), {})[row["program"]] = row["ms"]
        panels.append(plots.Bars(f"{kind}, {dtype}", "ms, forward+backward", groups))
    plots.panels(panels, path, columns=2)


SUITE = Suite("layers", measured, tables, draw, rounds=9)

if __name__ == "__main__":
    main(SUITE)
