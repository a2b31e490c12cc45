"""The two calls by which layers speak of sharding: the identity where no mesh is set.

Everything else about placement (which parameter is split over which axis) is decided outside the
layers, by rules on parameter paths.
"""

import math
from collections.abc import Sequence

import jax
from jax.sharding import PartitionSpec

BATCH_AXES = ("data", "fsdp")
SEQUENCE_AXIS = "sequence"
MODEL_AXIS = "model"


def constrain(x: jax.Array) -> jax.Array:
    """Lays activations out over the mesh: batch over data and fsdp, time over sequence.

    Args:
      x: activations `[B, T, ...]`.

    Returns:
      The same values; unchanged where no mesh is set (`jax.set_mesh`) or a size does not divide.

    >>> constrain(jax.numpy.ones((8, 4, 2))).shape
    (8, 4, 2)
    """
    return _constrain(x, (BATCH_AXES, (SEQUENCE_AXIS,), *((),) * (x.ndim - 2)))


def gather(kernel: jax.Array) -> jax.Array:
    """Gathers a weight over fsdp before a scan over time; its last axis may stay split over model.

    Left to itself the partitioner gathers the weight again in every step of the loop.

    Args:
      kernel: a weight whose last axis holds the units that tensor parallelism may split.

    Returns:
      The same values; unchanged where no mesh is set.

    >>> gather(jax.numpy.ones((4, 3, 4))).shape
    (4, 3, 4)
    """
    return _constrain(kernel, (*((),) * (kernel.ndim - 1), (MODEL_AXIS,)))


def _constrain(x: jax.Array, axes: Sequence[tuple[str, ...]]) -> jax.Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    spec: list[tuple[str, ...] | None] = []
    for size, names in zip(x.shape, axes, strict=True):
        present = tuple(name for name in names if name in mesh.shape)
        divides = size % math.prod(mesh.shape[name] for name in present) == 0
        spec.append(present if present and divides else None)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))
