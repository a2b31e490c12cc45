"""Noise in recurrent layers: what its masks are, and that the layer does with them what it says."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.layers import GRU, LSTM, SLSTM, Identity, Noise, Recurrent
from tests.layers.formulas import assert_same_function, formula, perturbed
from tests.oracles import assert_close

B, T, D, H = 3, 6, 5, 4
KEYS = {"variational": jax.random.key(5), "dropout": jax.random.key(6)}


def bound(layer: Any, keys: Any = KEYS) -> Any:
    """A layer that masks can be drawn for, as one call of it draws them."""
    return layer.bind({}, rngs=keys)


def test_what_the_masks_are() -> None:
    """Means of 1; different in the batch; the same over time, or different with `per_step`."""
    shape, ones = (40, 50, 60), jnp.ones((40, 50, 60))
    for per_step in (False, True):
        noise = Noise(inputs=0.2, states=0.5, weights=0.2, per_step=per_step)
        layer = bound(Identity())
        inputs = noise.drop_inputs(layer, ones)
        states = noise.state_mask(layer, shape, jnp.float32)
        assert states.shape == (40, 50 if per_step else 1, 60)
        assert set(np.unique(states)) == {0.0, 2.0}
        np.testing.assert_allclose(np.unique(inputs), [0.0, 1.25])
        for mask in (inputs, states, noise.drop_weights(layer, ones)):
            assert float(mask.mean()) == pytest.approx(1.0, abs=0.05)
            assert (np.asarray(mask)[1:] != np.asarray(mask)[:1]).any()
        assert (inputs[:, 1:] != inputs[:, :1]).any() == per_step
    zoned = Noise(zoneout=0.3).zoneout_mask(bound(Identity()), shape, jnp.float32)
    assert set(np.unique(zoned)) == {0.0, 1.0}
    assert float(zoned.mean()) == pytest.approx(0.3, abs=0.01)
    assert (zoned[:, 1:] != zoned[:, :1]).any()


def test_a_stream_that_is_not_given_draws_nothing() -> None:
    ones = jnp.ones((B, T, D))
    for noise, missing in (
        (Noise(inputs=0.5, states=0.5, weights=0.5), {"dropout": KEYS["dropout"]}),
        (Noise(inputs=0.5, states=0.5, per_step=True), {"variational": KEYS["variational"]}),
    ):
        assert (noise.drop_inputs(bound(Identity(), missing), ones) == ones).all()
        assert noise.state_mask(bound(Identity(), missing), (B, T, D), jnp.float32) is None
        assert (noise.drop_weights(bound(Identity(), missing), ones) == ones).all()
    expected = Noise(zoneout=0.25).zoneout_mask(bound(Identity(), {}), (B, T, D), jnp.float32)
    assert expected.shape == (1, T, 1)
    assert (expected == 0.25).all()


VARIATIONAL = Noise(inputs=0.4, states=0.4, weights=0.4)
EVERYTHING = Noise(inputs=0.4, states=0.4, per_step=True, zoneout=0.4, weights=0.4)


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(LSTM(H, projection=3, noise=VARIATIONAL), marks=pytest.mark.slow),
        LSTM(H, projection=3, noise=EVERYTHING, remat_every=4),
        pytest.param(GRU(H, reset_after=False, noise=VARIATIONAL), marks=pytest.mark.slow),
        GRU(H, reset_after=False, noise=EVERYTHING),
        SLSTM(H, heads=2, noise=EVERYTHING),
    ],
    ids=lambda layer: f"{type(layer).__name__}, zoneout={layer.noise.zoneout}",
)
def test_equals_its_formula_with_the_same_masks(layer: Recurrent) -> None:
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (B, T, D), jnp.float64)
        noise, drawer = layer.noise, bound(layer)
        # In the order in which the layer draws.
        weights = noise.drop_weights(drawer, jnp.ones(layer.recurrent_shape, x.dtype))
        drop = noise.state_mask(drawer, (B, T, layer.widths[0]), x.dtype)
        inputs = noise.drop_inputs(drawer, jnp.ones_like(x))
        zoned = None
        if noise.zoneout:
            kept = layer.widths[: layer.zoned]
            zoned = [noise.zoneout_mask(drawer, (B, T, width), x.dtype) for width in kept]
            if isinstance(layer, SLSTM):  # h alone: c and n of the formula are not kept
                zoned += [jnp.zeros((B, T, H))] * 2
        assert_same_function(
            lambda params, x: layer.apply({"params": params}, x, rngs=KEYS)[0],
            lambda params, x: formula(layer, params, x * inputs, (weights, drop, zoned)),
            perturbed(layer, x),
            x,
        )


def test_without_streams_zoneout_is_its_expectation_and_nothing_is_dropped() -> None:
    layer = LSTM(H, noise=EVERYTHING)
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (B, T, D), jnp.float64)
        params = perturbed(layer, x)
        zoned = [jnp.full((B, T, H), 0.4)] * 2
        assert_same_function(
            lambda params, x: layer.apply({"params": params}, x)[0],
            lambda params, x: formula(layer, params, x, (1.0, jnp.ones((1, 1, 1)), zoned)),
            params,
            x,
        )
    x, params = x.astype(jnp.float32), perturbed(layer, x.astype(jnp.float32))
    silent = LSTM(H, noise=VARIATIONAL).apply({"params": params}, x)
    jax.tree.map(np.testing.assert_array_equal, silent, LSTM(H).apply({"params": params}, x))


def test_almost_certain_zoneout_keeps_the_state() -> None:
    layer, x = LSTM(H, noise=Noise(zoneout=1.0 - 1e-7)), jnp.ones((B, T, D))
    params = perturbed(layer, x)
    _, state = LSTM(H).apply({"params": params}, x)
    y, after = layer.apply({"params": params}, x, state, rngs=KEYS)
    assert_close(after.carry, state.carry)
    assert_close(y, jnp.repeat(state.carry[0][:, None], T, axis=1))


def test_the_same_variational_key_keeps_the_masks_from_call_to_call() -> None:
    layer = GRU(H, noise=VARIATIONAL)
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    params = perturbed(layer, x)

    def run(x, state, key):
        return layer.apply({"params": params}, x, state, rngs={"variational": jax.random.key(key)})

    whole, _ = run(x, None, 0)
    first, state = run(x[:, :2], None, 0)
    assert_close(jnp.concatenate([first, run(x[:, 2:], state, 0)[0]], axis=1), whole)
    assert np.abs(run(x, None, 1)[0] - whole).max() > 1e-2


@pytest.mark.parametrize("name", ["inputs", "states", "zoneout", "weights"])
@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_out_of_range_is_refused(name: str, rate: float) -> None:
    with pytest.raises(ValueError, match=f"Noise: {name}={rate} must be at least 0"):
        Noise(**{name: rate})
