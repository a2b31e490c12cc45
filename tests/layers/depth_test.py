"""Combinators over depth: the same values as layers in turn, compiled once or computed again."""

import operator

import jax
import jax.numpy as jnp
import pytest

from recattn_jax import layers
from recattn_jax.layers import Context
from tests.layers.time_test import B, D, Noted, T, compare, started
from tests.oracles import assert_close

X = jax.random.normal(jax.random.key(0), (B, T, D))


def test_tied_applies_one_layer_with_a_state_for_each() -> None:
    block = layers.Residual(layers.RNN(D))

    def wanted(variables, x):
        own = {"params": variables["params"]["layer"]}
        for _ in range(3):
            x, _ = block.apply(own, x)
        return x

    layer = layers.Tied(block, times=3)
    compare(layer, wanted)
    _, state = layer.apply(started(layer, X), X)
    assert state.layers.carry[0].shape == (3, B, D)


def test_remat_keeps_values_and_saves_memory() -> None:
    block = layers.Residual(layers.Serial((layers.RNN(D), layers.GatedMLP(64))))

    def wanted(variables, x):
        return block.apply({"params": variables["params"]["layer"]}, x)[0]

    layer = layers.Remat(block)
    compare(layer, wanted)
    variables = started(layer, X)

    def kept(f) -> int:
        """Numbers that the forward pass keeps for the backward pass."""
        _, pull = jax.eval_shape(lambda x: jax.vjp(f, x), X)
        return sum(leaf.size for leaf in jax.tree.leaves(pull))

    assert kept(lambda x: layer.apply(variables, x)[0]) < kept(lambda x: wanted(variables, x))


def peak(layer, x) -> int:
    """Bytes that a program for the gradient needs beside what goes in and comes out."""
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)

    def loss(variables, x):
        return jnp.sum(layer.apply(variables, x)[0] ** 2)

    program = jax.jit(jax.grad(loss, (0, 1))).lower(variables, x).compile()
    return program.memory_analysis().temp_size_in_bytes


def test_a_stack_of_remat_keeps_one_output_a_layer() -> None:
    x = jax.ShapeDtypeStruct((8, 32, 32), jnp.float32)
    kept = x.size * 4
    block = layers.Residual(layers.Serial((layers.RMSNorm(), layers.GatedMLP(128))))

    def a_layer(inner) -> float:
        """Bytes that one more layer needs, in outputs of a layer."""
        two, eight = (peak(layers.Repeat(inner, depth), x) for depth in (2, 8))
        return (eight - two) / 6 / kept

    assert a_layer(block) > 4 * 3  # three hidden activations of the MLP, each four times as wide
    assert a_layer(layers.Remat(block)) < 1.1
    assert peak(layers.Repeat(layers.Remat(block), 8), x) < peak(layers.Repeat(block, 8), x) / 3


def test_a_stack_of_remat_has_the_gradients_of_the_stack() -> None:
    block = layers.Residual(layers.Serial((layers.RMSNorm(), layers.RNN(D), layers.GatedMLP(8))))
    plain = layers.Repeat(block, depth=3)

    def wanted(variables, x):
        stacked = variables["params"]["stacked"]["layer"]
        return plain.apply({"params": {"stacked": stacked}}, x)[0]

    compare(layers.Repeat(layers.Remat(block), depth=3), wanted)


def test_a_recurrence_that_computes_again_keeps_less() -> None:
    x = jax.ShapeDtypeStruct((8, 256, 32), jnp.float32)
    assert peak(layers.LSTM(32, remat_every=16), x) < peak(layers.LSTM(32), x) / 2


@pytest.mark.parametrize(
    ("wrap", "copies"),
    [
        (lambda inner: layers.Repeat(inner, depth=3), 3),
        (lambda inner: layers.Tied(inner, times=3), 3),
        (layers.Remat, 1),
    ],
)
def test_every_copy_notes_and_draws_its_own(wrap, copies: int) -> None:
    rngs = {"dropout": jax.random.key(1), "variational": jax.random.key(2)}
    _, notes = wrap(Noted()).apply({}, X[..., :2], rngs=rngs, mutable=["intermediates"])
    (inner,) = notes["intermediates"].values()
    assert inner["seen"][0].size == copies * X[..., :2].size
    for name in ("dropout", "variational"):
        assert len(set(jnp.ravel(inner[name][0]).tolist())) == copies


def test_a_repeat_prepares_every_copy() -> None:
    block = layers.Residual(layers.CrossAttention(2))
    context = Context(memory=jax.random.normal(jax.random.key(5), (B, 6, 3)))
    layer = layers.Repeat(layers.Repeat(block, depth=2), depth=3)
    variables = started(layer, X, context)
    prepared = layer.apply(variables, context, method="prepare")
    assert prepared.prepared
    blind = prepared.replace(memory=jnp.zeros_like(context.memory))
    y, _ = layer.apply(variables, X, None, blind)
    wanted = X
    for outer in range(3):
        for inner in range(2):
            own = jax.tree.map(
                operator.itemgetter((outer, inner)), variables["params"]["stacked"]["stacked"]
            )
            wanted, _ = block.apply({"params": own}, wanted, None, context)
    assert_close(y, wanted)
    again = layer.apply(variables, blind, method="prepare")  # made once is made for good
    assert_close(again.prepared, prepared.prepared)


def test_depth_does_not_make_programs_longer() -> None:
    def lines(wrap, depth: int) -> int:
        layer = wrap(layers.Serial((layers.RNN(D), layers.Dense(D))), depth)
        variables = jax.jit(layer.init)(jax.random.key(0), X)
        return len(jax.jit(layer.apply).lower(variables, X).as_text().splitlines())

    for wrap in (layers.Repeat, layers.Tied):
        assert lines(wrap, 2) == lines(wrap, 8)


def test_a_stack_drops_out_between_its_layers() -> None:
    stack = layers.stack(layers.RNN, features=4, depth=3, dropout=0.5)
    assert [type(layer).__name__ for layer in stack.layers] == [
        "RNN",
        "Dropout",
        "RNN",
        "Dropout",
        "RNN",
    ]
