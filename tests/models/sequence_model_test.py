"""The sequence model: its state, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers
from recattn_jax.layers import Context
from recattn_jax.models import PerStep, SequenceModel

TOKENS = jax.random.randint(jax.random.key(0), (2, 7), 0, 5)


def model(body: layers.SequenceLayer, dtype=jnp.float32) -> SequenceModel:
    return SequenceModel(layers.Embed(5, 8, dtype=dtype), body, PerStep(5))


def test_going_on_from_a_state_is_running_on() -> None:
    one = model(layers.LSTM(8))
    variables = jax.jit(one.init)(jax.random.key(1), TOKENS)
    wanted, _ = one.apply(variables, TOKENS)
    first, state = one.apply(variables, TOKENS[:, :4])
    second, _ = one.apply(variables, TOKENS[:, 4:], state)
    np.testing.assert_allclose(jnp.concatenate([first, second], axis=1), wanted, atol=1e-6)


def test_a_model_that_does_not_stream_takes_its_own_empty_state() -> None:
    one = model(layers.SelfAttention(2, causal=False))
    assert not one.streams
    variables = jax.jit(one.init)(jax.random.key(1), TOKENS)
    _, state = one.apply(variables, TOKENS)
    assert state == ()
    one.apply(variables, TOKENS, state)
    with pytest.raises(ValueError, match="a state was given"):
        one.apply(variables, TOKENS, ((), jnp.ones((2, 1))))


def test_predictions_are_float32_and_segments_reach_the_layers() -> None:
    one = model(layers.LSTM(8), dtype=jnp.bfloat16)
    variables = jax.jit(one.init)(jax.random.key(1), TOKENS)
    segments = jnp.array([[1, 1, 1, 2, 2, 2, 2]] * 2)
    logits, _ = one.apply(variables, TOKENS, None, Context(segments=segments))
    alone, _ = one.apply(variables, TOKENS[:, 3:])
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits[:, 3:], alone, atol=1e-2)
