"""Where arrays live: a mesh, and rules on parameter paths; layers know nothing of it."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from recattn_jax.errors import UserError
from recattn_jax.partition import BATCH_AXES, MODEL_AXIS, SEQUENCE_AXIS
from recattn_jax.training.experiment import Layout, MeshShape, Rule
from recattn_jax.training.precision import path_name

AXES = (*BATCH_AXES, MODEL_AXIS, SEQUENCE_AXIS)
ROWS = BATCH_AXES
SMALL = 2**12  # elements; splitting less than this costs more in latency than it saves in memory
STACKED = "stacked"  # each time this stands in a parameter's path, it has a leading layer axis


def make_mesh(shape: MeshShape, given: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh over all hosts' devices: `make_mesh(MeshShape(data=-1, fsdp=2))`.

    Slices of TPUs are joined by a slower network, which only `data` crosses.

    Args:
      shape: devices along each axis; at most one is -1 and takes what the others leave. On a
        single host the product may be less than the number of devices; the first ones are used.
      given: the devices; None for those that are there.

    Raises:
      UserError: the devices do not factor that way.
    """
    found = list(jax.devices() if given is None else given)
    slices = len({getattr(device, "slice_index", 0) for device in found})
    sizes = mesh_sizes(shape, len(found), slices)
    needed = math.prod(sizes)
    if jax.process_count() > 1 and needed != len(found):
        raise UserError(f"mesh {_named(sizes)}: needs {needed} devices, there are {len(found)}")
    types = (AxisType.Auto,) * len(AXES)
    try:
        if slices == 1:
            return jax.make_mesh(sizes, AXES, axis_types=types, devices=found[:needed])
        within, across = (sizes[0] // slices, *sizes[1:]), (slices, *(1 for _ in sizes[1:]))
        grid = mesh_utils.create_hybrid_device_mesh(within, across, found)
        return Mesh(grid, AXES, axis_types=types)
    except (NotImplementedError, ValueError) as error:  # the links between TPUs have their shape
        raise UserError(f"mesh {_named(sizes)}: {' '.join(str(error).split())}") from error


def mesh_sizes(shape: MeshShape, devices: int, slices: int = 1) -> tuple[int, ...]:
    """Devices along each axis, with -1 filled in.

    Args:
      shape: see `make_mesh`.
      devices: how many there are.
      slices: how many slices they stand in.

    Raises:
      UserError: the devices do not factor that way.

    >>> mesh_sizes(MeshShape(data=-1, fsdp=4), 8)
    (2, 4, 1, 1)
    """
    sizes = [shape.data, shape.fsdp, shape.model, shape.sequence]
    named = _named(sizes)
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise UserError(f"mesh {named}: every axis is positive, at most one is -1")
    fixed = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if devices % fixed:
            raise UserError(
                f"mesh {named}: {devices} devices cannot be divided by {fixed};"
                " change the fixed axes to a divisor of the number of devices"
            )
        sizes = [devices // fixed if size == -1 else size for size in sizes]
    elif fixed > devices:
        raise UserError(f"mesh {named}: needs {fixed} devices, there are {devices}")
    if slices > 1 and (sizes[0] % slices or math.prod(sizes) != devices):
        raise UserError(
            f"mesh {named}: {slices} slices of {devices // slices} devices each; data must be a"
            f" multiple of {slices}, and all axes together {devices} devices"
        )
    return tuple(sizes)


def _named(sizes: Sequence[int]) -> str:
    return " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))


def check_batch(batch: Mapping[str, jax.ShapeDtypeStruct], mesh: Mesh, accumulate: int) -> None:
    """Sees to it that every device gets the same number of rows in every micro-batch.

    Raises:
      UserError: a batch does not divide; names the numbers.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    for name, spec in batch.items():
        if spec.shape[0] % (ways * accumulate):
            raise UserError(
                f"batch of {spec.shape[0]} rows ({name!r}) is not divisible by {ways * accumulate}:"
                f" data={mesh.shape['data']} x fsdp={mesh.shape['fsdp']} x accumulate={accumulate};"
                " change the batch size or the mesh"
            )
        if len(spec.shape) > 1 and spec.shape[1] % mesh.shape["sequence"]:
            raise UserError(
                f"length {spec.shape[1]} ({name!r}) is not divisible by"
                f" sequence={mesh.shape['sequence']}; change the length or the mesh"
            )


def fits(shape: MeshShape, batches: Sequence[Mapping[str, jax.ShapeDtypeStruct]]) -> bool:
    """Whether this machine has the devices for a mesh that divides batches of these shapes."""
    try:
        mesh = make_mesh(shape)
        for batch in batches:
            check_batch(batch, mesh, 1)
    except UserError:
        return False
    return True


def largest_over_fsdp(shape: tuple[int, ...], mesh: Mesh) -> P:
    """Splits the largest divisible dimension over `fsdp`; small arrays stay whole."""
    return _spread([None] * len(shape), shape, mesh)


def over_model(axis: int, whole: int | None = None) -> Callable[[tuple[int, ...], Mesh], P]:
    """Makes a rule that splits `axis` over `model`, then the largest free one over `fsdp`.

    Args:
      axis: counted from the end, so negative.
      whole: an axis that is not to be split, counted likewise.
    """

    def rule(shape: tuple[int, ...], mesh: Mesh) -> P:
        axes: list[str | None] = [None] * len(shape)
        if shape[axis] % mesh.shape["model"] == 0:
            axes[axis] = "model"
        return _spread(axes, shape, mesh, whole)

    return rule


def units_over_model(shape: tuple[int, ...], mesh: Mesh) -> P:
    """Splits a recurrent kernel by its units, or by its heads where these do not see each other."""
    return over_model(-4 if len(shape) == 4 else -1)(shape, mesh)


def _spread(
    axes: list[str | None], shape: tuple[int, ...], mesh: Mesh, whole: int | None = None
) -> P:
    ways, kept = mesh.shape["fsdp"], None if whole is None else whole % len(shape)
    free = [i for i, n in enumerate(shape) if axes[i] is None and n % ways == 0 and i != kept]
    if free and math.prod(shape) >= SMALL:
        axes[max(free, key=lambda i: shape[i])] = "fsdp"
    return P(*axes)


DEFAULT_RULES: tuple[Rule, ...] = (
    # Units of a recurrent layer with all their gates, and heads of attention, stay together.
    (r"(^|/)input_kernel$", over_model(-1)),  # [D, G, H]
    (r"(^|/)recurrent_kernel$", units_over_model),  # [P, G, H] or [N, K, G, K]
    (r"(^|/)(query|key|value)/kernel$", over_model(-2)),  # [D, H, K]
    (r"(^|/)(query|key|score)_kernel$", over_model(-3)),  # [H, K, N]
    # [H, K, D]; with H over model and D over fsdp, XLA (jax 0.10.2) computes wrong sums where this
    # product is added to the output of a recurrence.
    (r"(^|/)out/kernel$", over_model(-3, whole=-1)),
    # The vocabulary, where it divides.
    (r"(^|/)embedding$", over_model(-2)),  # [V, D]
    (r"(^|/)readout/kernel$", over_model(-1)),  # [D, V]
    (r"", largest_over_fsdp),
)
"""Where the parameters of our layers go, whatever axes the mesh has; the first match wins."""


def layer_axes(name: str) -> int:
    """How many leading axes of the parameter of this path count layers (see `Repeat`)."""
    return name.split("/").count(STACKED)


def parameter_specs(params: Any, rules: tuple[Rule, ...], mesh: Mesh) -> dict[str, P]:
    """Spec of every parameter, by path.

    Args:
      params: tree of arrays or of their shapes.
      rules: see `Layout`; a rule sees a stacked parameter without its layer axis.
      mesh: the mesh.
    """

    def spec(name: str, shape: tuple[int, ...]) -> P:
        depths = layer_axes(name)
        for pattern, rule in rules:
            if re.search(pattern, name):
                return P(*[None] * depths, *rule(shape[depths:], mesh))
        return P()

    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {path_name(path): spec(path_name(path), leaf.shape) for path, leaf in leaves}


def follow_parameters(tree: Any, params: Any, layout: Layout, mesh: Mesh) -> Any:
    """Shardings for a tree that holds parameters or things shaped like them.

    A leaf whose path ends with a parameter's path, and whose shape is the parameter's, is stored
    like it; so moments and averages need no rules of their own. Other leaves are replicated.

    Args:
      tree: abstract train state, optimizer state, or parameters.
      params: the parameters alone.
      layout: rules.
      mesh: the mesh.
    """
    specs = parameter_specs(params, layout.rules, mesh)
    shapes = {
        path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        parts = path_name(path).split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if name in specs and shapes[name] == leaf.shape:
                return NamedSharding(mesh, specs[name])
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(sharding, tree)


def batch_shardings(
    batch: Mapping[str, jax.ShapeDtypeStruct], mesh: Mesh
) -> dict[str, NamedSharding]:
    """Rows over `data` and `fsdp`, time over `sequence`."""
    return {
        name: NamedSharding(mesh, P(ROWS, "sequence") if len(spec.shape) > 1 else P(ROWS))
        for name, spec in batch.items()
    }


def carry_shardings(carry: Any, rows: Any, mesh: Mesh) -> Any:
    """Rows over `data` and `fsdp`.

    Args:
      carry: abstract state of the model.
      rows: for each leaf, the axis of its rows.
      mesh: the mesh.
    """
    return jax.tree.map(lambda _, axis: NamedSharding(mesh, P(*[None] * axis, ROWS)), carry, rows)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, P())


def place(
    batch: Mapping[str, Any],
    specs: Mapping[str, jax.ShapeDtypeStruct],
    shardings: Mapping[str, NamedSharding],
) -> dict[str, jax.Array]:
    """Makes the global batch from this host's rows."""
    return {
        name: jax.make_array_from_process_local_data(
            shardings[name], batch[name], global_shape=spec.shape
        )
        for name, spec in specs.items()
    }
