import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from recattn_jax.decoding import PREFILL_BLOCK, Sampler, generate, generate_batch, prefill
from recattn_jax.decoding import generation as generation_module
from recattn_jax.errors import UserError
from recattn_jax.layers.base import Context

V = 11
SEPARATOR = V - 1
GREEDY = Sampler(temperature=0.0, top_k=None, top_p=None)


TRACES = []  # the shape of the inputs whenever the toy's Python code is run


class Toy(nn.Module):
    """Logits from a decaying sum over the document."""

    streams: bool = True

    @nn.compact
    def __call__(self, inputs, state=None, context=Context()):
        TRACES.append(inputs.shape)
        batch = inputs.shape[0]
        embedded = nn.Embed(V, V, embedding_init=nn.initializers.normal(2.0))(inputs)
        segments = context.segments
        if segments is None:
            segments = jnp.ones(inputs.shape, jnp.int32)
        if state is None:
            state = {"sum": jnp.zeros((batch, V)), "segment": jnp.zeros(batch, jnp.int32)}

        def step(state, now):
            vector, segment = now
            padding = segment == 0
            decayed = 0.7 * jnp.where((segment == state["segment"])[:, None], state["sum"], 0)
            total = jnp.where(padding[:, None], state["sum"], decayed + vector)
            last = jnp.where(padding, state["segment"], segment)
            return {"sum": total, "segment": last}, jnp.where(padding[:, None], 0, total)

        state, outputs = jax.lax.scan(
            step, state, (embedded.swapaxes(0, 1), jnp.asarray(segments).T)
        )
        return outputs.swapaxes(0, 1), state


def toy(**fields):
    model = Toy(**fields)
    params = jax.jit(Toy().init)(jax.random.key(3), jnp.zeros((1, 1), jnp.int32))["params"]
    return model, params


def continuation(model, params, prompt, n_tokens, sampler=GREEDY, seed=0, stop=False):
    return list(
        generate(
            model,
            params,
            prompt,
            separator=SEPARATOR,
            n_tokens=n_tokens,
            sampler=sampler,
            seed=seed,
            stop_at_separator=stop,
        )
    )


def by_whole_sequences(model, params, prompt, n_tokens):
    """Greedy continuation that runs the whole sequence again for every symbol."""
    ids = [SEPARATOR, *prompt]
    for _ in range(n_tokens):
        segments = np.cumsum(np.array(ids) == SEPARATOR)[None].astype(np.int32)
        inputs = jnp.asarray([ids], jnp.int32)
        logits, _ = model.apply({"params": params}, inputs, None, Context(segments=segments))
        ids.append(int(jnp.argmax(logits[0, -1])))
    return ids[1 + len(prompt) :]


@pytest.mark.parametrize("length", [0, 1, PREFILL_BLOCK - 1, PREFILL_BLOCK, PREFILL_BLOCK + 1])
def test_prompts_of_any_length_continue_as_the_whole_sequence_does(length):
    model, params = toy()
    prompt = np.random.default_rng(length).integers(0, SEPARATOR, length).tolist()
    assert continuation(model, params, prompt, 8) == by_whole_sequences(model, params, prompt, 8)


def test_a_separator_starts_a_new_document():
    model, params = toy()
    # A prompt that ends in a separator must continue as an empty one does.
    assert continuation(model, params, [1, 2, SEPARATOR], 6) == continuation(model, params, [], 6)


def test_a_separator_that_is_stepped_starts_a_new_document_too():
    model, params = toy()
    variables = {"params": params}
    ids = np.array([[SEPARATOR, 1, 2, SEPARATOR]], np.int32)
    segments = np.array([[1, 1, 1, 2]], np.int32)
    logits, whole = prefill(model, variables, ids, segments)
    _, before = prefill(model, variables, ids[:, :3], segments[:, :3])
    separator, first = jnp.array([SEPARATOR], jnp.int32), jnp.array([1], jnp.int32)
    token, (stepped, segment) = generation_module._step(
        model, GREEDY, SEPARATOR, variables, separator, (before, first), jax.random.key(0)
    )
    assert token[0] == jnp.argmax(logits[0]) and segment[0] == 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), stepped, whole)


