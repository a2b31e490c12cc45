"""Steps against whole sequences, on real layers: a hybrid of recurrence and attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.decoding import PREFILL_BLOCK, Sampler, generate, generation, prefill
from recattn_jax.errors import UserError
from recattn_jax.layers import (
    LSTM,
    RNN,
    Context,
    Embed,
    Parallel,
    Repeat,
    Residual,
    RMSNorm,
    SelfAttention,
    Serial,
    add,
)
from recattn_jax.models import PerStep, SequenceModel

V = 13
SEPARATOR = V - 1
WINDOW = 12
GREEDY = Sampler(temperature=0.0, top_k=None, top_p=None)


def parallel():
    return Parallel((LSTM(16), SelfAttention(heads=2, window=WINDOW)), combine=add)


BODIES = {
    "LSTM and attention side by side": parallel(),
    "attention over an RNN, stacked": Serial(
        (
            RNN(16),
            Repeat(Residual(Serial((RMSNorm(), SelfAttention(heads=2, window=WINDOW)))), depth=2),
        )
    ),
}


def model_of(body):
    model = SequenceModel(frontend=Embed(V, 16), body=body, readout=PerStep(V))
    params = jax.jit(model.init)(jax.random.key(2), jnp.zeros((1, 2), jnp.int32))["params"]
    # Larger weights, so that the most likely symbol is not a matter of rounding; and no separator
    # of its own, which would make it forget.
    params = jax.tree.map(lambda leaf: 2.5 * leaf, params)
    params["readout"]["bias"] = params["readout"]["bias"].at[SEPARATOR].set(-100.0)
    return model, params


def continuation(model, params, prompt, n_tokens):
    return list(
        generate(
            model,
            params,
            prompt,
            separator=SEPARATOR,
            n_tokens=n_tokens,
            sampler=GREEDY,
            seed=0,
            stop_at_separator=False,
        )
    )


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_greedy_by_steps_is_greedy_by_whole_sequences(body):
    model, params = model_of(body)
    n_tokens, longest = 3 * WINDOW, PREFILL_BLOCK + 37
    compiled = (generation._read_block, generation._step)
    before = [function._cache_size() for function in compiled]

    @jax.jit
    def logits_after(ids_T, length):
        segments_T = jnp.cumsum(ids_T == SEPARATOR) * (jnp.arange(len(ids_T)) < length)
        context = Context(segments=segments_T[None])
        logits_BTV, _ = model.apply({"params": params}, ids_T[None], None, context)
        return logits_BTV[0, length - 1]

    for prompt_length in (0, longest):
        prompt = np.random.default_rng(0).integers(0, V, prompt_length).tolist()
        ids_T = np.zeros(1 + longest + n_tokens, np.int32)
        ids_T[: 1 + prompt_length] = [SEPARATOR, *prompt]
        whole = slice(1 + prompt_length, 1 + prompt_length + n_tokens)
        for length in range(whole.start, whole.stop):
            ids_T[length] = np.argmax(logits_after(ids_T, length))
        assert continuation(model, params, prompt, n_tokens) == ids_T[whole].tolist()
        assert len(set(ids_T[whole].tolist())) > 3
    # One program for every block of every prompt, and one for every step.
    assert [function._cache_size() for function in compiled] == [n + 1 for n in before]


def test_the_state_after_a_prompt_is_that_of_any_prompt():
    model, params = model_of(BODIES["attention over an RNN, stacked"])
    variables = {"params": params}

    def shapes(length):
        ids = np.full((1, length), 1, np.int32)
        _, state = prefill(model, variables, ids, np.ones_like(ids))
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)

    assert shapes(1) == shapes(WINDOW) == shapes(2 * PREFILL_BLOCK + 1)


def test_full_attention_is_refused():
    body = Parallel((LSTM(16), SelfAttention(heads=2)), combine=add)
    model = SequenceModel(frontend=Embed(V, 16), body=body, readout=PerStep(V))
    with pytest.raises(UserError, match="SequenceModel.*does not stream"):
        continuation(model, {}, [], 1)
