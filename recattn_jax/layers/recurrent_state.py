"""What recurrent layers carry on from call to call, and where a call takes it up."""

import jax
import jax.numpy as jnp
from flax import struct

from recattn_jax.kernels import recurrence, segments
from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.shapes import Array, Int, State


@struct.dataclass
class RecurrentState:
    """What a recurrent layer carries on.

    Attributes:
      carry: arrays `[B, H]`, float32 or wider, the hidden state first.
      segment: `[B]`, the number of the last real step's document; 0 is nothing yet.

    >>> from recattn_jax.layers import LSTM
    >>> layer = LSTM(4)
    >>> key, x = jax.random.key(0), jnp.ones((2, 5, 8))
    >>> state = jax.eval_shape(layer.init_with_output, key, x)[0][1]
    >>> state.carry[0].shape, state.segment.shape
    ((2, 4), (2,))
    """

    __no_type_check__ = True

    carry: recurrence.Carry
    segment: Int[Array, " B"]


def resume(
    layer: SequenceLayer, fresh: recurrence.Carry, state: State | None, context: Context
) -> tuple[recurrence.Carry, segments.Steps]:
    """The carry to start from, and where it is reset and kept.

    Args:
      layer: the layer, for the message.
      fresh: the carry of a fresh state, arrays `[B, ...]`.
      state: what an earlier call returned; None for nothing.
      context: side inputs.

    Returns:
      A carry with the structure of `fresh`, and the steps.

    Raises:
      ValueError: if the state is another layer's, or has another batch.

    >>> from recattn_jax.layers import LSTM
    >>> layer = LSTM(2)
    >>> resume(layer, (jnp.zeros((1, 2)),), None, Context())[1].segment.tolist()
    [1]
    """
    name, batch = type(layer).__name__, fresh[0].shape[0]
    if state is None:
        state = RecurrentState(fresh, jnp.zeros((batch,), jnp.int32))
    if not isinstance(state, RecurrentState) or len(state.carry) != len(fresh):
        raise ValueError(
            f"{name}: state must be a RecurrentState of {len(fresh)} arrays, as an earlier call "
            f"returned it; got {type(state).__name__}"
        )
    if state.segment.shape[0] != batch:
        raise ValueError(f"{name}: state is for a batch of {state.segment.shape[0]}, x has {batch}")
    for kept, own in zip(state.carry, fresh, strict=True):
        if kept.shape != own.shape:
            raise ValueError(
                f"{name}: state carries an array {list(kept.shape)} where this layer has "
                f"{list(own.shape)}; it is the state of another layer"
            )
    carry = jax.tree.map(lambda own, kept: kept.astype(own.dtype), fresh, state.carry)
    return segments.follow_documents(carry, state.segment, context.segments)
