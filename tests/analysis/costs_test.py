import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from recattn_jax.analysis import costs, hlo
from recattn_jax.training import MeshShape, sharding

PROGRAM = """\
HloModule jit_step, num_partitions=8

%body (x: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %x = (s32[], bf16[4,8]) parameter(0)
  %i = s32[] get-tuple-element(%x), index=0
  %row = bf16[4,8]{1,0} get-tuple-element(%x), index=1
  LINE
  ROOT %next = (s32[], bf16[4,8]) tuple(%i, %row)
}

%condition (z: (s32[], bf16[4,8])) -> pred[] {
  %z = (s32[], bf16[4,8]) parameter(0)
  %at = s32[] get-tuple-element(%z), index=0
  %limit = s32[] constant(5)
  ROOT %below = pred[] compare(%at, %limit), direction=LT
}

ENTRY %main (a: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %a = (s32[], bf16[4,8]) parameter(0)
  ROOT %loop = (s32[], bf16[4,8]) while(%a), condition=%condition, body=%body, \
metadata={op_name="jit(step)/while"}
}
"""
HALF = ", replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}"


def only(line):
    (found,) = costs.collectives(hlo.parse(PROGRAM.replace("LINE", line)))
    return found


@pytest.mark.parametrize(
    ("line", "kind", "size", "group", "sent"),
    [
        (f"%c = bf16[16,8] all-gather(%row){HALF}", "all-gather", 256, 4, 192),
        (f"%c = bf16[1,8] reduce-scatter(%row){HALF}, to_apply=%s", "reduce-scatter", 64, 4, 48),
        (f"%c = bf16[4,8] all-reduce(%row){HALF}", "all-reduce", 64, 4, 96),
        (f"%c = bf16[4,8] all-to-all(%row){HALF}", "all-to-all", 64, 4, 48),
        (
            "%c = bf16[4,8] collective-permute(%row), source_target_pairs={{0,1},{1,0}}",
            "collective-permute", 64, 8, 64,
        ),
        (  # two arrays at once, asynchronously, in groups by a formula
            "%c = ((bf16[4,8], bf16[4,8]), (bf16[8,8], bf16[8,8])) all-gather-start(%row, %row),"
            " replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}",
            "all-gather", 256, 2, 128,
        ),
        ("%c = bf16[4,8] all-reduce(%row), replica_groups={}", "all-reduce", 64, 8, 112),
        (
            "%c = bf16[4,8] all-reduce(%row), replica_groups=mesh['a'=4,'b'=2],"
            " device_ids=([2,4]T(1,0)) {'a'}, to_apply=%s",
            "all-reduce", 64, 4, 96,
        ),
        (
            "%c = bf16[4,8] all-reduce(%row), replica_groups=mesh['a'=4,'b'=2] {'b','a':(2)2}",
            "all-reduce", 64, 4, 96,
        ),
    ],
)  # fmt: skip
def test_messages_of_a_loop(line, kind, size, group, sent):
    found = only(line)
    assert (found.kind, found.bytes, found.group) == (kind, size, group)
    assert found.times == 5 and found.over_steps
    assert costs.ring_bytes(found) == 5 * sent


