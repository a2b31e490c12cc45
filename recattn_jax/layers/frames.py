"""Video: frames to vectors."""

import math

import flax.linen as nn
import jax

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
        batch, steps, size = x.shape
        if size != math.prod(self.shape):
            raise ValueError(
                f"FrameConvolutions: frames of {size} numbers, expected {math.prod(self.shape)} for"
                f" the shape {self.shape}"
            )
        frames = x.reshape(batch * steps, *self.shape)
        for number, channels in enumerate(self.channels):
            convolution = nn.Conv(
                channels, (3, 3), strides=2, dtype=x.dtype, name=f"convolution_{number}"
            )
            frames = jax.nn.gelu(convolution(frames))
        flat = frames.reshape(batch, steps, -1)
        return nn.Dense(self.features, dtype=x.dtype, name="dense")(flat)