def test_generation_can_stop_at_the_end_of_the_document():
    model, params = toy()
    hot = Sampler(temperature=3.0, top_k=None, top_p=None)
    endless = [continuation(model, params, [], 20, hot, seed) for seed in range(8)]
    stopped = [continuation(model, params, [], 20, hot, seed, stop=True) for seed in range(8)]
    assert any(SEPARATOR in ids for ids in endless)
    for whole, part in zip(endless, stopped, strict=True):
        end = whole.index(SEPARATOR) if SEPARATOR in whole else len(whole)
        assert part == whole[:end]


def test_one_compilation_serves_every_position_and_every_prompt():
    model, params = toy()
    ids = generate(
        model, params, [1, 2, 3], separator=SEPARATOR, n_tokens=40, sampler=GREEDY, seed=0,
        stop_at_separator=False,
    )  # fmt: skip
    next(ids), next(ids)
    TRACES.clear()
    assert len(list(ids)) == 38
    for length in (0, 5, 3 * PREFILL_BLOCK):
        continuation(model, params, [1] * length, 4)
    # zero_state asks for shapes once a call, through eval_shape; nothing else is traced again.
    assert len(TRACES) <= 3 and set(TRACES) <= {(1, 1)}


def test_the_state_keeps_its_structure_shapes_and_dtypes():
    model, params = toy()
    variables = {"params": params}
    ids = np.array([[SEPARATOR, 1, 2]], np.int32)
    _, state = prefill(model, variables, ids, np.ones_like(ids))
    step = generation_module._step
    token, segment = jnp.array([1], jnp.int32), jnp.array([1], jnp.int32)
    before = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    _, (stepped, _) = step(
        model, GREEDY, SEPARATOR, variables, token, (state, segment), jax.random.key(0)
    )
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), stepped) == before


def test_the_seed_decides():
    model, params = toy()
    sampler = Sampler(temperature=2.0, top_k=None, top_p=None)
    runs = [continuation(model, params, [1], 30, sampler, seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    assert len(set(itertools.chain(*runs))) > 3


def test_a_longer_continuation_begins_with_the_shorter_one():
    model, params = toy()
    sampler = Sampler(temperature=2.0, top_k=5, top_p=0.9)
    long = continuation(model, params, [1], 12, sampler)
    assert continuation(model, params, [1], 7, sampler) == long[:7]
    assert continuation(model, params, [1], 0, sampler) == []


def test_a_model_that_does_not_stream_is_refused_before_anything_is_asked_for():
    model, params = toy(streams=False)
    with pytest.raises(UserError, match="does not stream"):
        generate(
            model, params, [], separator=SEPARATOR, n_tokens=1, sampler=GREEDY, seed=0,
            stop_at_separator=False,
        )  # fmt: skip


def batch(model, params, prompts, n_tokens, sampler=GREEDY, seed=0, stop=False):
    return generate_batch(
        model, params, prompts, separator=SEPARATOR, n_tokens=n_tokens, sampler=sampler, seed=seed,
        stop_at_separator=stop,
    )  # fmt: skip


def test_prompts_of_several_lengths_continue_together_as_each_alone():
    model, params = toy()
    rng = np.random.default_rng(0)
    lengths = (3, 0, PREFILL_BLOCK + 9, 1)
    prompts = [rng.integers(0, V, length).tolist() for length in lengths]
    wanted = [continuation(model, params, prompt, 8) for prompt in prompts]
    assert batch(model, params, prompts, 8) == wanted
    assert batch(model, params, [[], []], 3) == [wanted[1][:3]] * 2
    assert batch(model, params, prompts, 0) == [[]] * 4 and batch(model, params, [], 5) == []


def test_a_batch_of_one_draws_what_a_stream_draws():
    model, params = toy()
    hot = Sampler(temperature=3.0, top_k=None, top_p=None)
    for stop in (False, True):
        streamed = [continuation(model, params, [1], 20, hot, seed, stop) for seed in range(8)]
        assert [
            batch(model, params, [[1]], 20, hot, seed, stop)[0] for seed in range(8)
        ] == streamed
    assert len({len(ids) for ids in streamed}) > 1, "some should stop"