SPREAD = """\
HloModule jit_step, num_partitions=4

%start (w: f32[8]) -> (f32[8], f32[32]) {
  %w = f32[8] parameter(0)
  %one = f32[32] all-gather(%w), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %go = (f32[8], f32[32]) custom-call(%one), custom_call_target="AsyncCollectiveStart"
}

%piece (v: f32[8]) -> f32[32] {
  %v = f32[8] parameter(0)
  ROOT %two = f32[32] all-gather(%v), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}
}

%all-reduce-scatter.1 (u: f32[32]) -> f32[8] {
  %u = f32[32] parameter(0)
  %whole = f32[32] all-reduce(%u), channel_id=8, replica_groups={{0,1,2,3}}, to_apply=%sum
  %zero = s32[] constant(0)
  ROOT %part = f32[8] dynamic-slice(%whole, %zero), dynamic_slice_sizes={8}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8] parameter(0)
  %b = (f32[8], f32[32]) fusion(%a), kind=kCustom, calls=%start
  %c = f32[32] fusion(%a), kind=kOutput, calls=%piece
  %d = f32[32] fusion(%a), kind=kOutput, calls=%piece
  %e = f32[32] all-gather(%a), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %all-reduce-scatter.2 = f32[8] fusion(%d), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_one_message_in_pieces_is_one_and_a_reduction_that_keeps_its_part_is_a_scatter():
    """But a whole one on the same channel, as unrolled loops have it, is another."""
    found = costs.collectives(hlo.parse(SPREAD))
    assert sorted((c.kind, c.bytes) for c in found) == [
        ("all-gather", 128),
        ("all-gather", 128),
        ("reduce-scatter", 128),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%y = f32[4,4] dot(%row, %row), lhs_contracting_dims={1}, rhs_contracting_dims={1}", 256),
        ("%y = f32[4,4] convolution(%row, %row), dim_labels=bf_oi->bf", 256),
        # A batch of 4 products of 8 numbers, as a window with holes: 4 of its 16 pairs meet.
        (
            "%y = f32[4,1,1] convolution(%l, %r), window={size=4 stride=3 lhs_dilate=4},"
            " dim_labels=0bf_0oi->0bf",
            64,
        ),
        # Five inputs, padded by one on both sides, under a kernel of three: 13 pairs of 15 meet.
        (
            "%y = f32[2,5,7] convolution(%s, %k), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f",
            2 * 2 * 3 * 7 * 13,
        ),
    ],
)
def test_products_of_matrices(line, expected):
    operands = "\n".join(
        f"  %{name} = f32[{shape}] broadcast(%i)"
        for name, shape in {"l": "4,1,8", "r": "4,1,8", "s": "2,5,3", "k": "3,3,7"}.items()
    )
    program = hlo.parse(PROGRAM.replace("  LINE", f"{operands}\n  {line}"))
    assert costs.flops(program) == 5 * expected


def compiled(f, *arguments):
    program = jax.jit(f).lower(*arguments).compile()
    return hlo.parse(program.as_text()), program.cost_analysis()


def test_without_loops_products_are_what_the_compiler_counts():
    x, y = jnp.ones((3, 16, 32)), jnp.ones((3, 32, 8))
    program, analysis = compiled(lambda x, y: x @ y, x, y)
    assert costs.flops(program) == analysis["flops"] == 2 * 3 * 16 * 32 * 8
    assert costs.traffic(program) == analysis["bytes accessed"]


def test_in_a_loop_products_and_memory_count_as_often_as_it_runs():
    kernel, x = jnp.ones((64, 64)), jnp.ones((20, 4, 64))

    def run(kernel, x):
        return jax.lax.scan(lambda h, x: ((h + x) @ kernel, ()), x[0], x)[0]

    program, _ = compiled(run, kernel, x)
    assert costs.flops(program) == 20 * 2 * 4 * 64 * 64
    # The kernel each time, and of x the step: not all of it.
    least = 20 * kernel.nbytes + x.nbytes
    assert least < costs.traffic(program) < 2 * least


def test_data_parallel_gradients_are_reduced_once_and_split_ones_gathered():
    mesh = sharding.make_mesh(MeshShape(data=8))
    x = jax.ShapeDtypeStruct((16, 64), jnp.float32, sharding=NamedSharding(mesh, P("data")))

    def sent(spec, kind):
        where = NamedSharding(mesh, spec)
        kernel = jax.ShapeDtypeStruct((64, 256), jnp.float32, sharding=where)
        step = jax.jit(
            jax.grad(lambda kernel, x: jnp.sum(jnp.tanh(x @ kernel))), out_shardings=where
        )
        program = hlo.parse(step.lower(kernel, x).compile().as_text())
        assert program.partitions == 8
        return sum(costs.ring_bytes(c) for c in costs.collectives(program) if c.kind == kind)

    size = 64 * 256 * 4
    assert sent(P(), "all-reduce") == 2 * 7 / 8 * size and sent(P(), "all-gather") == 0
    assert np.isclose(sent(P("data"), "all-gather"), 7 / 8 * size)
