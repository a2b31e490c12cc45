"""Combinators over time: they reverse it, cut it, look back in it, or step through it."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from recattn_jax.kernels import segments
from recattn_jax.layers.base import (
    Combinator,
    Context,
    SequenceLayer,
    check_state,
)
from recattn_jax.layers.combine import Combine, concat
from recattn_jax.layers.loops import blank, scan_over_time
from recattn_jax.shapes import Activations, Array, Float, Int, State


class Bidirectional(Combinator):
    """One layer forwards in time beside another one backwards; it does not stream.

    `y = combine([forward(x), reverse(backward(reverse(x)))])`. Rows are reversed as they are, with
    their segments: padding is no step, so a padded document is read from its own end.

    Attributes:
      forward_layer: reads from the start.
      backward_layer: reads from the end.
      combine: `concat`, `add`, or any function or module of a list of arrays `[B, T, E_i]`.

    Call: `[B, T, D] -> [B, T, E]`; no state.

    Raises:
      ValueError: if the two are one instance.

    >>> from recattn_jax.layers import LSTM
    >>> layer = Bidirectional(LSTM(4), LSTM(4))

    Schuster and Paliwal, Bidirectional recurrent neural networks, 1997.
    """

    forward_layer: SequenceLayer
    backward_layer: SequenceLayer
    combine: Combine = concat

    @property
    def streams(self) -> bool:
        """Never: the first output depends on the last input."""
        return False

    def forward(self, x: Array, state: None, context: Context) -> tuple[Array, State]:
        def reverse(x: Array) -> Array:
            return jnp.flip(x, axis=1)

        onward, _ = self.forward_layer(x, None, context)
        back, _ = self.backward_layer(reverse(x), None, context.over_time(reverse))
        return self.combine([onward, reverse(back)]), ()


@struct.dataclass
class ChunkedState:
    """What a chunked layer carries on.

    Attributes:
      layer: the state of the layer inside.
      segment: `[B]`, the document of the last real step; 0 is nothing yet.
      position: `[B]`, steps of that document so far.
      chunk: `[B]`, the number of the last chunk.

    >>> from recattn_jax.layers import SelfAttention
    >>> layer = Chunked(SelfAttention(heads=2, window=4), size=4)
    >>> key, x = jax.random.key(0), jnp.ones((2, 5, 8))
    >>> state = jax.eval_shape(layer.init_with_output, key, x)[0][1]
    >>> state.chunk.shape
    (2,)
    """

    __no_type_check__ = True

    layer: State
    segment: Int[Array, " B"]
    position: Int[Array, " B"]
    chunk: Int[Array, " B"]


class Chunked(Combinator):
    """Runs a layer on chunks of every document, each as if it were a document of its own.

    `y = [layer(x_1 ... x_size), layer(x_{size+1} ... x_{2 size}), ...]`; the last chunk of a
    document may be shorter. Chunks are counted from the start of each document.

    Attributes:
      layer: the layer. Give attention inside `window=size`: it then sees all of its chunk, in time
        and memory linear in T, and streams where it is causal.
      size: steps of a chunk.

    Call: `[B, T, D] -> [B, T, E]`; state: `ChunkedState`.

    Raises:
      ValueError: if the size is less than 1.

    >>> from recattn_jax.layers import SelfAttention
    >>> layer = Chunked(SelfAttention(heads=2, causal=False, window=16), size=16)
    """

    layer: SequenceLayer
    size: int

    def forward(
        self, x: Array, state: State | None, context: Context
    ) -> tuple[Array, ChunkedState]:
        if self.size < 1:
            raise ValueError(f"Chunked: size={self.size} must be at least 1")
        if state is None:
            zeros_B = jnp.zeros((x.shape[0],), jnp.int32)
            state = ChunkedState(None, zeros_B, zeros_B, zeros_B)
        check_state(self, state, ChunkedState, x.shape[0])
        places = segments.follow_positions(
            context.segments, x.shape[1], state.segment, state.position
        )
        real_BT = places.segments > 0
        begins_BT = real_BT & (places.positions % self.size == 0)
        chunks_BT = state.chunk[:, None] + jnp.cumsum(begins_BT, axis=1, dtype=jnp.int32)
        numbers_BT = jnp.where(real_BT, chunks_BT, 0)
        y, inner = self.layer(x, state.layer, context.renumber(numbers_BT))
        return y, ChunkedState(inner, places.segment, places.position, chunks_BT[:, -1])


@struct.dataclass
class LocalState:
    """The last inputs that a local layer saw, the newest last.

    Attributes:
      inputs: `[B, W - 1, D]`.
      segments: `[B, W - 1]`, the document of each; 0 is nothing yet.

    >>> from recattn_jax.layers import LSTM
    >>> layer = Local(LSTM(8), window=4)
    >>> key, x = jax.random.key(0), jnp.ones((2, 5, 8))
    >>> state = jax.eval_shape(layer.init_with_output, key, x)[0][1]
    >>> state.inputs.shape
    (2, 3, 8)
    """

    __no_type_check__ = True

    inputs: Array
    segments: Int[Array, "B W"]


class Local(Combinator):
    """Runs a layer afresh over the last steps of every step, and takes its last output.

    `y_t = last(layer(x_{t-window+1} ... x_t))`, over steps of the same document. Nothing is carried
    from one window to the next, so the layer inside may be any; this one always streams. Time and
    memory are those of the layer over `window * T` steps.

    Attributes:
      layer: the layer.
      window: steps that an output depends on, its own included.

    Call: `[B, T, D] -> [B, T, E]`; state: `LocalState`.

    Raises:
      ValueError: if the window is less than 1.

    >>> from recattn_jax.layers import LSTM
    >>> layer = Local(LSTM(8), window=7)

    Wang et al., R-Transformer, 2019, arXiv:1907.05572.
    """

    layer: SequenceLayer
    window: int

    @property
    def streams(self) -> bool:
        """Always."""
        return True

    def forward(self, x: Array, state: State | None, context: Context) -> tuple[Array, LocalState]:
        if self.window < 1:
            raise ValueError(f"Local: window={self.window} must be at least 1")
        batch, length = x.shape[:2]
        before = self.window - 1
        if state is None:
            inputs = jnp.zeros((batch, before, *x.shape[2:]), x.dtype)
            state = LocalState(inputs, jnp.zeros((batch, before), jnp.int32))
        check_state(self, state, LocalState, batch)
        if state.segments.shape[1] != before:
            raise ValueError(
                f"Local: state is for window={state.segments.shape[1] + 1}, "
                f"but the layer has window={self.window}"
            )
        numbers_BT = context.segments
        if numbers_BT is None:
            numbers_BT = jnp.ones((batch, length), jnp.int32)
        # Without its padding, a row's last steps stand side by side, whatever stood between them.
        order_BT, rank_BT = segments.compact(numbers_BT)
        packed = segments.take_steps(x, order_BT), segments.take_steps(numbers_BT, order_BT)
        recent, numbers = (
            jnp.concatenate(pair, axis=1)
            for pair in zip((state.inputs.astype(x.dtype), state.segments), packed, strict=True)
        )

        window_TW = jnp.arange(length)[:, None] + jnp.arange(self.window)[None, :]
        own_BTW = numbers[:, window_TW]
        own_BTW = jnp.where(own_BTW == packed[1][:, :, None], own_BTW, 0)
        looks_at = context.looks_at
        if looks_at is not None:
            looks_at = segments.take_steps(looks_at, order_BT)

        def run(
            layer: SequenceLayer, x_BW: Array, own_BW: Array, looks_at_B: Array | None
        ) -> Float[Array, "B E"]:
            here = dataclasses.replace(context, segments=own_BW)
            if looks_at_B is not None:
                here = dataclasses.replace(
                    here,
                    looks_at=jnp.broadcast_to(looks_at_B[:, None], own_BW.shape),
                )
            return layer(x_BW, None, here)[0][:, -1]

        # Over windows and not over more rows: side inputs are the same for every window of a row.
        over_windows = nn.vmap(
            run,
            in_axes=1,
            out_axes=1,
            variable_axes={"params": None, "intermediates": 0},
            split_rngs={"params": False, "dropout": True, "variational": False},
        )
        y = over_windows(self.layer, recent[:, window_TW], own_BTW, looks_at)
        real_B1 = jnp.sum(numbers_BT > 0, axis=1)[:, None]
        last_BW = real_B1 + jnp.arange(before)[None, :]
        return segments.take_steps(y, rank_BT), LocalState(
            segments.take_steps(recent, last_BW), segments.take_steps(numbers, last_BW)
        )


@struct.dataclass
class FeedbackState:
    """What a layer with feedback carries on.

    Attributes:
      body: the state of the body.
      output: `[B, E]`, the output of the last real step.
      segment: `[B]`, the document of the last real step; 0 is nothing yet.

    >>> from recattn_jax.layers import LSTM
    >>> layer = Feedback(LSTM(4), features=4)
    >>> key, x = jax.random.key(0), jnp.ones((2, 5, 8))
    >>> state = jax.eval_shape(layer.init_with_output, key, x)[0][1]
    >>> state.output.shape
    (2, 4)
    """

    __no_type_check__ = True

    body: State
    output: Float[Array, "B E"]
    segment: Int[Array, " B"]


class Feedback(Combinator):
    """Joins the last output to every input: input feeding.

    `y_t = body([x_t; y_{t-1}])`, `y_0 = 0` at the start of every document. It goes step by step;
    what the body makes of the memory is made once, before.

    Attributes:
      body: a layer that streams and maps width D + E to E.
      features: output width E.

    Call: `[B, T, D] -> [B, T, E]`; state: `FeedbackState`.

    Raises:
      ValueError: if the body does not stream, or its output is not `features` wide.

    >>> from recattn_jax.layers import LSTM
    >>> layer = Feedback(LSTM(8), features=8)

    Luong et al., Effective approaches to attention-based neural machine translation, 2015,
    arXiv:1508.04025.
    """

    accepts: ClassVar[tuple[Any, ...]] = (jnp.floating,)

    body: SequenceLayer
    features: int

    def forward(
        self, x: Activations, state: State | None, context: Context
    ) -> tuple[Float[Array, "B T E"], FeedbackState]:
        if not self.body.streams:
            raise ValueError(
                f"Feedback: body ({type(self.body).__name__}) must stream, to be run step by step; "
                "give its attention causal=True and a window, and leave out Bidirectional"
            )
        context = self.body.prepare(context)
        batch = x.shape[0]
        if state is None:
            state = self._fresh(x, context)
        check_state(self, state, FeedbackState, batch)
        output, steps = segments.follow_documents(
            state.output.astype(x.dtype), state.segment, context.segments
        )

        def step(
            body: SequenceLayer, carry: tuple[State, Array], inputs: Any
        ) -> tuple[tuple[State, Array], Array]:
            state, output = carry
            x_BD, start_B, keep_B, timed = inputs
            if start_B is not None:
                output = jnp.where(start_B[:, None], 0, output)
            joined = jnp.concatenate([x_BD, output], axis=-1)[:, None]
            segments_B1, looks_at_B1 = jax.tree.map(lambda a: a[:, None], timed)
            here = dataclasses.replace(context, segments=segments_B1, looks_at=looks_at_B1)
            y, state = body(joined, state, here)
            if y.shape[-1] != self.features:
                raise ValueError(
                    f"Feedback: features={self.features} must be the width of the body's output, "
                    f"which is {y.shape[-1]}"
                )
            output = y[:, 0] if keep_B is None else jnp.where(keep_B[:, None], y[:, 0], output)
            return (state, output), y[:, 0]

        (inner, output), y = scan_over_time(
            step,
            self.body,
            (state.body, output),
            (x, steps.starts, steps.keep, (context.segments, context.looks_at)),
        )
        return y, FeedbackState(inner, output, steps.segment)

    def _fresh(self, x: Activations, context: Context) -> FeedbackState:
        batch, _, width = x.shape
        joined = jnp.zeros((batch, 1, width + self.features), x.dtype)
        here = context.over_time(lambda a: a[:, :1])
        return FeedbackState(
            blank(self.body, joined, here)[1],
            jnp.zeros((batch, self.features), x.dtype),
            jnp.zeros((batch,), jnp.int32),
        )
