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


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_features_are_forecast_by_themselves_relative_to_their_last_value(model):
    variables = model.init(jax.random.key(0), X)
    y, state = model.apply(variables, X)
    assert y.shape == (2, 7, 3) and state == ()
    moved = jnp.array([1.0, -20.0, 300.0])[None, None]
    np.testing.assert_allclose(model.apply(variables, X + moved)[0], y + moved, rtol=1e-4)
    turned, _ = model.apply(variables, X[:, :, ::-1])
    np.testing.assert_allclose(turned, y[:, :, ::-1], rtol=1e-5)


def test_a_rolling_forecast_reads_what_it_wrote():
    model = MODELS["rolling"]
    variables = model.init(jax.random.key(0), X)
    y, _ = model.apply(variables, X)
    # Its first patch appended, relative to the same last value, it writes the second one.
    shorter = RollingForecaster(LSTM(5), width=4, patch=3, horizon=3)
    first, _ = shorter.apply(variables, X)
    np.testing.assert_allclose(first, y[:, :3], rtol=1e-6)
    embed, readout = (
        lambda x, p=variables["params"][name]: (
            np.asarray(x) @ np.asarray(p["kernel"]) + np.asarray(p["bias"])
        )
        for name in ("embed", "readout")
    )
    rows = jnp.swapaxes(X - X[:, -1:], 1, 2).reshape(6, 4, 3)
    written = jnp.swapaxes(first - X[:, -1:], 1, 2).reshape(6, 1, 3)
    patches = jnp.array(embed(jnp.concatenate([rows, written], axis=1)))
    states, _ = LSTM(5).apply({"params": variables["params"]["body"]}, patches)
    second = readout(states[:, -1])
    expected = jnp.swapaxes(second.reshape(2, 3, 3), 1, 2) + X[:, -1:]
    np.testing.assert_allclose(y[:, 3:6], expected, rtol=1e-4, atol=1e-5)


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
