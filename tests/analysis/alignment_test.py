"""A map shows what a model looks at: one that learned to reverse looks where it must."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recattn_jax import layers
from recattn_jax.analysis.inside import look_inside
from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel

LENGTH, SYMBOLS, WIDTH = 6, 10, 16


def reverser() -> EncoderDecoder:
    """Its memory holds each token at its place and no more, so there is one place to look at."""
    look = layers.Parallel((layers.Identity(), layers.CrossAttention(1)), combine=layers.concat)
    body = layers.Serial((layers.GRU(WIDTH), look))
    source = layers.Serial((layers.Embed(SYMBOLS, WIDTH), layers.LearnedPositions(LENGTH)))
    target = SequenceModel(layers.Embed(SYMBOLS + 1, WIDTH), body, PerStep(SYMBOLS))
    return EncoderDecoder(source, target)


def draw(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, the targets after their start, and the targets."""
    source = random.integers(0, SYMBOLS, size=(rows, LENGTH))
    target = source[:, ::-1]
    start = np.full((rows, 1), SYMBOLS)
    return source, np.concatenate([start, target[:, :-1]], axis=1), target


@pytest.mark.slow
def test_the_map_of_a_reverser_is_the_alignment() -> None:
    model, random = reverser(), np.random.default_rng(0)
    optimizer = optax.adam(0.01)

    @jax.jit
    def step(variables, state, source, given, wanted):
        def loss(variables):
            logits, _ = model.apply(variables, source, given)
            nats = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
            return nats.mean(), jnp.mean(logits.argmax(-1) == wanted)

        (_, right), gradient = jax.value_and_grad(loss, has_aux=True)(variables)
        change, state = optimizer.update(gradient, state)
        return optax.apply_updates(variables, change), state, right

    variables = jax.jit(model.init)(jax.random.key(0), *map(jnp.asarray, draw(random, 1)[:2]))
    state = optimizer.init(variables)
    for _ in range(600):
        variables, state, right = step(variables, state, *draw(random, 32))
    assert right > 0.99
    hits = []
    for _ in range(6):
        source, given, _ = draw(random, 1)
        (only,) = look_inside(model, variables, jnp.asarray(source), jnp.asarray(given)).attention
        hits += list(only.weights[0].argmax(-1) == np.arange(LENGTH)[::-1])
    assert np.mean(hits) >= 0.95
