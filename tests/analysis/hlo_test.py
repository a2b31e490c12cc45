import jax
import jax.numpy as jnp
import pytest

from recattn_jax.analysis import hlo
from recattn_jax.layers import LSTM, Dense, Repeat, Residual

NESTED = """\
HloModule jit_step, is_scheduled=true, num_partitions=8

%inner_body (x: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %x = (s32[]{:T(128)}, /*index=1*/f32[4,8]{1,0:T(8,128)S(1)}) parameter(0)
  %counter = s32[] get-tuple-element(%x), index=0
  %row = f32[4,8]{1,0} get-tuple-element(%x), index=1
  %twice = f32[4,8]{1,0} fusion(%row), kind=kLoop, calls=%doubled, metadata={op_name="twice, (it)"}
  ROOT %next = (s32[], f32[4,8]) tuple(%counter, %twice)
}

%doubled (y: f32[4,8]) -> f32[4,8] {
  %y = f32[4,8]{1,0} parameter(0)
  ROOT %sum = f32[4,8]{1,0} add(%y, %y)
}

%inner_condition (z: (s32[], f32[4,8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(6)
  %z = (s32[], f32[4,8]) parameter(0)
  %at = s32[] get-tuple-element(%z), index=0
  ROOT %below = pred[] compare(%at, %limit), direction=LT
}

%outer_body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  ROOT %inner = (s32[], f32[4,8]) while(%p), condition=%inner_condition, body=%inner_body, \
metadata={op_name="jit(step)/while/body/while"}
  %p = (s32[], f32[4,8]) parameter(0)
}

%outer_condition (q: (s32[], f32[4,8])) -> pred[] {
  %q = (s32[], f32[4,8]) parameter(0)
  ROOT %go = pred[] custom-call(%q), custom_call_target="whoknows"
}

ENTRY %main (a: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %a = (s32[], f32[4,8]) parameter(0)
  ROOT %outer = (s32[], f32[4,8]) while(%a), condition=%outer_condition, body=%outer_body, \
metadata={op_name="jit(step)/while"}TRIPS
}
"""
KNOWN = ', backend_config={"known_trip_count":{"n":"3"},"known_init_step":{"init":"0"}}'


def test_loops_multiply_and_fusions_run_with_what_calls_them():
    program = hlo.parse(NESTED.replace("TRIPS", KNOWN))
    assert (program.entry, program.partitions) == ("main", 8)
    runs = {next(iter(run.computation)): run for run in program.runs()}
    assert runs["a"].times == 1 and runs["p"].times == 3
    assert runs["x"].times == 18 and runs["y"].times == 18
    assert runs["y"].fusion.name == "twice" and runs["y"].place == "inner_body"
    assert [loop.times for loop in program.loops()] == [3, 6]


def test_a_loop_whose_length_is_not_written_counts_once():
    program = hlo.parse(NESTED.replace("TRIPS", ""))
    outer, inner = program.loops()
    assert outer.times is None and inner.times == 6
    assert [run.times for run in program.runs() if "x" in run.computation] == [6]


def test_an_instruction_is_read_whole():
    computations = hlo.parse(NESTED.replace("TRIPS", KNOWN)).computations
    twice = computations["inner_body"]["twice"]
    assert (twice.opcode, twice.operands, twice.bytes) == ("fusion", ("row",), 128)
    assert twice.op_name == "twice, (it)" and twice.attribute("calls") == "%doubled"
    assert twice.attribute("condition") is None
    whole = computations["inner_body"]["x"].arrays
    assert [(array.bytes, array.main) for array in whole] == [(4, True), (128, False)]
    # The result of a computation comes last, wherever its line stands.
    assert list(computations["outer_body"])[-1] == "inner"


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("pred[3]", 3), ("bf16[2,3]{1,0}", 12), ("s4[6]", 3), ("f8e4m3fn[8]", 8), ("u64[]", 8),
        ("c64[2]", 16), ("token[]", 0), ("(f32[1], (s32[2]{0}, u8[1]))", 13),
    ],
)  # fmt: skip
def test_bytes_of_shapes(shape, size):
    assert sum(array.bytes for array in hlo.arrays(shape)) == size


def loops_of(layer, length):
    x = jnp.ones((2, length, 8))
    params = layer.init(jax.random.key(0), x)

    def loss(params):
        return jnp.sum(layer.apply(params, x)[0])

    return hlo.parse(jax.jit(jax.grad(loss)).lower(params).compile().as_text()).loops()


def test_loops_over_layers_are_told_from_loops_over_steps():
    layers = loops_of(Repeat(Residual(Dense(8)), depth=5), 48)
    assert {(loop.times, loop.over_layers) for loop in layers} == {(5, True)}
    steps = loops_of(LSTM(8), 48)
    assert steps and not any(loop.over_layers for loop in steps)
    both = loops_of(Repeat(Residual(LSTM(8)), depth=3), 48)
    assert {loop.over_layers for loop in both} == {True, False}
    assert all(loop.times == 3 for loop in both if loop.over_layers)


@pytest.mark.parametrize(
    ("name", "over_layers", "over_steps"),
    [
        ("f/while", False, True),
        ("", False, True),
        ("f/while", True, False),
        ("f/dot", False, False),
    ],
)
def test_a_loop_that_the_compiler_made_is_not_one_over_steps(name, over_layers, over_steps):
    assert hlo.Loop(name, 8, over_layers).over_steps == over_steps
