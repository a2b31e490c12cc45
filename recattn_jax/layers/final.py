"""What a recurrence has read by the end, at every step."""

import jax
import jax.numpy as jnp

from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.shapes import Activations, State


class Final(SequenceLayer):
    """Gives every step the last one of its document, `y_t = x_last`.

    After an encoder it leaves of the source what one vector can hold: whoever attends to such a
    memory finds the same at every position, so it is what encoders and decoders were before there
    was attention between them.

    Call: `[B, T, D] -> [B, T, D]`; it does not stream.

    >>> y, state = Final().apply({}, jnp.arange(6.0).reshape(1, 3, 2))
    >>> y[0, 0].tolist()
    [4.0, 5.0]

    Cho et al., Learning phrase representations using RNN encoder-decoder for statistical machine
    translation, 2014, arXiv:1406.1078.
    """

    @property
    def streams(self) -> bool:
        return False

    def forward(
        self, x: Activations, state: State | None, context: Context
    ) -> tuple[Activations, State]:
        del state
        if context.segments is None:
            return jnp.broadcast_to(x[:, -1:], x.shape), ()
        length = x.shape[1]
        after_BT = jnp.pad(context.segments[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
        steps_T = jnp.arange(length)
        last_BT = jnp.where(context.segments != after_BT, steps_T, length)
        last_BT = jax.lax.cummin(last_BT, axis=1, reverse=True)
        return jnp.take_along_axis(x, last_BT[..., None], axis=1), ()
