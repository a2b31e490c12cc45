"""Wrong use of layers says what to do, in one line."""

import operator

import jax
import jax.numpy as jnp
import pytest

from recattn_jax import layers
from recattn_jax.layers import Context

X = jnp.ones((2, 3, 8))
SHARED, GATE = layers.LSTM(8), layers.Gate()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: layers.Serial((SHARED, SHARED)), "the same LSTM instance stands twice.*Repeat"),
        (
            lambda: layers.Parallel((SHARED, layers.Residual(SHARED)), combine=layers.add),
            "the same LSTM instance stands twice.*Repeat",
        ),
        (lambda: layers.SelfAttention(3), "heads=3 must divide the width of x, which is 8"),
        (lambda: layers.SelfAttention(2, window=0), "window=0 must be at least 1"),
        (lambda: layers.Residual(layers.Dense(4)), "maps width 8 to 4; they must be equal"),
        (lambda: layers.Repeat(layers.LSTM(8), depth=0), "depth=0 must be at least 1"),
        (
            lambda: layers.Parallel((layers.LSTM(1), layers.Identity()), combine=layers.add),
            "outputs must be equally wide, got widths 1, 8",
        ),
        (
            lambda: layers.Serial(
                (
                    layers.Parallel((layers.LSTM(8), layers.Identity()), combine=GATE),
                    layers.Parallel((layers.LSTM(8), layers.Identity()), combine=GATE),
                )
            ),
            "the same Gate instance stands twice",
        ),
        (lambda: layers.Bidirectional(SHARED, SHARED), "the same LSTM instance stands twice.*Tied"),
        (lambda: layers.Tied(layers.LSTM(8), times=0), "Tied: times=0 must be at least 1"),
        (lambda: layers.stack(layers.LSTM, 8, depth=0), "stack: depth=0 must be at least 1"),
        (lambda: layers.Chunked(layers.LSTM(8), size=0), "Chunked: size=0 must be at least 1"),
        (lambda: layers.Local(layers.LSTM(8), window=0), "Local: window=0 must be at least 1"),
        (
            lambda: layers.Feedback(layers.SelfAttention(2), features=8),
            r"Feedback: body \(SelfAttention\) must stream",
        ),
        (
            lambda: layers.Feedback(layers.LSTM(8), features=4),
            "Feedback: features=4 must be the width of the body.s output, which is 8",
        ),
        (
            lambda: layers.BlockRecurrent(
                layers.LSTM(8), layers.CrossAttention(2), layers.add, slots=0, block=4
            ),
            "BlockRecurrent: slots=0 must be at least 1",
        ),
        (
            lambda: layers.BlockRecurrent(
                layers.SelfAttention(2), layers.CrossAttention(2), layers.add, slots=2, block=4
            ),
            r"BlockRecurrent: reader \(SelfAttention\) must stream",
        ),
        (lambda: layers.Embed(5, 4), r"x must be token ids \[B, T\], got float32"),
        (lambda: layers.Dropout(1.0), "rate=1.0 must be at least 0 and less than 1"),
    ],
)
def test_wrong_layers(make, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        jax.jit(make().init)(jax.random.key(0), X)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("x", "state", "context", "says"),
    [
        (X[0], None, Context(), r"x must be float \[B, T, D\].*got float32\[3, 8\]"),
        (X, None, Context(segments=jnp.ones((2, 4), int)), r"segments must be \[B, T\] = \[2, 3\]"),
        (X, (), Context(), "state must be a tuple of 2 states"),
        (X[..., 0].astype(int), None, Context(), "x must be float.*put an Embed before it"),
        (X, ((), ()), Context(), "LSTM: state must be a RecurrentState of 2 arrays"),
    ],
)
def test_wrong_calls(x, state, context, says: str) -> None:
    layer = layers.Serial((layers.LSTM(8), layers.Dense(2)))
    variables = jax.jit(layer.init)(jax.random.key(0), X)
    with pytest.raises(ValueError, match=says):
        layer.apply(variables, x, state, context)


def test_dropout_is_the_presence_of_a_stream() -> None:
    layer, x = layers.Dropout(0.25), jnp.ones((4, 100, 8))
    assert (layer.apply({}, x)[0] == x).all()
    y, _ = layer.apply({}, x, rngs={"dropout": jax.random.key(0)})
    assert set(jnp.unique(y).tolist()) == {0.0, float(jnp.float32(1.0) / jnp.float32(0.75))}
    assert float((y == 0).mean()) == pytest.approx(0.25, abs=0.03)


