"""Convolution over time."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from recattn_jax.layers.base import Context, SequenceLayer, check_state
from recattn_jax.shapes import Activations, Array, Float, Int


@struct.dataclass
class ConvolutionState:
    """What a causal convolution carries on.

    Attributes:
      past: `[B, W - 1, D]`, the last inputs of the document, zero where there were none.
      segment: `[B]`, the document of the last real step; 0 is nothing yet.

    >>> layer = CausalConvolution(width=4)
    >>> key, x = jax.random.key(0), jnp.ones((2, 5, 8))
    >>> state = jax.eval_shape(layer.init_with_output, key, x)[0][1]
    >>> state.past.shape
    (2, 3, 8)
    """

    __no_type_check__ = True

    past: Float[Array, "B W D"]
    segment: Int[Array, " B"]


class CausalConvolution(SequenceLayer):
    """A convolution over the last steps, each channel by itself (depthwise).

    `y_t = sum_{k < W} w_k * x_{t-k} + b`, over the steps of the same document.

    Attributes:
      width: W, the steps that an output sees, its own included; at least 2.

    Parameters: `convolution_kernel [W, D]`, its first row for the step itself; `bias [D]`.

    Call: `[B, T, D] -> [B, T, D]`; state: `ConvolutionState`.

    Raises:
      ValueError: if the width is less than 2, or the state is that of another layer or batch.

    >>> layer = CausalConvolution(width=4)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]

    Waibel et al., Phoneme recognition using time-delay neural networks, 1989; before a linear
    recurrence: De et al., Griffin, 2024, arXiv:2402.19427.
    """

    width: int

    @property
    def streams(self) -> bool:
        return True

    @nn.compact
    def forward(
        self, x: Activations, state: ConvolutionState | None, context: Context
    ) -> tuple[Activations, ConvolutionState]:
        if self.width < 2:
            raise ValueError(f"CausalConvolution: width={self.width} must be at least 2")
        batch, length, channels = x.shape
        initial = nn.initializers.normal(self.width**-0.5)
        kernel = self.param("convolution_kernel", initial, (self.width, channels))
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        before = self.width - 1
        if state is None:
            empty = jnp.zeros((batch, before, channels), x.dtype)
            state = ConvolutionState(empty, jnp.zeros((batch,), jnp.int32))
        check_state(self, state, ConvolutionState, batch)
        if state.past.shape[1:] != (before, channels):
            raise ValueError(
                f"CausalConvolution: state keeps {list(state.past.shape[1:])} of a row, this layer "
                f"[width - 1, D] = {[before, channels]}; it is the state of another layer"
            )
        numbers_BT = context.segments
        if numbers_BT is None:
            numbers_BT = jnp.ones((batch, length), jnp.int32)

        # The past is put right before the first real step: padding between them is no step.
        lead_B = jnp.argmax(numbers_BT > 0, axis=1)
        inputs = _precede(state.past.astype(x.dtype), x, lead_B)
        past_numbers = jnp.broadcast_to(state.segment[:, None], (batch, before))
        numbers = _precede(past_numbers, numbers_BT, lead_B)

        # In float32, as the gradients of kernel and bias are sums over all steps.
        y = jnp.broadcast_to(bias[None, None, :], x.shape)
        for k in range(self.width):
            shifted = slice(before - k, before - k + length)
            own_BT = numbers[:, shifted] == numbers_BT
            seen = jnp.where(own_BT[..., None], inputs[:, shifted], jnp.zeros((), x.dtype))
            y = y + kernel[k][None, None, :] * seen
        return y.astype(x.dtype), _remember(inputs, numbers, numbers_BT, state)


def _precede(past: Array, x: Array, lead_B: Int[Array, " B"]) -> Array:
    """`[B, W - 1 + T, ...]`: x, and the past right before step `lead` of it."""
    ends = [(0, 0), (past.shape[1], 0), *[(0, 0)] * (x.ndim - 2)]

    def place(row: Array, past: Array, lead: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(row, past, lead, axis=0)

    return jax.vmap(place)(jnp.pad(x, ends), past, lead_B)


def _remember(
    inputs: Array, numbers: Array, numbers_BT: Int[Array, "B T"], state: ConvolutionState
) -> ConvolutionState:
    """The last `W - 1` inputs up to the last real step, zero where they are another document's."""
    before, length = state.past.shape[1], numbers_BT.shape[1]
    real_BT = numbers_BT > 0
    after_B = jnp.where(jnp.any(real_BT, axis=1), length - jnp.argmax(real_BT[:, ::-1], axis=1), 0)

    def cut(row: Array, after: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(row, after, before, axis=0)

    past, owners = jax.vmap(cut)(inputs, after_B), jax.vmap(cut)(numbers, after_B)
    segment = owners[:, -1]
    own = (owners == segment[:, None])[..., None]
    return ConvolutionState(jnp.where(own, past, jnp.zeros((), past.dtype)), segment)
