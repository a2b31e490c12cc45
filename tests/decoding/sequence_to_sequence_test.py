"""Decoding of real models against whole sequences, which know nothing of steps."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers
from recattn_jax.decoding import (
    Beam,
    Sampler,
    Translator,
    best_translations,
    decoder_step,
    fresh_state,
    translate,
    watched_decoder_step,
)
from recattn_jax.errors import UserError
from recattn_jax.layers import Context
from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel, hybrids

SOURCES, V, L, START, STOP = 9, 7, 6, 6, 0
B, S = 3, 5
GREEDY = Sampler(temperature=0.0, top_k=None, top_p=None)
SOURCE = np.random.default_rng(0).integers(1, SOURCES, (B, S)).astype(np.int32)
SEGMENTS = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], np.int32)
KEY = jax.random.key(0)
# Chosen so that greedy targets differ between the rows, and in their lengths too.
SEEDS = {"Luong": 6, "Transformer": 1, "Bahdanau": 0, "Location": 2}


def model_of(encoder: layers.SequenceLayer, body: layers.SequenceLayer) -> EncoderDecoder:
    decoder = SequenceModel(layers.Embed(V, 4), body, PerStep(V))
    return EncoderDecoder(layers.Serial((layers.Embed(SOURCES, 4), encoder)), decoder)


MODELS = {
    "Luong": model_of(layers.RNN(4), hybrids.luong_decoder(4, depth=1)),
    "Transformer": model_of(
        layers.RNN(4), hybrids.transformer_decoder(2, hidden=6, depth=2, window=L, dropout=0.0)
    ),
    "Bahdanau": model_of(
        hybrids.recurrent_encoder(3, depth=1), hybrids.bahdanau_decoder(5, memory=6, hidden=3)
    ),
    "Location": model_of(
        layers.RNN(4), layers.Serial((layers.LSTM(4), layers.LocationAttention(4, 2, width=3)))
    ),
}
SOME = pytest.mark.parametrize(
    "name",
    ["Luong", "Transformer", *(pytest.param(n, marks=pytest.mark.slow) for n in list(MODELS)[2:])],
)


@functools.cache
def variables_of(name):
    model = MODELS[name]
    variables = jax.jit(model.init)(jax.random.key(SEEDS[name]), SOURCE, SOURCE[:, :1] % V)
    # Larger weights, so that the most likely symbol depends on the source and is no rounding.
    return jax.tree.map(lambda leaf: 3.0 * leaf, variables)


@functools.cache
def whole(name):
    """Logits of all steps at once, from `[B, S]` and `[B, T]`; and what attention noted."""
    variables = variables_of(name)

    @jax.jit
    def run(source, segments, inputs):
        (logits, _), notes = MODELS[name].apply(
            variables,
            source,
            inputs,
            Context(segments=segments),
            mutable=["intermediates"],
        )
        return logits, notes["intermediates"]["decoder"]

    return run


def log_probabilities(name, ids, source=SOURCE, segments=SEGMENTS):
    """`[B, L]`, of each id given the source and those before it."""
    inputs = np.concatenate([np.full_like(ids[:, :1], START), ids[:, :-1]], axis=1)
    logits, _ = whole(name)(source, segments, inputs)
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    return np.take_along_axis(log_p, ids[..., None], axis=-1)[..., 0]


def lengths_of(ids):
    """Symbols up to the stop, which counts."""
    return np.where((ids == STOP).any(1), (ids == STOP).argmax(1) + 1, ids.shape[1])


def rescored(name, ids, alpha):
    lengths = lengths_of(ids)
    real = np.arange(ids.shape[1])[None] < lengths[:, None]
    log_p = np.where(real, log_probabilities(name, ids), 0.0).sum(axis=1)
    return log_p / ((5 + lengths) / 6) ** alpha


def greedy_by_whole_sequences(name):
    ids = np.full((B, L), STOP, np.int32)
    for t in range(L):
        inputs = np.concatenate([np.full((B, 1), START, np.int32), ids[:, :-1]], axis=1)
        logits, _ = whole(name)(SOURCE, SEGMENTS, inputs)
        ended = (ids[:, :t] == STOP).any(axis=1)
        ids[:, t] = np.where(ended, STOP, np.argmax(logits[:, t], axis=-1))
    return ids


def decode(name, search, key=KEY, source=SOURCE, segments=SEGMENTS, max_length=L):
    return np.asarray(
        translate(
            MODELS[name], variables_of(name), source, segments, start=START, stop=STOP,
            max_length=max_length, search=search, key=key,
        )
    )  # fmt: skip


def n_best(name, beam, hypotheses, source=SOURCE, segments=SEGMENTS):
    found = best_translations(
        MODELS[name], variables_of(name), source, segments, start=START, stop=STOP,
        max_length=L, search=beam, hypotheses=hypotheses,
    )  # fmt: skip
    return jax.tree.map(np.asarray, found)


@SOME
def test_greedy_is_a_beam_of_one_and_the_whole_sequences_choice(name):
    wanted = greedy_by_whole_sequences(name)
    assert len(set(lengths_of(wanted).tolist())) > 1, "the rows should differ"
    assert decode(name, GREEDY).tolist() == wanted.tolist()
    ids, scores = n_best(name, Beam(1, 0.6, 0.0), 1)
    assert ids[:, 0].tolist() == wanted.tolist()
    np.testing.assert_allclose(scores[:, 0], rescored(name, wanted, 0.6), rtol=1e-4)


@SOME
def test_scores_are_those_of_the_whole_sequences(name):
    alpha = 0.6
    ids, scores = n_best(name, Beam(4, alpha, 0.0), 3)
    assert np.isfinite(scores).all()
    for place in range(3):
        np.testing.assert_allclose(
            scores[:, place], rescored(name, ids[:, place], alpha), rtol=1e-4
        )
    ended = (ids == STOP).any(axis=-1)
    assert (ended[:, :-1] >= ended[:, 1:]).all()
    falls = np.diff(scores, axis=1) <= 0
    assert (falls | (ended[:, :-1] != ended[:, 1:])).all()


def test_padding_of_a_source_changes_nothing():
    name, beam = "Luong", Beam(3, 0.6, 0.2)
    ids, scores = n_best(name, beam, 2)
    assert (SEGMENTS == 0).any()
    garbage = np.where(SEGMENTS > 0, SOURCE, SOURCES - 1)
    wide = [np.pad(a, ((0, 0), (0, 2))) for a in (garbage, SEGMENTS)]
    wide_ids, wide_scores = n_best(name, beam, 2, *wide)
    assert wide_ids.tolist() == ids.tolist()
    np.testing.assert_allclose(wide_scores, scores, rtol=1e-5)
    whole_row, no_segments = n_best(name, beam, 2, SOURCE[:1], None)
    assert whole_row[0].tolist() == ids[0].tolist()
    np.testing.assert_allclose(no_segments[0], scores[0], rtol=1e-5)


def test_rows_that_have_ended_stay_ended():
    hot = Sampler(temperature=3.0, top_k=None, top_p=None)
    ids = np.concatenate([decode("Luong", hot, jax.random.key(seed)) for seed in range(8)])
    lengths = lengths_of(ids)
    assert len(set(lengths.tolist())) > 3
    for row, length in zip(ids, lengths, strict=True):
        assert (row[length:] == STOP).all()


def allowed_by_top_p(log_p, p):
    falling = np.argsort(-log_p)
    before = np.cumsum(np.exp(log_p[falling])) - np.exp(log_p[falling])
    return set(falling[before < p].tolist())


@pytest.mark.parametrize("sampler", [Sampler(2.0, 2, None), Sampler(1.0, None, 0.6)])
def test_samplers_keep_to_what_they_allow_in_every_row(sampler):
    name, seen = "Luong", set()
    for seed in range(6):
        ids = decode(name, sampler, jax.random.key(seed))
        seen |= {(row, *each) for row, each in enumerate(ids.tolist())}
        inputs = np.concatenate([np.full_like(ids[:, :1], START), ids[:, :-1]], axis=1)
        logits, _ = whole(name)(SOURCE, SEGMENTS, inputs)
        log_p = np.asarray(jax.nn.log_softmax(logits / sampler.temperature), np.float64)
        for row, length in enumerate(lengths_of(ids)):
            for t in range(length):
                if sampler.top_k is None:
                    allowed = allowed_by_top_p(log_p[row, t], sampler.top_p)
                else:
                    allowed = set(np.argsort(-log_p[row, t])[: sampler.top_k].tolist())
                assert ids[row, t] in allowed
    assert len(seen) > 2 * B, "the draws should differ"
    assert decode(name, sampler).tolist() == decode(name, sampler).tolist()


def test_one_compilation_serves_every_batch():
    translator = Translator(START, STOP, max_length=L, search=GREEDY, seed=0)
    assert hash(translator) == hash(Translator(START, STOP, L, Sampler(0.0, None, None), 0))
    model, variables = MODELS["Luong"], variables_of("Luong")
    source, segments = jnp.asarray(SOURCE), jnp.asarray(SEGMENTS)
    translator(model, variables, source, segments)
    before = translate._cache_size()
    for shift in range(3):
        again = Translator(START, STOP, max_length=L, search=Sampler(0.0, None, None), seed=shift)
        again(model, variables, jnp.roll(source, shift, axis=1), segments)
    assert translate._cache_size() == before


@pytest.mark.parametrize("search", [GREEDY, Beam(2, 0.0, 0.3)], ids=["greedy", "beam"])
def test_the_source_is_read_and_prepared_once(search):
    calls = []

    def record(call, args, kwargs, context):
        method = context.method_name
        if method in ("encode", "decode") or (
            method == "split_sources" and isinstance(context.module, layers.CrossAttention)
        ):
            calls.append(method)
        return call(*args, **kwargs)

    # A width that no other test has, so that everything is traced here.
    source = np.ones((1, 4), np.int32)
    with nn.intercept_methods(record):
        decode("Transformer", search, source=source, segments=np.ones_like(source))
    assert calls.count("encode") == 1 and "decode" in calls
    prepared = [at for at, name in enumerate(calls) if name == "split_sources"]
    assert prepared and max(prepared) < calls.index("decode")


def noted(name, ids, segments=SEGMENTS):
    """`[B, T, S]`, the mean over heads and layers of what whole sequences noted."""
    inputs = np.concatenate([np.full_like(ids[:, :1], START), ids[:, :-1]], axis=1)
    _, notes = whole(name)(SOURCE, segments, inputs)
    by_path = {
        jax.tree_util.keystr(path): np.asarray(leaf, np.float64)
        for path, leaf in jax.tree_util.tree_leaves_with_path(notes)
    }
    weights = [leaf for leaf in by_path.values() if leaf.shape[-1] == S]
    (weights,) = weights
    if name in ("Luong", "Bahdanau"):  # [T, B, H, 1, S], as feedback goes step by step
        return weights.mean(axis=2)[:, :, 0].swapaxes(0, 1)
    if name == "Location":  # [B, T, S]
        return weights
    return weights.mean(axis=(0, 2))  # [depth, B, H, T, S]


@SOME
def test_a_watched_step_says_what_whole_sequences_note(name):
    model, variables = MODELS[name], variables_of(name)
    source, segments = jnp.asarray(SOURCE), jnp.asarray(SEGMENTS)
    context = model.apply(variables, source, Context(segments=segments), method="encode")
    ids = np.random.default_rng(1).integers(0, V, (B, L)).astype(np.int32)
    wanted = noted(name, ids)

    @jax.jit
    def looks(ids_BT):
        plain, watched = (
            f(model, variables, context) for f in (decoder_step, watched_decoder_step)
        )
        state = fresh_state(plain, ids_BT[:, 0])
        _, (logits, looked) = jax.lax.scan(
            lambda state, token: (lambda y: (y.state, (y.logits, y.looked)))(watched(token, state)),
            state,
            ids_BT.T,
        )
        return logits, looked

    inputs = np.concatenate([np.full_like(ids[:, :1], START), ids[:, :-1]], axis=1)
    logits, looked = looks(inputs)
    np.testing.assert_allclose(looked.swapaxes(0, 1), wanted, atol=1e-5)
    np.testing.assert_allclose(looked.sum(axis=-1), 1.0, rtol=1e-5)
    wanted_logits, _ = whole(name)(SOURCE, SEGMENTS, inputs)
    np.testing.assert_allclose(logits.swapaxes(0, 1), wanted_logits, atol=1e-4)


def test_coverage_is_the_formula_on_what_whole_sequences_note():
    name, beam = "Transformer", Beam(3, 0.6, 0.4)
    ids, scores = n_best(name, beam, 2)
    for place in range(2):
        chosen = ids[:, place]
        real = np.arange(L)[None] < lengths_of(chosen)[:, None]
        coverage = np.where(real[..., None], noted(name, chosen), 0.0).sum(axis=1)
        log = np.log(np.minimum(coverage, 1.0), where=SEGMENTS > 0, out=np.zeros((B, S)))
        wanted = rescored(name, chosen, 0.6) + 0.4 * log.sum(axis=1)
        assert (log.sum(axis=1) < -0.1).any(), "nothing is uncovered"
        np.testing.assert_allclose(scores[:, place], wanted, rtol=1e-4)


def test_models_that_cannot_be_decoded_are_refused():
    deaf = model_of(layers.RNN(4), layers.LSTM(4))
    blind = model_of(layers.RNN(4), layers.Residual(layers.SelfAttention(2)))

    def run(model, search):
        shapes = jax.eval_shape(model.init, KEY, SOURCE, SOURCE[:, :1] % V)
        call = functools.partial(
            translate, model, start=START, stop=STOP, max_length=L, search=search, key=KEY
        )
        return jax.eval_shape(call, shapes, SOURCE, SEGMENTS)

    run(deaf, Beam(2, 0.0, 0.0))
    with pytest.raises(UserError, match="CrossAttention.*set coverage_penalty to 0") as refused:
        run(deaf, Beam(2, 0.0, 0.2))
    assert "\n" not in str(refused.value)
    for search in (GREEDY, Beam(2, 0.0, 0.0)):
        with pytest.raises(UserError, match="EncoderDecoder.*does not stream"):
            run(blind, search)
    with pytest.raises(UserError, match="max_length must be at least 1"):
        decode("Luong", GREEDY, max_length=0)