def test_dropout_obeys_padding_and_dtype_while_it_drops() -> None:
    layer, rngs = layers.Dropout(0.5), {"dropout": jax.random.key(0)}
    context = Context(segments=jnp.array([[0, 1, 1], [2, 2, 0]]))
    dirty = jnp.where(context.segments[..., None] > 0, X, jnp.nan).astype(jnp.bfloat16)
    y, _ = layer.apply({}, dirty, None, context, rngs=rngs)
    assert y.dtype == jnp.bfloat16
    assert set(jnp.unique(y).tolist()) == {0.0, 2.0}
    assert not y[context.segments == 0].any()


def test_dropout_differs_between_the_copies_of_a_repeat() -> None:
    layer = layers.Repeat(layers.Dropout(0.5), depth=2)
    x = jnp.ones((4, 100, 8))
    y, _ = layer.apply({}, x, rngs={"dropout": jax.random.key(0)})
    assert float((y > 0).mean()) == pytest.approx(0.25, abs=0.03)  # one mask twice would keep half


def test_a_repeat_is_its_layers_in_turn() -> None:
    block = layers.Residual(layers.RNN(8))
    layer = layers.Repeat(block, depth=3)
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    wanted = x
    for depth in range(3):
        (params,) = variables["params"].values()
        own = jax.tree.map(operator.itemgetter(depth), params)
        wanted = block.apply({"params": own}, wanted)[0]
    y, _ = layer.apply(variables, x)
    assert jnp.allclose(y, wanted, atol=1e-6)


def test_intermediates_pass_through_a_repeat() -> None:
    class Notes(layers.Identity):
        def map(self, x):
            self.sow("intermediates", "seen", x)
            return x

    layer = layers.Repeat(Notes(), depth=3)
    _, notes = layer.apply({}, X, mutable=["intermediates"])
    assert jax.tree.leaves(notes)[0].shape == (3, *X.shape)


def test_a_repeat_refuses_a_foreign_state() -> None:
    layer = layers.Repeat(layers.LSTM(8), depth=2)
    variables = jax.jit(layer.init)(jax.random.key(0), X)
    with pytest.raises(ValueError, match="Repeat: state must be a Stacked.*got tuple"):
        layer.apply(variables, X, ((), ()))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Chunked(layers.LSTM(8), size=2),
        layers.Local(layers.LSTM(8), window=2),
        layers.Feedback(layers.LSTM(8), features=8),
        layers.AttendToInput(layers.RNN(8), layers.SelfAttention(2, window=2), layers.add),
        layers.BlockRecurrent(
            layers.LSTM(8), layers.CrossAttention(2), layers.add, slots=1, block=2
        ),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_states_of_other_layers_and_batches_are_refused(layer) -> None:
    name = type(layer).__name__
    variables = jax.jit(layer.init)(jax.random.key(0), X)
    with pytest.raises(ValueError, match=f"{name}: state must be a .*got list"):
        layer.apply(variables, X, [jnp.ones((2, 1))])
    state = layers.zero_state(layer, variables, X)
    with pytest.raises(ValueError, match=f"{name}: state is for a batch of 2, x has 1"):
        layer.apply(variables, X[:1], state)


def test_a_repeat_refuses_the_state_of_another_depth() -> None:
    state = layers.zero_state(*started(layers.Repeat(layers.LSTM(8), depth=3)), X)
    layer, variables = started(layers.Repeat(layers.LSTM(8), depth=2))
    with pytest.raises(ValueError, match="Repeat: state is for depth=3, but the layer has depth=2"):
        layer.apply(variables, X, state)


def started(layer):
    return layer, jax.jit(layer.init)(jax.random.key(0), X)


def test_map_batch_hides_the_depth() -> None:
    deep = layers.Repeat(layers.Repeat(layers.LSTM(8), depth=4), depth=3)
    layer = layers.Serial((layers.LSTM(8), deep))
    variables = jax.jit(layer.init)(jax.random.key(0), X)
    state = layers.zero_state(layer, variables, X)
    one = layers.map_batch(lambda leaf: leaf[:1], state)
    y, _ = layer.apply(variables, X[:1], one)
    assert y.shape == (1, 3, 8)
