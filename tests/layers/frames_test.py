"""Frames: how they are seen from elsewhere, and when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from recattn_jax.layers import FrameConvolutions, RandomAffine
from recattn_jax.layers.frames import affine

RANDOM = np.random.default_rng(0)
FRAMES = RANDOM.normal(size=(3, 2, 7, 5, 2)).astype(np.float32)
SHIFT = np.array([[0.0, 0.0], [1.3, -0.4], [-2.0, 9.0]], np.float32)
ZOOM = np.array([1.0, 0.8, 1.3], np.float32)


def test_frames_are_resampled_as_scipy_does():
    middle = np.array([3.0, 2.0])
    expected = np.empty_like(FRAMES)
    for row, step, channel in np.ndindex(3, 2, 2):
        expected[row, step, :, :, channel] = ndimage.affine_transform(
            FRAMES[row, step, :, :, channel],
            np.diag([ZOOM[row]] * 2),
            middle - ZOOM[row] * middle + SHIFT[row],
            order=1,
            mode="nearest",
        )
    moved = affine(jnp.asarray(FRAMES), jnp.asarray(SHIFT), jnp.asarray(ZOOM))
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    np.testing.assert_allclose(expected[0], FRAMES[0], atol=1e-6)
    outside = expected[2, :, 3], FRAMES[2, :, 1, -1:]  # to the right of the last column
    np.testing.assert_allclose(*np.broadcast_arrays(*outside), rtol=1e-6)


def seen(shift, zoom, rows=512):
    """A ramp in both directions, and its values after a random move: where each pixel looked."""
    down, right = np.mgrid[0:41, 0:31].astype(np.float32)
    x = np.stack([down, right], axis=-1).reshape(1, 1, -1)
    layer = RandomAffine((41, 31, 2), shift, zoom)
    stream = {"dropout": jax.random.key(0)}
    y, _ = layer.apply({}, jnp.asarray(np.repeat(x, rows, axis=0)), rngs=stream)
    return np.asarray(y).reshape(rows, 41, 31, 2)


def test_shifts_and_zooms_fill_their_ranges():
    moved = seen(shift=3.0, zoom=0.0)[:, 20, 15] - (20, 15)
    for axis in moved.T:
        assert -3 <= axis.min() < -2.8 and 2.8 < axis.max() <= 3 and abs(axis.mean()) < 0.3
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.2
    zoomed = seen(shift=0.0, zoom=0.2)
    np.testing.assert_allclose(zoomed[:, 20, 15], np.tile([20, 15], (512, 1)), rtol=1e-5)
    wide = (zoomed[:, 30, 20] - (20, 15)) / (10, 5)
    np.testing.assert_allclose(wide[:, 0], wide[:, 1], rtol=1e-4)  # one zoom for both axes
    assert 0.8 <= wide.min() < 0.82 and 1.18 < wide.max() <= 1.2


def test_halves_move_as_floats_do():
    frames, shift = jnp.asarray(FRAMES), jnp.asarray(SHIFT)
    halves = affine(frames.astype(jnp.bfloat16), shift, jnp.asarray(ZOOM))
    assert halves.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        halves.astype(np.float32), affine(frames, shift, jnp.asarray(ZOOM)), atol=0.05
    )


def test_rows_move_each_in_its_own_way_and_their_steps_alike():
    layer = RandomAffine((7, 5, 2), shift=1.5, zoom=0.1)
    x = jnp.broadcast_to(FRAMES[:1, :1].reshape(1, 1, -1), (4, 3, 70))
    y, _ = layer.apply({}, x, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_array_equal(y[:, 0], y[:, 2])
    assert all(np.abs(y[0] - y[row]).max() > 0.1 for row in (1, 2, 3))
    np.testing.assert_array_equal(layer.apply({}, x)[0], x)  # not in training
    still = RandomAffine((7, 5, 2), shift=0.0, zoom=0.0)
    same, _ = still.apply({}, x, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_array_equal(same, x)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (FrameConvolutions((7, 5, 1), (4,), 3), "frames of 70 numbers, expected 35"),
        (RandomAffine((7, 5, 1), 1.0, 0.1), "frames of 70 numbers, expected 35"),
        (RandomAffine((7, 5, 2), -1.0, 0.1), "shift=-1.0"),
        (RandomAffine((7, 5, 2), 1.0, 1.0), "zoom=1.0"),
    ],
)
def test_what_does_not_fit_is_said(layer, said):
    with pytest.raises(ValueError, match=said):
        layer.init(jax.random.key(0), jnp.ones((1, 2, 70)))
