"""Effective context of models whose context is known, on rows of several documents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.analysis import context
from recattn_jax.analysis.context import ContextCurve, context_curve
from recattn_jax.errors import NonFiniteError, UserError
from recattn_jax.layers import Embed, Identity, Residual, SelfAttention
from recattn_jax.models import PerStep, SequenceModel

V, B, T = 6, 40, 24


def rows():
    """One document of 16 steps and one of 5 in each row, and padding."""
    tokens = np.random.default_rng(0).integers(0, V, (B, T + 1))
    segments = np.repeat([[1, 2, 0]], B, axis=0).repeat([16, 5, 3], axis=1)
    return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "segments": segments}


def curve_of(body, variables=None):
    model = SequenceModel(Embed(V, 4), body, PerStep(V))
    if variables is None:
        variables = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, T), int))
    return context_curve(model, variables, [rows()])


@pytest.fixture(autouse=True)
def few_targets(monkeypatch):
    monkeypatch.setattr(context, "LEAST_TARGETS", B)
    monkeypatch.setattr(context, "_TOKENS", 64)  # so that there are blocks


def test_a_bigram_needs_one_token() -> None:
    curve = curve_of(Identity())
    assert curve.lengths.tolist() == [1, 2, 4, 8, 16]
    assert curve.targets == B  # the last of each long document alone
    np.testing.assert_allclose(curve.losses, curve.losses[0], rtol=1e-6)
    assert curve.effective == 1


def test_the_same_targets_are_scored_as_in_their_rows() -> None:
    model = SequenceModel(Embed(V, 4), Identity(), PerStep(V))
    variables = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, T), int))
    logits = model.apply(variables, jnp.asarray(rows()["inputs"]))[0][:, 15]
    shares = np.asarray(jax.nn.log_softmax(logits), np.float64)
    nats = -shares[np.arange(B), rows()["targets"][:, 15]]
    curve = context_curve(model, variables, [rows()])
    np.testing.assert_allclose(curve.losses, nats.mean(), rtol=1e-6)
    np.testing.assert_allclose(curve.errors, nats.std(ddof=1) / B**0.5, rtol=1e-5)


def test_a_window_is_all_that_attention_needs() -> None:
    curve = curve_of(Residual(SelfAttention(1, window=4)))
    np.testing.assert_allclose(curve.losses[2:], curve.losses[2], rtol=1e-5)
    assert np.all(np.abs(np.diff(curve.losses[:3])) > 1e-4)


def test_the_shortest_that_is_close_enough() -> None:
    losses_C = np.array([3.0, 2.01, 2.0, 2.1])
    nats_CN = losses_C[:, None] + np.array([-1.0, 1.0])
    nats_CN[1] = [1.3, 2.72]
    curve = ContextCurve(2 ** np.arange(4), nats_CN)
    assert (curve.effective, curve.best, curve.targets) == (2, 2, 2)
    np.testing.assert_allclose(curve.errors, [1, 0.71, 1, 1])
    # Targets that are hard are so from any context, so distances are known better than losses.
    np.testing.assert_allclose(curve.paired_errors, [0, 0.29, 0, 0], atol=1e-12)


def test_too_few_targets_are_refused() -> None:
    padding = rows() | {"segments": np.zeros((B, T), int)}
    model = SequenceModel(Embed(V, 4), Identity(), PerStep(V))
    with pytest.raises(UserError, match="40 targets at least, and the rows have 0"):
        context_curve(model, {}, [padding])


def test_a_loss_that_is_no_number_is_no_curve() -> None:
    model = SequenceModel(Embed(V, 4), Identity(), PerStep(V))
    variables = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, T), int))
    with pytest.raises(NonFiniteError, match="from 1 tokens of context"):
        context_curve(model, jax.tree.map(lambda a: a * jnp.nan, variables), [rows()])
