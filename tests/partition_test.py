"""Layers in somebody else's mesh change nothing; in ours they place arrays as they say."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from recattn_jax import layers, partition
from recattn_jax.errors import UserError


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


def on_hosts(monkeypatch, sizes: dict[str, int], each: int, process: int) -> tuple[int, int]:
    """What `hosts` says to a process, on a mesh of hosts with so many devices each."""
    count = math.prod(sizes.values())
    devices = np.array([SimpleNamespace(process_index=n // each) for n in range(count)], object)
    stand_in = SimpleNamespace(
        axis_names=tuple(sizes), shape=sizes, devices=devices.reshape(tuple(sizes.values()))
    )
    monkeypatch.setattr(jax.sharding, "get_mesh", lambda: stand_in)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    return partition.hosts()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"data": 4, "fsdp": 2, "model": 1}, [(0, 4), (1, 4), (2, 4), (3, 4)]),
        ({"data": 2, "fsdp": 1, "model": 4}, [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ({"data": 1, "fsdp": 1, "model": 8}, [(0, 1)] * 4),
    ],
)
def test_a_host_reads_the_rows_of_its_devices(monkeypatch, sizes, expected) -> None:
    assert [on_hosts(monkeypatch, sizes, 2, process) for process in range(4)] == expected


def test_hosts_that_would_share_some_of_their_rows_are_refused(monkeypatch) -> None:
    with pytest.raises(UserError, match="3 hosts hold different numbers of rows"):
        on_hosts(monkeypatch, {"data": 2, "model": 3}, 2, 0)
