"""Encoder and decoder: steps against whole sequences, packed pairs against each alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers
from recattn_jax.layers import Context
from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel, TiedPerStep, hybrids
from tests.oracles import assert_close, assert_gradients_close

SOURCES, TARGETS = 9, 7  # words
SOURCE = jax.random.randint(jax.random.key(0), (2, 6), 0, SOURCES)
TARGET = jax.random.randint(jax.random.key(1), (2, 5), 0, TARGETS)


def model_of(encoder: layers.SequenceLayer, body: layers.SequenceLayer) -> EncoderDecoder:
    decoder = SequenceModel(layers.Embed(TARGETS, 4), body, PerStep(TARGETS))
    return EncoderDecoder(layers.Serial((layers.Embed(SOURCES, 4), encoder)), decoder)


MODELS = {
    "Bahdanau": model_of(
        hybrids.recurrent_encoder(3, depth=1), hybrids.bahdanau_decoder(5, memory=6, hidden=3)
    ),
    "Luong": model_of(hybrids.recurrent_encoder(3, depth=1), hybrids.luong_decoder(5, depth=1)),
    "Transformer": model_of(
        hybrids.transformer(2, hidden=6, depth=1, causal=False, window=None, dropout=0.0),
        hybrids.transformer_decoder(2, hidden=6, depth=2, window=5, dropout=0.0),
    ),
}


def test_comparing_is_predicting_and_comparing() -> None:
    model = MODELS["Luong"]
    variables = jax.jit(model.init)(jax.random.key(2), SOURCE, TARGET)
    contexts = Context(jnp.array([[1, 1, 1, 1, 0, 0], [1] * 6])), Context(jnp.ones_like(TARGET))
    y, state = model.apply(variables, SOURCE, TARGET, *contexts)
    given = (TARGET, SOURCE, TARGET, *contexts)
    got = model.apply(variables, lambda *compared: compared, *given, method="compare")
    assert_close(got, ((y, TARGET), state), 0.0)
    with pytest.raises(ValueError, match="target_context has a memory"):
        with_memory = Context(memory=jnp.ones((2, 3, 4)))
        model.apply(
            variables, lambda *_: (), TARGET, SOURCE, TARGET, contexts[0], with_memory,
            method="compare",
        )  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_decoding_by_steps_is_decoding_whole(name: str) -> None:
    model = MODELS[name]
    variables = jax.jit(model.init)(jax.random.key(2), SOURCE, TARGET)
    sources = Context(jnp.array([[1, 1, 1, 1, 0, 0], [1] * 6]))
    whole, _ = jax.jit(model.apply)(variables, SOURCE, TARGET, sources)

    context = model.apply(variables, SOURCE, sources, method="encode")
    assert context.prepared, "nothing was prepared of the memory"

    @jax.jit
    def step(token, state, context):
        return model.apply(variables, token, state, context, method="decode")

    def run(context):
        shapes = jax.eval_shape(lambda: step(TARGET[:, :1], None, context)[1])
        state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        outputs = []
        for t in range(TARGET.shape[1]):
            y, state = step(TARGET[:, t : t + 1], state, context)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=1)

    assert_close(run(context), whole)
    assert_close(run(context.replace(prepared={})), whole)  # preparing changes no result


@pytest.mark.parametrize("name", ["Bahdanau", pytest.param("Transformer", marks=pytest.mark.slow)])
def test_a_packed_pair_is_the_pair_alone(name: str) -> None:
    model = MODELS[name]
    variables = jax.jit(model.init)(jax.random.key(2), SOURCE, TARGET)
    pairs = [(0, slice(0, 2), slice(1, 4)), (1, slice(1, 5), slice(0, 2))]  # row, source, target
    packed_source = jnp.concatenate([SOURCE[b, s] for b, s, _ in pairs] + [jnp.array([0, 0])])[None]
    packed_target = jnp.concatenate([jnp.array([0])] + [TARGET[b, t] for b, _, t in pairs])[None]
    source_context = Context(jnp.array([[1, 1, 2, 2, 2, 2, 0, 0]]))
    target_context = Context(jnp.array([[0, 1, 1, 1, 2, 2]]))
    toward = jax.random.normal(jax.random.key(3), (1, 6, TARGETS))

    def together(variables):
        y, _ = model.apply(variables, packed_source, packed_target, source_context, target_context)
        y = jnp.where(target_context.segments[..., None] > 0, y, 0.0)
        return jnp.sum(y * toward), y[:, 1:]

    def alone(variables):
        y = [
            model.apply(variables, SOURCE[b : b + 1, s], TARGET[b : b + 1, t])[0]
            for b, s, t in pairs
        ]
        y = jnp.concatenate(y, axis=1)
        return jnp.sum(y * toward[:, 1:]), y

    (_, got), gradients = jax.jit(jax.value_and_grad(together, has_aux=True))(variables)
    (_, wanted), wanted_gradients = jax.jit(jax.value_and_grad(alone, has_aux=True))(variables)
    assert_close(got, wanted)
    assert_gradients_close(gradients, wanted_gradients)


def test_the_memory_is_what_the_encoder_puts_out() -> None:
    """An embedding alone hands over the embedded inputs, and one table serves three places."""
    embed = layers.Embed(TARGETS, 4)
    body = layers.Residual(layers.CrossAttention(heads=1))
    model = EncoderDecoder(embed, SequenceModel(embed, body, TiedPerStep(embed)))
    variables = jax.jit(model.init)(jax.random.key(2), TARGET, TARGET)
    tables = [a for a in jax.tree.leaves(variables) if a.shape == (TARGETS, 4)]
    assert len(tables) == 1
    context = model.apply(variables, TARGET, method="encode")
    assert_close(context.memory, tables[0][TARGET], 0.0)
    assert context.memory_segments is None
    # The decoder finds the table where the encoder keeps it.
    y, _ = model.apply(variables, TARGET, None, context, method="decode")
    assert_close(y, model.apply(variables, TARGET, TARGET)[0])


def test_wrong_use_says_what_to_do() -> None:
    model = MODELS["Luong"]
    variables = jax.eval_shape(model.init, jax.random.key(2), SOURCE, TARGET)
    memory = Context(memory=jnp.ones((2, 3, 6)))
    with pytest.raises(ValueError, match="target_context has a memory.*segments only"):
        jax.eval_shape(model.apply, variables, SOURCE, TARGET, Context(), memory)
    with pytest.raises(ValueError, match="no memory; pass the one that encode returned"):
        jax.eval_shape(
            lambda v: model.apply(v, TARGET, None, Context(), method="decode"), variables
        )


def test_the_worked_example_of_attention() -> None:
    """Linear maps of both sides, products, a softmax over positions, and the sum of the values."""
    inputs = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    hidden = np.array([[7.0, 8.0], [9.0, 10.0], [11.0, 12.0]])
    w_e, w_a = np.array([[0.1, 0.2], [0.3, 0.4]]), np.array([[0.5, 0.6], [0.7, 0.8]])
    e = np.array([[3.1, 4.6], [3.9, 5.8], [4.7, 7.0]])
    a = np.array([[1.9, 2.2], [4.3, 5.0], [6.7, 7.8]])
    np.testing.assert_allclose(hidden @ w_e, e)
    np.testing.assert_allclose(inputs @ w_a, a)
    weights = np.exp(e @ a.T - (e @ a.T).max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)  # over the positions of the inputs

    layer = layers.CrossAttention(heads=1, score=layers.Dot())
    params = {
        "query": {"kernel": jnp.asarray(w_e[:, None], jnp.float32)},
        "key": {"kernel": jnp.asarray(w_a[:, None], jnp.float32)},
        "value": {"kernel": jnp.asarray(w_a[:, None], jnp.float32)},
        "out": {"kernel": jnp.eye(2)[None]},
    }
    context = Context(memory=jnp.asarray(inputs[None], jnp.float32))
    x = jnp.asarray(hidden[None], jnp.float32)
    (y, _), notes = layer.apply({"params": params}, x, None, context, mutable=["intermediates"])
    assert_close(y[0], weights @ a)
    (sown,) = jax.tree.leaves(notes)
    assert_close(sown.reshape((3, 3)), weights)
