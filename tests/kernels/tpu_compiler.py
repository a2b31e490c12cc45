"""Compiles the TPU twins, forward and backward, for a v5e that need not be here.

A process of its own: the compiler's library changes how a process sees its machine. It prints one
line for each program, `{"name": ..., "kernels": ..., "peak_bytes": ...}`.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from recattn_jax.layers import Context, MinGRU, SelfAttention, SequenceLayer

# Lengths and widths that do and do not divide into tiles, groups of heads, and both sides.
PROGRAMS: dict[str, tuple[SequenceLayer, str, tuple[int, int, int], Any]] = {
    "recurrence": (MinGRU(300), "pallas", (3, 1000, 64), jnp.float32),
    "recurrence, tiles": (MinGRU(512), "pallas", (16, 256, 128), jnp.bfloat16),
    "recurrence, short": (MinGRU(8), "pallas", (1, 2, 8), jnp.float32),
    "causal": (SelfAttention(4), "splash", (2, 512, 256), jnp.bfloat16),
    "causal window": (SelfAttention(4, kv_heads=2, window=100), "splash", (2, 1000, 256), "f4"),
    "both ways": (SelfAttention(2, causal=False), "splash", (1, 77, 64), jnp.bfloat16),
}


def main() -> None:
    chip = topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:1x1", chips_per_host_bounds=[1, 1, 1]
    )
    mesh = Mesh(np.array(chip.devices), ("data",))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def place(tree: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), tree
        )

    for name, (layer, implementation, shape, dtype) in PROGRAMS.items():
        x = jax.ShapeDtypeStruct(shape, dtype)
        numbers = jax.ShapeDtypeStruct(shape[:2], jnp.int32)
        params = jax.eval_shape(layer.init, jax.random.key(0), x)
        twin = layer.clone(implementation=implementation)

        def loss(params: Any, x: jax.Array, numbers: jax.Array, twin: Any = twin) -> jax.Array:
            y, _ = twin.apply(params, x, None, Context(segments=numbers))
            return jnp.sum(y.astype(jnp.float32) ** 2)

        inputs = place((params, x, numbers))
        with jax.set_mesh(mesh):
            program = jax.jit(jax.grad(loss, (0, 1))).lower(*inputs).compile()
        memory = program.memory_analysis()
        assert memory is not None
        kernels = program.as_text().count('custom_call_target="tpu_custom_call"')
        line = {"name": name, "kernels": kernels, "peak_bytes": memory.peak_memory_in_bytes}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
