"""The two calls by which layers speak of sharding: the identity where no mesh is set.

Everything else about placement (which parameter is split over which axis) is decided outside the
layers, by rules on parameter paths.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

BATCH_AXES = ("data", "fsdp")
SEQUENCE_AXIS = "sequence"
MODEL_AXIS = "model"


def constrain(x: jax.Array) -> jax.Array:
    """Lays activations out over the mesh: rows over data and fsdp, time over sequence, width whole.

    Width must be said too: left to the partitioner, XLA split the sum of a recurrence and attention
    over 2 x 2 x 2 CPU devices in a way that gave wrong values.

    Args:
      x: activations `[B, T, ...]`.

    Returns:
      The same values; placed as they are where no mesh is set (`jax.set_mesh`), the mesh has other
      axes, or a size does not divide.

    >>> constrain(jax.numpy.ones((8, 4, 2))).shape
    (8, 4, 2)
    """
    return _constrain(x, (BATCH_AXES, (SEQUENCE_AXIS,), *((),) * (x.ndim - 2)))


def gather(kernel: jax.Array, split: int = -1) -> jax.Array:
    """Gathers a weight over fsdp before a scan over time; one axis may stay split over model.

    Left to itself the partitioner gathers the weight again in every step of the loop.

    Args:
      kernel: a weight.
      split: the axis of the units, or heads, that tensor parallelism may split.

    Returns:
      The same values; placed as they are where no mesh is set or the mesh has other axes.

    >>> gather(jax.numpy.ones((4, 3, 4))).shape
    (4, 3, 4)
    """
    axes: list[tuple[str, ...]] = [()] * kernel.ndim
    axes[split] = (MODEL_AXIS,)
    return _constrain(kernel, axes)


def _constrain(x: jax.Array, axes: Sequence[tuple[str, ...]]) -> jax.Array:
    """Splits each dimension over its axes of the mesh; one that has none is gathered.

    A dimension is split over as many of its axes, from the first, as divide its size; where none
    does it is left to the partitioner, as is all of x on a mesh of other axes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not {*BATCH_AXES, SEQUENCE_AXIS, MODEL_AXIS} & set(mesh.axis_names):
        return x
    spec: list[Any] = []
    for size, names in zip(x.shape, axes, strict=True):
        if names == ():
            spec.append(None)
            continue
        split = [name for name in names if name in mesh.shape]
        while split and size % math.prod(mesh.shape[name] for name in split):
            split.pop()
        spec.append(tuple(split) if split else PartitionSpec.UNCONSTRAINED)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))
