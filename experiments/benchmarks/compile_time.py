"""How compile time grows with depth: a hybrid of 24 layers against one of 6, both by `Repeat`.

python -m experiments.benchmarks.compile_time [--rounds=5]
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from experiments.benchmarks.buffers import no_cache
from experiments.benchmarks.harness import machine, measure
from recattn_jax.layers import Repeat
from recattn_jax.models.hybrids import pre_norm_block, recurrence_beside_attention

ROUNDS = flags.DEFINE_integer("rounds", 5, "How often each depth is compiled.")

DEPTHS, WIDTH = (6, 24), 64


def compile_gradient(depth: int) -> None:
    """Traces and compiles the gradient of a hybrid from nothing."""
    jax.clear_caches()
    mixer = recurrence_beside_attention(WIDTH, heads=4, window=64)
    layer = Repeat(pre_norm_block(mixer, 2 * WIDTH, dropout=0.0), depth)
    x = jax.ShapeDtypeStruct((8, 256, WIDTH), jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)

    def loss(variables: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(layer.apply(variables, x)[0]))

    jax.jit(jax.grad(loss)).lower(variables, x).compile()


def main(argv: list[str]) -> None:
    """Prints medians and their ratio."""
    del argv
    print(machine())
    programs = {str(depth): functools.partial(compile_gradient, depth) for depth in DEPTHS}
    with no_cache():
        times = measure(programs, ROUNDS.value, least=0.0)
    for name, found in times.items():
        print(f"{name} layers: {found.ms / 1e3:.2f} s to trace and compile")
    print(f"ratio {times['24'].ms / times['6'].ms:.2f}")


if __name__ == "__main__":
    app.run(main)
