"""A memory of a layer's own past outputs, for its attention to look at."""

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from recattn_jax.layers.base import Combinator, Context, SequenceLayer, check_state
from recattn_jax.layers.loops import blank, scan_over_time
from recattn_jax.shapes import Activations, Array, Float, Int, State


@struct.dataclass
class FeedbackMemoryState:
    """What a feedback memory carries on: output p of a document is kept in slot `p mod W`.

    Attributes:
      body: the state of the body.
      outputs: `[B, W, D]`, the body's outputs.
      owners: `[B, W]`, the document of each slot; 0 is empty.
      segment: `[B]`, the document of the last real step; 0 is nothing yet.
      position: `[B]`, steps of that document so far.

    >>> from recattn_jax.layers import CrossAttention, Residual
    >>> layer = FeedbackMemory(Residual(CrossAttention(heads=2)), window=3)
    >>> import jax
    >>> key, x = jax.random.key(0), jnp.ones((2, 5, 8))
    >>> state = jax.eval_shape(layer.init_with_output, key, x)[0][1]
    >>> state.outputs.shape
    (2, 3, 8)
    """

    __no_type_check__ = True

    body: State
    outputs: Float[Array, "B W D"]
    owners: Int[Array, "B W"]
    segment: Int[Array, " B"]
    position: Int[Array, " B"]


class FeedbackMemory(Combinator):
    """A body whose cross-attention looks at its own past outputs, in every layer of it.

    `y_t = body(x_t; memory = y_{t-W}, ..., y_{t-1})`, of the same document: even the lowest layer
    sees what the highest made of the steps before. So steps cannot run side by side, in training
    either. At the first step of a document attention sees nothing and gives zeros.

    Attributes:
      body: `[B, T, D] -> [B, T, D]`; streams, and looks at the memory through `CrossAttention`.
      window: W, how many past outputs are kept.

    Call: `[B, T, D] -> [B, T, D]`; state: `FeedbackMemoryState`. A memory in the context, such as
    an encoder's, is hidden from the body.

    Raises:
      ValueError: if the window is less than 1, the body does not stream or changes the width.

    >>> from recattn_jax.layers import CrossAttention, Residual
    >>> layer = FeedbackMemory(Residual(CrossAttention(heads=2)), window=16)
    >>> layer.streams
    True

    Fan et al., Addressing some limitations of transformers with feedback memory, 2020,
    arXiv:2002.09402; there the memory is a learned mean over the outputs of all layers.
    """

    body: SequenceLayer
    window: int

    def prepare(self, context: Context) -> Context:
        """Nothing: the memory in the context is not what the body looks at."""
        return context

    @nn.compact
    def forward(
        self, x: Activations, state: State | None, context: Context
    ) -> tuple[Activations, FeedbackMemoryState]:
        if self.window < 1:
            raise ValueError(f"FeedbackMemory: window={self.window} must be at least 1")
        if not self.body.streams:
            raise ValueError(
                "FeedbackMemory: the body needs later steps to compute earlier ones, but its own "
                "outputs are fed back; give it layers that stream"
            )
        if state is None:
            state = self._fresh(x)
        check_state(self, state, FeedbackMemoryState, x.shape[0])
        numbers_BT = context.segments
        if numbers_BT is None:
            numbers_BT = jnp.ones(x.shape[:2], jnp.int32)

        def step(
            layer: FeedbackMemory, state: FeedbackMemoryState, at: tuple[Array, Array]
        ) -> tuple[FeedbackMemoryState, Array]:
            return layer._step(state, *at)

        state, y = scan_over_time(step, self, state, (x, numbers_BT))
        return y, state

    def _step(
        self, state: FeedbackMemoryState, x: Float[Array, "B D"], numbers: Int[Array, " B"]
    ) -> tuple[FeedbackMemoryState, Float[Array, "B D"]]:
        """One step of the body, and its output written into the memory."""
        context = Context(
            segments=numbers[:, None], memory=state.outputs, memory_segments=state.owners
        )
        y_B1D, body = self.body(x[:, None], state.body, context)
        if y_B1D.shape[-1] != x.shape[-1]:
            raise ValueError(
                f"FeedbackMemory: the body maps width {x.shape[-1]} to {y_B1D.shape[-1]}; they must"
                " be equal"
            )
        real_B = numbers > 0
        position_B = jnp.where(real_B & (numbers != state.segment), 0, state.position)
        slot_B = jnp.where(real_B, position_B % self.window, self.window)  # padding writes none
        hit_BW = jnp.arange(self.window)[None, :] == slot_B[:, None]
        after = FeedbackMemoryState(
            body=body,
            outputs=jnp.where(hit_BW[..., None], y_B1D, state.outputs),
            owners=jnp.where(hit_BW, numbers[:, None], state.owners),
            segment=jnp.where(real_B, numbers, state.segment),
            position=position_B + real_B,
        )
        return after, y_B1D[:, 0]

    def _fresh(self, x: Activations) -> FeedbackMemoryState:
        batch, _, width = x.shape
        outputs = jnp.zeros((batch, self.window, width), x.dtype)
        owners = jnp.zeros((batch, self.window), jnp.int32)
        zeros_B = jnp.zeros((batch,), jnp.int32)
        empty = Context(segments=zeros_B[:, None], memory=outputs, memory_segments=owners)
        _, body = blank(self.body, x[:, :1], empty)
        return FeedbackMemoryState(body, outputs, owners, zeros_B, zeros_B)
