"""What is seen inside is what was computed, on the axes of the row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers
from recattn_jax.analysis.inside import Inside, look_inside
from recattn_jax.layers import Context
from recattn_jax.models import AttentionPooled, SequenceModel, hybrids
from tests import laws
from tests.oracles import assert_close

LENGTH, WIDTH = 10, 8
X = jnp.asarray(np.random.default_rng(0).normal(size=(1, LENGTH, WIDTH)), jnp.float32)
MEMORY = jnp.asarray(np.random.default_rng(1).normal(size=(1, 6, WIDTH)), jnp.float32)


def look(layer, x=X) -> Inside:
    context = Context(memory=MEMORY)
    variables = jax.jit(layer.init)(jax.random.key(0), x, None, context)
    seen = look_inside(layer, variables, x, None, context)
    assert_close(seen.output, jax.jit(layer.apply)(variables, x, None, context)[0], 1e-5)
    return seen


def plain(**options) -> layers.SelfAttention:
    """Its output is what its weights make of its input."""
    return layers.SelfAttention(2, project=False, **options)


def mixed(weights, x=X[0]):
    """`[H, T, S]` weights of x in heads, joined again."""
    split = np.asarray(x).reshape(x.shape[0], weights.shape[0], -1)
    return np.einsum("hts,shv->thv", weights, split).reshape(weights.shape[1], -1)


FOUNDING = [name for name in hybrids.__all__ if f"hybrids.{name}" in laws.TABLE]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["luong_decoder"])
def test_rows_of_a_hybrid_sum_to_one(name: str) -> None:
    check_rows(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUNDING)
def test_rows_of_every_hybrid_sum_to_one(name: str) -> None:
    check_rows(name)


def check_rows(name: str) -> None:
    seen = look(laws.TABLE[f"hybrids.{name}"].layer)
    for each in seen.attention:
        assert each.weights.shape[1] == LENGTH, each.path
        if each.kind == "self":
            assert each.weights.shape[2] == LENGTH, each.path
        sums = each.weights.sum(-1)
        # The first step of a feedback memory has no past to look at.
        empty = np.all(each.weights == 0, axis=-1)
        assert not empty[:, 1:].any(), each.path
        np.testing.assert_allclose(sums[~empty], 1.0, atol=1e-5, err_msg=each.path)
    for trace in seen.recurrence:
        assert all(a.shape[0] == LENGTH for a in (*trace.carries, *trace.gates.values()))
    known = ("writes the slots", "chunks inside of a loop", "CausalConvolution carries a state")
    assert all(any(words in line for words in known) for line in seen.left_out), seen.left_out


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"causal": False}])
def test_weights_make_the_output(options) -> None:
    seen = look(plain(**options))
    (only,) = seen.attention
    assert (only.kind, only.path) == ("self", "")
    assert_close(mixed(only.weights), seen.output[0], 1e-5)


@pytest.mark.slow
def test_sinks_take_a_part() -> None:
    (only,) = look(plain(sinks=True)).attention
    assert np.all(only.weights.sum(-1) < 1)


@pytest.mark.slow
def test_chunks_see_themselves() -> None:
    seen = look(layers.Chunked(plain(causal=False, window=4), size=4))
    (only,) = seen.attention
    assert_close(mixed(only.weights), seen.output[0], 1e-5)
    assert np.all((only.weights[0] > 0) == np.equal.outer(*2 * [np.arange(LENGTH) // 4]))


def test_time_is_turned_back() -> None:
    seen = look(layers.Bidirectional(plain(window=3), plain(window=4)))
    forward, backward = sorted(seen.attention, key=lambda each: each.path, reverse=True)
    assert (forward.path, backward.path) == ("forward_layer", "backward_layer")
    joined = np.concatenate([mixed(forward.weights), mixed(backward.weights)], axis=-1)
    assert_close(joined, seen.output[0], 1e-5)


@pytest.mark.slow
def test_carries_are_turned_back() -> None:
    seen = look(layers.Bidirectional(layers.LSTM(3), layers.GRU(4)))
    by_path = {trace.path: trace for trace in seen.recurrence}
    hidden = [by_path[path].carries[0] for path in ("forward_layer", "backward_layer")]
    assert_close(np.concatenate(hidden, axis=-1), seen.output[0], 1e-6)
    assert set(by_path["backward_layer"].gates) == {"reset", "update", "candidate"}
    assert by_path["forward_layer"].cell == "LSTM"


@pytest.mark.parametrize("window", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_windows_are_put_side_by_side(window: int) -> None:
    seen = look(layers.Local(plain(), window=window))
    (only,) = seen.attention
    assert_close(mixed(only.weights), seen.output[0], 1e-5)
    seen = look(layers.Local(layers.LSTM(4), window=window))
    assert_close(seen.recurrence[0].carries[0], seen.output[0], 1e-6)


@pytest.mark.parametrize(
    "layer", [layers.Repeat, pytest.param(layers.Tied, marks=pytest.mark.slow)]
)
def test_copies_are_told_apart(layer) -> None:
    seen = look(layer(layer(plain(), 2), 3))
    assert len(seen.attention) == 6
    assert len({each.path for each in seen.attention}) == 6
    x = X[0]
    for each in sorted(seen.attention, key=lambda each: each.path):
        x = mixed(each.weights, x)
    assert_close(x, seen.output[0], 1e-5)


@pytest.mark.slow
def test_steps_of_a_loop_are_put_together() -> None:
    """Input feeding: what the body reads is X and its own last output."""
    body = layers.Serial((layers.Slice(0, WIDTH), plain(window=4)))
    seen = look(layers.Feedback(body, features=WIDTH))
    (only,) = seen.attention
    assert_close(mixed(only.weights), seen.output[0], 1e-5)
    stacked = layers.Feedback(
        layers.Serial((layers.Slice(0, WIDTH), layers.Repeat(plain(window=4), 2))), features=WIDTH
    )
    seen = look(stacked)
    first, second = sorted(seen.attention, key=lambda each: each.path)
    assert_close(mixed(second.weights, mixed(first.weights)), seen.output[0], 1e-5)


@pytest.mark.slow
def test_a_feedback_memory_looks_at_its_past() -> None:
    look_back = layers.CrossAttention(2, project=False)
    body = layers.Parallel((layers.Identity(), look_back), combine=layers.add)
    seen = look(layers.FeedbackMemory(body, window=3))
    (only,) = seen.attention
    y = np.asarray(seen.output[0])
    assert only.kind == "self"
    assert_close(X[0] + mixed(only.weights, y), y, 1e-5)


@pytest.mark.slow
def test_blocks_are_put_together() -> None:
    reader = layers.Serial(
        (
            plain(window=4),
            layers.Parallel((layers.Identity(), layers.CrossAttention(2)), combine=layers.concat),
        )
    )
    layer = layers.BlockRecurrent(
        reader, layers.CrossAttention(2), layers.FixedGate(), slots=3, block=4
    )
    seen = look(layer)
    own, slots = sorted(seen.attention, key=lambda each: each.kind)
    assert_close(mixed(own.weights), seen.output[0][:, :WIDTH], 1e-5)
    assert (slots.kind, slots.weights.shape) == ("slots", (2, LENGTH, 3))
    assert len(seen.left_out) == 1


@pytest.mark.slow
def test_memories_keep_their_axis() -> None:
    seen = look(
        layers.Serial(
            (
                layers.Feedback(
                    layers.Serial((layers.Slice(0, WIDTH), layers.CrossAttention(2))), WIDTH
                ),
                layers.LocationAttention(4, filters=2, width=3),
            )
        )
    )
    kinds = {each.kind: each.weights.shape for each in seen.attention}
    assert kinds == {"cross": (2, LENGTH, 6), "location": (1, LENGTH, 6)}
    location = next(each for each in seen.attention if each.kind == "location")
    assert_close(mixed(location.weights, MEMORY[0]), seen.output[0], 1e-5)


def test_pooling_is_one_look() -> None:
    model = SequenceModel(layers.Identity(), layers.LSTM(4), AttentionPooled(3, features=2))
    (only,) = look(model).attention
    assert (only.kind, only.weights.shape) == ("pooling", (1, 1, LENGTH))
    assert only.path == "readout"


def remembered(gates) -> np.ndarray:
    """What the gates make of a linear recurrence, `h_t = a_t h_{t-1} + b_t`."""
    hidden, found = np.zeros(gates["input"].shape[1]), []
    for decay, given in zip(gates["decay"], gates["input"], strict=True):
        hidden = decay * hidden + given
        found.append(hidden)
    return np.stack(found)


@pytest.mark.parametrize(
    "layer",
    [
        layers.MinGRU(WIDTH),
        pytest.param(layers.MinLSTM(WIDTH), marks=pytest.mark.slow),
        pytest.param(layers.RGLRU(2), marks=pytest.mark.slow),
    ],
)
def test_gates_make_the_states_of_a_linear_recurrence(layer) -> None:
    seen = look(layers.Bidirectional(layer, layer.clone()))
    assert not seen.left_out
    by_path = {trace.path: trace for trace in seen.recurrence}
    forward, backward = by_path["forward_layer"], by_path["backward_layer"]
    turned = {name: gate[::-1] for name, gate in backward.gates.items()}
    assert forward.cell == type(layer).__name__
    joined = np.concatenate([remembered(forward.gates), remembered(turned)[::-1]], axis=-1)
    assert_close(joined, seen.output[0], 1e-6)
    carried = np.concatenate([forward.carries[0], backward.carries[0]], axis=-1)
    assert_close(carried, seen.output[0], 1e-6)


@pytest.mark.slow
def test_copies_of_a_linear_recurrence_are_told_apart() -> None:
    seen = look(layers.Repeat(layers.MinGRU(WIDTH), 2))
    first, second = sorted(seen.recurrence, key=lambda trace: trace.path)
    assert_close(remembered(first.gates), first.carries[0], 1e-6)
    assert_close(remembered(second.gates), seen.output[0], 1e-6)


@pytest.mark.slow
def test_a_linear_recurrence_begins_anew_in_every_chunk() -> None:
    (trace,) = look(layers.Chunked(layers.MinGRU(WIDTH), size=4)).recurrence
    for start in (0, 4, 8):
        part = {name: gate[start : start + 4] for name, gate in trace.gates.items()}
        assert_close(remembered(part), trace.carries[0][start : start + 4], 1e-6)


@pytest.mark.slow
def test_a_layer_that_shows_nothing_is_named() -> None:
    seen = look(layers.Serial((layers.CausalConvolution(3), layers.MinGRU(WIDTH))))
    assert [trace.cell for trace in seen.recurrence] == ["MinGRU"]
    (line,) = seen.left_out
    assert line == "layers_0: CausalConvolution carries a state and shows nothing of it"


@pytest.mark.slow
def test_reference_kernels_are_exact() -> None:
    """In float64, and over a few layers: what differs in float32 is rounding."""
    mixers = [
        layers.Parallel((layers.LSTM(WIDTH), plain(window=3)), combine=layers.add),
        layers.Parallel((layers.GRU(WIDTH), layers.CrossAttention(2)), combine=layers.add),
        layers.SelfAttention(2, window=4, positions=layers.Rotary()),
        layers.MLSTM(2, chunk=4),
    ]
    blocks = [layers.Residual(layers.Serial((layers.RMSNorm(), mixer))) for mixer in mixers]
    layer = layers.Serial(tuple(blocks))
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        x, memory = (jnp.asarray(a, jnp.float64) for a in (X, MEMORY))
        context = Context(memory=memory)
        variables = jax.tree.map(
            lambda a: jnp.asarray(a + 0.3 * random.normal(size=a.shape)),
            jax.jit(layer.init)(jax.random.key(0), x, None, context),
        )
        seen = look_inside(layer, variables, x, None, context)
        fast = jax.jit(layer.apply)(variables, x, None, context)[0]
        assert fast.dtype == seen.output.dtype == jnp.float64
        assert_close(seen.output, fast, 1e-12)
