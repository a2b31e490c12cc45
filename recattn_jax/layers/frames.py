"""Video: frames to vectors, and frames that are seen from elsewhere."""

import math

import jax
import jax.numpy as jnp

from recattn_jax.layers.dense import convolution, dense
from recattn_jax.layers.pointwise import Pointwise
from recattn_jax.shapes import Activations, Array, Float


class FrameConvolutions(Pointwise):
    """Convolutions over each frame by itself, each of which halves its sides; then a linear map.

    `y_t = W flatten(gelu(conv_n(... gelu(conv_1(frame_t)))))`, kernels of 3 x 3, strides of 2.

    Attributes:
      shape: height, width and channels of a frame; D is their product.
      channels: of each convolution, from the first to the last.
      features: E.

    Call: `[B, T, D] -> [B, T, E]`, the pixels of a frame row by row, channels last.

    Raises:
      ValueError: if D is not the product of the shape.

    >>> layer = FrameConvolutions(shape=(4, 6, 1), channels=(8, 16), features=5)
    >>> layer.init_with_output(jax.random.key(0), jax.numpy.ones((2, 3, 24)))[0][0].shape
    (2, 3, 5)

    LeCun et al., Gradient-based learning applied to document recognition, 1998; before an LSTM:
    Donahue et al., Long-term recurrent convolutional networks, 2014, arXiv:1411.4389.
    """

    shape: tuple[int, int, int]
    channels: tuple[int, ...]
    features: int

    def map(self, x: Activations) -> Float[Array, "B T E"]:
        batch, steps, _ = x.shape
        frames = _frames("FrameConvolutions", x, self.shape)
        frames = frames.reshape(batch * steps, *self.shape)
        for number, channels in enumerate(self.channels):
            convolve = convolution(
                channels, (3, 3), strides=2, dtype=x.dtype, name=f"convolution_{number}"
            )
            frames = jax.nn.gelu(convolve(frames))
        flat = frames.reshape(batch, steps, -1)
        return dense(self.features, dtype=x.dtype, name="dense")(flat)


class RandomAffine(Pointwise):
    """Moves and zooms the frames of a row, all alike, as if it had been filmed from elsewhere.

    `y[i, j] = x[c + z (i - c) + s, d + z (j - d) + t]` around the middle (c, d), linear between
    pixels, and outside as the nearest pixel. Drawn anew for every row where the rng stream
    `dropout` is given; the identity without it.

    Attributes:
      shape: height, width and channels of a frame; D is their product.
      shift: s and t are uniform from -shift to shift, in pixels.
      zoom: z is uniform from 1 - zoom to 1 + zoom.

    Call: `[B, T, D] -> [B, T, D]`, the pixels of a frame row by row, channels last.

    Raises:
      ValueError: if D is not the product of the shape, a shift is negative, or a zoom is not from 0
        up to but not including 1.

    >>> layer = RandomAffine(shape=(4, 6, 1), shift=1.0, zoom=0.1)
    >>> layer.apply({}, jnp.ones((2, 3, 24)), rngs={"dropout": jax.random.key(0)})[0].shape
    (2, 3, 24)

    Simard et al., Best practices for convolutional neural networks, 2003.
    """

    shape: tuple[int, int, int]
    shift: float
    zoom: float

    def map(self, x: Activations) -> Activations:
        if self.shift < 0.0 or not 0.0 <= self.zoom < 1.0:
            raise ValueError(
                f"RandomAffine: shift={self.shift} and zoom={self.zoom}, expected 0 or more, and"
                " the latter less than 1"
            )
        frames_BTHWC = _frames("RandomAffine", x, self.shape)
        still = self.shift == 0.0 and self.zoom == 0.0
        if still or not self.has_rng("dropout"):
            return x
        shifts, zooms = jax.random.split(self.make_rng("dropout"))
        shift_B2 = jax.random.uniform(shifts, (len(x), 2), minval=-self.shift, maxval=self.shift)
        zoom_B = jax.random.uniform(zooms, (len(x),), minval=1 - self.zoom, maxval=1 + self.zoom)
        return affine(frames_BTHWC, shift_B2, zoom_B).reshape(x.shape)


def affine(
    frames: Float[Array, "B T H W C"], shift: Float[Array, "B 2"], zoom: Float[Array, "B"]
) -> Float[Array, "B T H W C"]:
    """Frames seen from elsewhere, see `RandomAffine`; a zoom below 1 shows them larger.

    Args:
      frames: all that stand in a row are seen alike.
      shift: where the middle of each row is looked for, down and to the right, in pixels.
      zoom: how many pixels a pixel is wide.

    Returns:
      Frames of the same shape and dtype.

    Example:
      affine(frames, shift=jnp.zeros((2, 2)), zoom=jnp.ones(2))      # as they are
    """

    def weights(size: int, shift_B: Float[Array, "B"]) -> Float[Array, "B size size"]:
        places, middle = jnp.arange(size), (size - 1) / 2
        sought = middle + jnp.outer(zoom, places - middle) + shift_B[:, None]
        sought = jnp.clip(sought, 0.0, size - 1.0)
        near = 1.0 - jnp.abs(sought[:, :, None] - places[None, None])
        return jnp.maximum(near, 0.0).astype(frames.dtype)

    down_BHI = weights(frames.shape[2], shift[:, 0])
    right_BWJ = weights(frames.shape[3], shift[:, 1])
    moved = jnp.einsum("bhi,btijc->bthjc", down_BHI, frames)
    return jnp.einsum("bwj,bthjc->bthwc", right_BWJ, moved)


def _frames(name: str, x: Activations, shape: tuple[int, int, int]) -> Float[Array, "B T H W C"]:
    """The steps of a layer's input as pictures."""
    if x.shape[-1] != math.prod(shape):
        raise ValueError(
            f"{name}: frames of {x.shape[-1]} numbers, expected {math.prod(shape)} for the shape"
            f" {shape}"
        )
    return x.reshape(*x.shape[:2], *shape)
