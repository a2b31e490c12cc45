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
            mode="grid-constant",
        )
    moved = affine(jnp.asarray(FRAMES), jnp.asarray(SHIFT), jnp.asarray(ZOOM))
    np.testing.assert_allclose(moved, expected, atol=1e-6)
    np.testing.assert_array_equal(expected[0], FRAMES[0])
    assert not expected[2].any() and expected[1].any()


def test_rows_move_each_in_its_own_way_and_their_steps_alike():
    layer = RandomAffine((7, 5, 2), shift=1.5, zoom=0.1)
    x = jnp.broadcast_to(FRAMES[:1, :1].reshape(1, 1, -1), (4, 3, 70))
    y, _ = layer.apply({}, x, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_array_equal(y[:, 0], y[:, 2])
    assert all(np.abs(y[0] - y[row]).max() > 0.1 for row in (1, 2, 3))
    np.testing.assert_array_equal(layer.apply({}, x)[0], x)  # not in training
    still = RandomAffine((7, 5, 2), shift=0.0, zoom=0.0)
    same, _ = still.apply({}, x, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_allclose(same, x, atol=1e-6)


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
