"""Slices of TPUs by name, what their chips can do, and how long a step would take at best."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from recattn_jax.errors import UserError
from recattn_jax.training import MeshShape, sharding

GIB = 2**30
MOST = 8960  # chips of a slice: a Pod of v5p


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of chip, which is one device of jax.

    Args:
      axes: dimensions of its slices.
      flops: operations of bfloat16 a second.
      memory: GiB.
      memory_bandwidth: bytes a second to and from the memory.
      link_bandwidth: bytes a second that it can send to other chips of its slice, over all links.
    """

    axes: int
    flops: float
    memory: int
    memory_bandwidth: float
    link_bandwidth: float


# From Google Cloud's TPU pages, one for each kind. What a chip can send is the "all-reduce
# bandwidth per Pod" over the chips of a Pod (v4, v5e, v6e), or the "interchip interconnect BW".
CHIPS: Mapping[str, Chip] = {
    "v4": Chip(3, 275e12, 32, 1200e9, 1.1e15 / 4096),
    "v5e": Chip(2, 197e12, 16, 819e9, 51.2e12 / 256),
    "v5p": Chip(3, 459e12, 95, 2765e9, 4800e9 / 8),
    "v6e": Chip(2, 918e12, 32, 1638e9, 102.4e12 / 256),
}
_FORM = "v5e:16x16 (also v6e), or v5p:4x4x4 (also v4)"


@dataclasses.dataclass(frozen=True)
class Topology:
    """One or more slices.

    Args:
      kind: of the chips, a key of `CHIPS`.
      sizes: chips along each dimension of a slice.
      slices: how many of them.

    >>> Topology("v4", (2, 2, 4), slices=2).chips
    32
    """

    kind: str
    sizes: tuple[int, ...]
    slices: int

    @property
    def name(self) -> str:
        """As the compiler knows one slice."""
        return f"{self.kind}:{'x'.join(map(str, self.sizes))}"

    @property
    def chip(self) -> Chip:
        """What each of its chips can do."""
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        """In all slices."""
        return math.prod(self.sizes) * self.slices

    def __str__(self) -> str:
        return self.name if self.slices == 1 else f"{self.slices} of {self.name}"


def topologies(text: str, slices: int) -> list[Topology]:
    """Reads names with commas between them.

    Args:
      text: such as `v5e:4x4,v5e:16x16`.
      slices: of each.

    Raises:
      UserError: there is no such kind or shape; names the form.

    >>> [str(topology) for topology in topologies("v5e:4x4,v5p:2x2x2", slices=1)]
    ['v5e:4x4', 'v5p:2x2x2']
    """
    if slices < 1:
        raise UserError(f"--slices={slices}: expected at least 1")
    found = []
    for name in text.split(","):
        kind, _, sizes = name.strip().partition(":")
        if kind not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
            raise UserError(f"--topology={name}: expected a name such as {_FORM}")
        shape = tuple(int(size) for size in sizes.split("x"))
        if len(shape) != CHIPS[kind].axes:
            raise UserError(
                f"--topology={name}: a slice of {kind} has {CHIPS[kind].axes} dimensions, as in"
                f" {_FORM}"
            )
        if math.prod(shape) > MOST:
            raise UserError(f"--topology={name}: no slice has more than {MOST:,} chips")
        found.append(Topology(kind, shape, slices))
    return found


def mesh_sizes(shape: MeshShape, topology: Topology) -> tuple[int, ...]:
    """Devices along each axis of a mesh over all of a topology; `data` goes over its slices.

    Args:
      shape: at most one axis is -1 and takes what the others leave.
      topology: where the devices are.

    Raises:
      UserError: they do not make it up.

    >>> mesh_sizes(MeshShape(data=-1, fsdp=16), Topology("v5e", (16, 16), 1))
    (16, 16, 1, 1)
    """
    found = sharding.mesh_sizes(shape, topology.chips, topology.slices)
    if math.prod(found) != topology.chips:
        raise UserError(
            f"mesh {' x '.join(map(str, found))} does not make up the {topology.chips} devices of"
            f" {topology}; change it with --config.mesh=data:N,fsdp:M"
        )
    return found


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of a step at best: of products, of memory, and of messages."""

    compute: float
    memory: float
    messages: float

    @property
    def step(self) -> float:
        """`max(compute, memory) + messages`."""
        return max(self.compute, self.memory) + self.messages


def estimate(topology: Topology, flops: float, traffic: float, sent: float) -> Estimate:
    """How long a step would take if every part ran at the peak of the chip (a roofline).

    `max(flops / peak, traffic / memory bandwidth) + sent / link bandwidth`: products and memory at
    the same time, messages after them, all links of a chip busy at once, and between slices as fast
    as within them. A real step is slower where products are small, steps of a recurrence wait for
    each other, or slices talk; it is faster where messages travel during the work.

    Args:
      topology: whose chips.
      flops: operations a device.
      traffic: bytes to and from the memory of a device.
      sent: bytes that a device sends.

    >>> estimate(Topology("v5e", (2, 2), 1), 197e12, 0.0, 200e9).step
    2.0
    """
    chip = topology.chip
    return Estimate(
        compute=flops / chip.flops,
        memory=traffic / chip.memory_bandwidth,
        messages=sent / chip.link_bandwidth,
    )


def efficiencies(
    rates: Sequence[float | None], topologies: Sequence[Topology]
) -> list[float | None]:
    """Each rate a chip over that of the fewest chips of the same kind; None where there is none.

    >>> pair = topologies("v5e:2x2,v5e:4x4", slices=1)
    >>> efficiencies([100.0, 90.0], pair)
    [1.0, 0.9]
    """
    least: dict[str, tuple[int, float]] = {}
    for rate, topology in zip(rates, topologies, strict=True):
        if rate is not None:
            found = (topology.chips, rate)
            least[topology.kind] = min(least.get(topology.kind, found), found)
    return [
        None if rate is None else rate / least[topology.kind][1]
        for rate, topology in zip(rates, topologies, strict=True)
    ]
