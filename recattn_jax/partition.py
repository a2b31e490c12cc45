"""The calls by which layers speak of sharding: the identity where no mesh is set.

Everything else about placement (which parameter is split over which axis) is decided outside the
layers, by rules on parameter paths.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from recattn_jax.errors import UserError

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


def whole(x: jax.Array) -> jax.Array:
    """Gathers an array over all axes of the mesh.

    Args:
      x: a weight, or what an optimizer keeps for it.

    Returns:
      The same values; placed as they are where no mesh is set or the mesh has other axes.

    >>> whole(jax.numpy.ones((4, 3))).shape
    (4, 3)
    """
    return _constrain(x, [()] * x.ndim)


def hosts() -> tuple[int, int]:
    """Which part of the rows of every batch this host reads: its number, and how many there are.

    Hosts whose devices hold the same rows, since they share a model or the steps of a sequence,
    read the same part. Without a mesh every process reads a part of its own.

    Raises:
      UserError: the mesh gives hosts parts that overlap or are not of one size.

    >>> hosts()
    (0, 1)
    """
    mesh = jax.sharding.get_mesh()
    axes = [axis for axis in BATCH_AXES if axis in mesh.axis_names]
    if not axes:
        return jax.process_index(), jax.process_count()
    owners = np.array([device.process_index for device in mesh.devices.flat])
    owners = owners.reshape(mesh.devices.shape)
    over = [mesh.axis_names.index(axis) for axis in axes]
    blocks = np.moveaxis(owners, over, range(len(over))).reshape(
        math.prod(mesh.shape[axis] for axis in axes), -1
    )
    seen = {
        process: frozenset(np.flatnonzero((blocks == process).any(axis=1)).tolist())
        for process in np.unique(blocks).tolist()
    }
    shares = sorted(set(seen.values()), key=min)
    if len({len(share) for share in shares}) > 1 or sum(map(len, shares)) != len(blocks):
        raise UserError(
            f"mesh {dict(mesh.shape)}: its {len(seen)} hosts hold different numbers of rows; choose"
            f" {MODEL_AXIS} x {SEQUENCE_AXIS} so that it divides a host's devices, or is a multiple"
            " of them"
        )
    return shares.index(seen[jax.process_index()]), len(shares)


def parts(rows: int, steps: int) -> tuple[int, int]:
    """Into how many parts the mesh splits the rows and the steps of activations.

    Args:
      rows: B.
      steps: T.

    Returns:
      Divisors of B and T; 1 and 1 where no mesh is set.

    >>> parts(8, 6)
    (1, 1)
    """
    shape = jax.sharding.get_abstract_mesh().shape

    def ways(size: int, names: tuple[str, ...]) -> int:
        return math.prod(shape[name] for name in _dividing(size, names))

    return ways(rows, BATCH_AXES), ways(steps, (SEQUENCE_AXIS,))


def split(x: jax.Array, parts: tuple[int, int]) -> jax.Array:
    """Lays each part's steps in a row of their own, so that none leaves its device.

    Args:
      x: `[B, T, ...]`.
      parts: as `parts(B, T)` gives them, P in all.

    Returns:
      `[P, B T / P, ...]`; `join` undoes it.

    >>> split(jax.numpy.ones((8, 6, 2)), (4, 3)).shape
    (12, 4, 2)
    """
    over_rows, over_steps = parts
    batch, length, *rest = x.shape
    x = x.reshape(over_rows, batch // over_rows, over_steps, length // over_steps, *rest)
    return _one_a_part(x.swapaxes(1, 2).reshape(over_rows * over_steps, -1, *rest), parts)


def join(x: jax.Array, parts: tuple[int, int], rows: int) -> jax.Array:
    """Undoes `split`.

    Args:
      x: `[P, B T / P, ...]`.
      parts: as for `split`.
      rows: B.

    Returns:
      `[B, T, ...]`.

    >>> join(jax.numpy.ones((12, 4, 2)), (4, 3), 8).shape
    (8, 6, 2)
    """
    over_rows, over_steps = parts
    rest = x.shape[2:]
    x = x.reshape(over_rows, over_steps, rows // over_rows, -1, *rest)
    return x.swapaxes(1, 2).reshape(rows, -1, *rest)


def copies(kernel: jax.Array, parts: tuple[int, int]) -> jax.Array:
    """A weight once for every part of the mesh, before a loop in which each part uses its own.

    The gradient is the sum of the copies' gradients, taken after the loop; that of one weight for
    all parts would be summed over the devices in every step of it.

    Args:
      kernel: a weight.
      parts: as for `split`, P in all.

    Returns:
      `[P, ...]`, one to a part.

    >>> copies(jax.numpy.ones((4, 3)), (2, 1)).shape
    (2, 4, 3)
    """
    return _one_a_part(jnp.broadcast_to(kernel[None], (math.prod(parts), *kernel.shape)), parts)


def _one_a_part(x: jax.Array, parts: tuple[int, int]) -> jax.Array:
    """Splits axis 0 over the parts; where there is only one, the partitioner may do as it likes."""
    over = tuple(
        name
        for names, count in zip((BATCH_AXES, (SEQUENCE_AXIS,)), parts, strict=True)
        for name in _dividing(count, names)
    )
    if parts == (1, 1) or not over:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(over, *[None] * (x.ndim - 1)))


def _dividing(size: int, names: Sequence[str]) -> list[str]:
    """As many of these axes of the mesh, from the first, as divide a size."""
    mesh = jax.sharding.get_abstract_mesh()
    found = [name for name in names if name in mesh.shape]
    while found and size % math.prod(mesh.shape[name] for name in found):
        found.pop()
    return found


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
        over = _dividing(size, names)
        spec.append(tuple(over) if over else PartitionSpec.UNCONSTRAINED)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))
