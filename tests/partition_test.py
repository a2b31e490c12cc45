"""Layers in somebody else's mesh change nothing; in ours they place arrays as they say."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from recattn_jax import layers, partition


def mesh(*axes: tuple[str, int]) -> Mesh:
    names, sizes = zip(*axes, strict=True)
    return jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(axes))


def placed(f, x, on: Mesh, spec: P) -> P:
    with jax.set_mesh(on):
        y = jax.jit(f)(jax.device_put(x, NamedSharding(on, spec)))
    return y.sharding.spec


def test_a_foreign_mesh_keeps_its_placement() -> None:
    layer, x = layers.Residual(layers.Dense(8)), jnp.ones((8, 4, 8))
    variables = layer.init(jax.random.key(0), x)
    spec = placed(lambda x: layer.apply(variables, x)[0], x, mesh(("dp", 8)), P("dp"))
    assert spec[0] == "dp"


def test_what_does_not_divide_keeps_what_does() -> None:
    spec = placed(
        partition.constrain, jnp.ones((2, 4, 8)), mesh(("data", 2), ("fsdp", 4)), P("data")
    )
    assert spec[0] in ("data", ("data",))


def test_constrain_splits_rows_and_gather_gathers() -> None:
    ours = mesh(("data", 2), ("fsdp", 2), ("model", 2))
    rows = placed(partition.constrain, jnp.ones((8, 4, 8)), ours, P())
    assert rows[0] == ("data", "fsdp")
    kernel = placed(partition.gather, jnp.ones((8, 4, 8)), ours, P("fsdp"))
    assert tuple(kernel) in (((None, None, "model")), (None, None, ("model",)))
