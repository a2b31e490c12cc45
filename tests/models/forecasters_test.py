"""Forecasters: relative to the last value, each feature by itself, patch after patch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.layers import LSTM, Bidirectional
from recattn_jax.models import DirectForecaster, RollingForecaster
from recattn_jax.tasks import Regression

X = jax.random.normal(jax.random.key(1), (2, 12, 3))
MODELS = {
    "direct": DirectForecaster(LSTM(5), width=4, patch=3, horizon=7),
    "rolling": RollingForecaster(LSTM(5), width=4, patch=3, horizon=7),
}


def drawn(model):
    """Variables none of which is zero, unlike those of a fresh readout."""
    leaves, tree = jax.tree.flatten(model.init(jax.random.key(0), X))
    keys = jax.random.split(jax.random.key(3), len(leaves))
    return jax.tree.unflatten(
        tree,
        [0.3 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)],
    )


def dense(variables, name):
    kernel, bias = (np.asarray(variables["params"][name][part]) for part in ("kernel", "bias"))
    return lambda x: np.asarray(x) @ kernel + bias


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_features_are_forecast_by_themselves_relative_to_their_last_value(model):
    variables = drawn(model)
    y, state = model.apply(variables, X)
    assert y.shape == (2, 7, 3) and state == ()
    moved = jnp.array([1.0, -20.0, 300.0])[None, None]
    np.testing.assert_allclose(model.apply(variables, X + moved)[0], y + moved, rtol=1e-4)
    turned, _ = model.apply(variables, X[:, :, ::-1])
    np.testing.assert_allclose(turned, y[:, :, ::-1], rtol=1e-5)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_fresh_forecaster_is_its_linear_map(model):
    variables = model.init(jax.random.key(0), X)
    past = jnp.swapaxes(X - X[:, -1:], 1, 2)
    expected = np.swapaxes(dense(variables, "linear")(past), 1, 2) + X[:, -1:]
    np.testing.assert_allclose(model.apply(variables, X)[0], expected, rtol=1e-5, atol=1e-6)


def test_a_rolling_forecast_reads_what_it_wrote():
    model = MODELS["rolling"]
    variables = drawn(model)
    y, _ = model.apply(variables, X)
    rows = np.swapaxes(X - X[:, -1:], 1, 2).reshape(6, 12)
    forecast = np.swapaxes(y - X[:, -1:], 1, 2).reshape(6, 7)
    linear = dense(variables, "linear")(rows)
    for ahead in (0, 3):
        read = np.concatenate([rows, forecast[:, :ahead]], axis=1).reshape(6, -1, 3)
        patches = jnp.array(dense(variables, "embed")(read))
        states, _ = LSTM(5).apply({"params": variables["params"]["body"]}, patches)
        expected = dense(variables, "readout")(states[:, -1]) + linear[:, ahead : ahead + 3]
        np.testing.assert_allclose(forecast[:, ahead : ahead + 3], expected, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="12 steps are no multiple of the patch, 5"):
        DirectForecaster(LSTM(5), 4, 5, 7).init(jax.random.key(0), X)
    both = Bidirectional(LSTM(2), LSTM(2))
    with pytest.raises(ValueError, match="give one that streams"):
        RollingForecaster(both, 4, 3, 7).init(jax.random.key(0), X)
    model = MODELS["direct"]
    with pytest.raises(ValueError, match="every window starts afresh"):
        model.apply(model.init(jax.random.key(0), X), X, (jnp.ones(1),))


def test_errors_are_means_over_rows_that_count():
    batch = {"inputs": X, "targets": jnp.zeros((2, 4, 3)), "weight": jnp.array([1.0, 0.0])}
    y = jax.random.normal(jax.random.key(2), (2, 4, 3))
    metrics, _ = Regression()(lambda x, state: (y, ()), batch, None)
    np.testing.assert_allclose(metrics["loss"].total, np.square(y[0]).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["mae"].total, np.abs(y[0]).mean(), rtol=1e-6)
    assert metrics["loss"].weight == metrics["mae"].weight == 1.0
    with pytest.raises(ValueError, match=r"predicts \[2, 3, 3\], expected \[2, 4, 3\]"):
        Regression()(lambda x, state: (y[:, :3], ()), batch, None)
