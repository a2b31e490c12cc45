import pytest

from launch import chips
from recattn_jax.errors import UserError
from recattn_jax.training import MeshShape


@pytest.mark.parametrize(
    "name",
    [
        "v5litepod-16",
        "v5e",
        "v5e:",
        "v5e:16",
        "v5e:16x16x1",
        "v5p:4x4",
        "v3:2x2",
        "v5e:0x4",
        "a100",
    ],
)
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(UserError, match="--topology=.*v5e:16x16.*v5p:4x4x4"):
        chips.topologies(f"v5e:4x4,{name}", slices=1)


def test_names_are_read_with_what_their_chips_are():
    four, five = chips.topologies("v4:4x4x8, v5p:4x4x4", slices=2)
    assert (four.chips, str(four)) == (256, "2 of v4:4x4x8")
    assert (five.chips, five.name) == (128, "v5p:4x4x4")
    with pytest.raises(UserError, match="v5e:99999x99999: no slice has more than"):
        chips.topologies("v5e:99999x99999", slices=1)
    with pytest.raises(UserError, match="--slices=0"):
        chips.topologies("v5e:4x4", slices=0)


@pytest.mark.parametrize(
    ("shape", "slices", "expected"),
    [
        (MeshShape(), 1, (16, 1, 1, 1)),
        (MeshShape(data=2, fsdp=-1, model=2), 1, (2, 4, 2, 1)),
        (MeshShape(data=4, fsdp=16), 4, (4, 16, 1, 1)),
        (MeshShape(data=4, fsdp=2), 1, "16 devices of v5e:4x4"),
        (MeshShape(data=-1, fsdp=3), 1, "16 devices cannot be divided by 3"),
        (MeshShape(data=-1, fsdp=32), 1, "16 devices"),
        (MeshShape(data=-1, fsdp=-1), 1, "at most one is -1"),
        (MeshShape(data=0), 1, "every axis is positive"),
        (MeshShape(data=2, fsdp=32), 4, "4 slices of 16 devices each"),
    ],
)
def test_a_mesh_makes_up_all_devices(shape, slices, expected):
    topology = chips.Topology("v5e", (4, 4), slices)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            chips.mesh_sizes(shape, topology)
    else:
        assert chips.mesh_sizes(shape, topology) == expected


def test_the_estimate_is_the_slower_of_products_and_memory_and_then_messages():
    topology = chips.Topology("v5e", (4, 4), 1)
    found = chips.estimate(topology, flops=197e12, traffic=2 * 819e9, sent=100e9)
    assert (found.compute, found.memory, found.messages) == (1.0, 2.0, 0.5) and found.step == 2.5


def test_scaling_is_against_the_fewest_chips_of_the_same_kind():
    given = chips.topologies("v5e:4x4,v5p:2x2x2,v5e:2x2,v5e:8x8", slices=1)
    assert chips.efficiencies([8.0, 50.0, 10.0, None], given) == [0.8, 1.0, 1.0, None]
