"""Attributions against finite differences, a linear model, and the laws that they obey."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.analysis import attribution
from recattn_jax.analysis.attribution import NotEmbedded, attribute
from recattn_jax.layers import (
    LSTM,
    CrossAttention,
    Embed,
    Identity,
    Parallel,
    Residual,
    RMSNorm,
    SelfAttention,
    Serial,
    add,
)
from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel

T, V = 7, 5
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, V, (1, T)))
NOTHING = jnp.full_like(TOKENS, V - 1)
WANTED = np.random.default_rng(1).integers(0, V, T)


def log_shares(logits):
    shares = jax.nn.log_softmax(logits[0])
    return jnp.take_along_axis(shares, jnp.asarray(WANTED)[:, None], axis=1)[:, 0]


def hybrid():
    mixer = Parallel((LSTM(8), SelfAttention(2, window=4)), combine=add)
    return SequenceModel(Embed(V, 8), Residual(Serial((RMSNorm(), mixer))), PerStep(V))


def started(model, *inputs):
    return jax.jit(model.init)(jax.random.key(0), *inputs)


def test_equals_finite_differences() -> None:
    """In float64, of the scores of a model that is given its embeddings."""
    model = hybrid()
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), started(model, TOKENS))
        table = variables["params"]["frontend"]["embed"]["embedding"]
        wide = SequenceModel(Embed(V, 8, dtype=jnp.float64), model.body, model.readout)
        found = attribute(wide, variables, [TOKENS], [NOTHING], log_shares, of=4)
        given = SequenceModel(Identity(), model.body, model.readout)
        e = table[TOKENS]

        @jax.jit
        def scores(e):
            return log_shares(given.apply(variables, e)[0])

        size = 1e-5
        change = np.zeros((T, T, 8))
        for s in range(T):
            for d in range(8):
                shift = jnp.zeros_like(e).at[0, s, d].set(size)
                change[:, s, d] = (scores(e + shift) - scores(e - shift)) / (2 * size)
        moved = float(scores(e)[4] - scores(table[NOTHING])[4])
    products = np.einsum("osd,sd->os", change, e[0])
    np.testing.assert_allclose(found.gradients[0], products, atol=1e-8)
    np.testing.assert_allclose(found.norms[0], np.linalg.norm(change, axis=-1), atol=1e-8)
    assert found.change == pytest.approx(moved, abs=1e-9)


def test_of_a_linear_model_is_its_terms() -> None:
    """`y_t = sum_s<=t e_s W`: each step owes `e_s W` to each before it, or more than a blank."""

    class Sum(Identity):
        def map(self, x):
            return jnp.cumsum(x, axis=1)

    model = SequenceModel(Embed(V, 4), Sum(), PerStep(V))
    variables = started(model, TOKENS)
    params = variables["params"]
    found = attribute(model, variables, [TOKENS], [NOTHING], lambda logits: logits[0, :, 2], of=-2)
    table = params["frontend"]["embed"]["embedding"] @ params["readout"]["kernel"][:, 2]
    seen = np.tril(np.ones((T, T)))
    terms, moves = np.asarray(table[TOKENS[0]]), np.asarray((table[TOKENS] - table[NOTHING])[0])
    np.testing.assert_allclose(found.gradients[0], seen * terms, atol=1e-5)
    np.testing.assert_allclose(found.integrated[0], (seen * moves)[-2], atol=1e-5)
    assert found.of == T - 2 and abs(found.error) < 1e-5


def test_nothing_is_owed_to_what_comes_later_and_all_is_accounted_for(monkeypatch) -> None:
    monkeypatch.setattr(attribution, "_BLOCK", 3)
    model, done = hybrid(), []
    found = attribute(
        model,
        started(model, TOKENS),
        [TOKENS],
        [NOTHING],
        log_shares,
        say=lambda *progress: done.append(progress),
    )
    for values in (found.gradients[0], found.norms[0]):
        assert np.all(np.triu(values, 1) == 0)
        assert np.all(values[np.arange(T), np.arange(T)] != 0)
    # Those that reach no further than attention does are small, and yet there.
    assert np.all(found.norms[0][np.tril_indices(T)] > 0)
    assert found.complete
    assert abs(found.error) < 1e-4
    assert found.integrated[0].sum() == pytest.approx(found.change, abs=2e-4)
    assert np.all(found.integrated[0][np.asarray(TOKENS[0]) == V - 1] == 0)
    total = T + attribution.PATH_STEPS + 1
    assert done[-1] == (total, total) and len(done) == -(-total // 3)


def test_a_translation_owes_to_its_source_and_to_what_it_wrote() -> None:
    body = Serial((LSTM(4), Residual(CrossAttention(1))))
    model = EncoderDecoder(
        Serial((Embed(V, 4), LSTM(4))), SequenceModel(Embed(V, 4), body, PerStep(V))
    )
    source = TOKENS[:, :4]
    given, blank = [source, TOKENS], [NOTHING[:, :4], NOTHING]
    found = attribute(model, started(model, *given), given, blank, log_shares)
    assert [each.shape for each in found.gradients] == [(T, 4), (T, T)]
    assert np.all(found.norms[0] > 0)
    assert np.all(np.triu(found.norms[1], 1) == 0)
    assert sum(each.sum() for each in found.integrated) == pytest.approx(found.change, abs=1e-3)


def test_a_model_that_embeds_twice_is_refused() -> None:
    twice = Parallel((Embed(V, 4), Embed(V, 4)), combine=add)
    model = SequenceModel(twice, Identity(), PerStep(V))
    with pytest.raises(NotEmbedded, match="2 times where it has 1 inputs"):
        attribute(model, started(model, TOKENS), [TOKENS], [NOTHING], log_shares)
    model = SequenceModel(Identity(), Identity(), PerStep(V))
    x = jnp.ones((1, T, 3))
    with pytest.raises(NotEmbedded, match="0 times"):
        attribute(model, started(model, x), [x], [x], log_shares)
