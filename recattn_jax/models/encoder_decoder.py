"""The model of two sequences: an encoder whose outputs a decoder looks at."""

import dataclasses
from typing import Any

import flax.linen as nn

from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.models.readouts import Comparison, Predictions
from recattn_jax.models.sequence_model import SequenceModel
from recattn_jax.shapes import Array, State


class EncoderDecoder(nn.Module):
    """An encoder, and a decoder that looks at what it wrote: translation, summaries, speech.

    `memory = encoder(source)`, `predictions = decoder(target; memory)`: the outputs of the encoder
    are handed over as `Context.memory`, its segments as `Context.memory_segments`. So pairs are
    packed by giving the source and the target of a pair the same number, and without segments every
    step of the target looks at all of the source.

    What the decoder looks at is what the encoder puts out: an `Embed` alone hands over the embedded
    inputs, `Serial((Embed(..), LSTM(..)))` the states of a recurrence, `Parallel` of both both.

    Attributes:
      encoder: tokens `[B, S]` or features `[B, S, F]` to the memory `[B, S, M]`.
      decoder: reads the target shifted by one step, and predicts it; its body looks at the memory
        through `CrossAttention`.

    Call: `(source, target, source_context, target_context) -> (predictions, state)`. To decode,
    `encode` once and then `decode` step by step:

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from recattn_jax.layers import LSTM, CrossAttention, Embed, Residual, Serial
    >>> from recattn_jax.models import PerStep
    >>> body = Serial((LSTM(8), Residual(CrossAttention(heads=2))))
    >>> model = EncoderDecoder(
    ...     encoder=Serial((Embed(10, 8), LSTM(8))),
    ...     decoder=SequenceModel(Embed(12, 8), body, PerStep(12)),
    ... )
    >>> source, target = jnp.ones((2, 5), int), jnp.ones((2, 3), int)
    >>> variables = model.init(jax.random.key(0), source, target)
    >>> context = model.apply(variables, source, method="encode")
    >>> y, state = model.apply(variables, target[:, :1], None, context, method="decode")
    >>> y.shape
    (2, 1, 12)

    The memory is all that is handed over, no last state: a decoder without `CrossAttention` would
    not hear of the source.

    Bahdanau et al., Neural machine translation by jointly learning to align and translate, 2014,
    arXiv:1409.0473.
    """

    encoder: SequenceLayer
    decoder: SequenceModel

    @property
    def streams(self) -> bool:
        """Whether the decoder streams; the encoder need not, it always reads the whole source."""
        return self.decoder.streams

    def encode(self, source: Array, context: Context = Context()) -> Context:
        """Reads the source, once.

        Args:
          source: what the encoder takes: ids `[B, S]`, or features `[B, S, F]`.
          context: side inputs of the encoder; its `segments` `[B, S]` become the memory's.

        Returns:
          The context to decode with: the memory `[B, S, M]`, its segments, and what the decoder
          prepares of it. It has no segments of the target: `replace` them where there are any.
        """
        memory, _ = self.encoder(source, None, context)
        handed_over = Context(memory=memory, memory_segments=context.segments)
        return self.decoder.prepare(handed_over)

    def decode(
        self, target: Array, state: State | None, context: Context
    ) -> tuple[Predictions, State]:
        """Predicts from T >= 1 steps of the target.

        Args:
          target: what the decoder's frontend takes: ids `[B, T]`, or features `[B, T, F]`.
          state: the state that an earlier call returned; None for a fresh one.
          context: what `encode` returned, with the segments of the target, if any.

        Returns:
          Predictions `[B, T, V]`, float32, and the state after the target.

        Raises:
          ValueError: if the context has no memory.
        """
        if context.memory is None:
            raise ValueError(
                "EncoderDecoder.decode: context has no memory; pass the one that encode returned"
            )
        return self.decoder(target, state, context)

    def __call__(
        self,
        source: Array,
        target: Array,
        source_context: Context = Context(),
        target_context: Context = Context(),
    ) -> tuple[Predictions, State]:
        """Encodes the source and predicts from the whole target.

        Args:
          source: what the encoder takes: ids `[B, S]`, or features `[B, S, F]`.
          target: what the decoder's frontend takes: ids `[B, T]`, or features `[B, T, F]`.
          source_context: side inputs of the encoder.
          target_context: the segments of the target.

        Returns:
          Predictions `[B, T, V]`, float32, and the state after the target.

        Raises:
          ValueError: if the target's context has a memory: that comes from the encoder.
        """
        context = self._look(source, source_context, target_context)
        return self.decode(target, None, context)

    def compare(
        self,
        comparison: Comparison,
        labels: Any,
        source: Array,
        target: Array,
        source_context: Context = Context(),
        target_context: Context = Context(),
    ) -> tuple[Any, State]:
        """Compares what it predicts of the whole target with labels; see `SequenceModel.compare`.

        Args:
          comparison: what is to be known of predictions and labels, each step by itself.
          labels: `[B, T]`, or whatever the comparison takes beside the predictions.
          source: what the encoder takes: ids `[B, S]`, or features `[B, S, F]`.
          target: what the decoder's frontend takes: ids `[B, T]`, or features `[B, T, F]`.
          source_context: side inputs of the encoder.
          target_context: the segments of the target.

        Returns:
          What the comparison returns, and the state after the target.

        Raises:
          ValueError: as for the call.
        """
        context = self._look(source, source_context, target_context)
        return self.decoder.compare(comparison, labels, target, None, context)

    def _look(self, source: Array, source_context: Context, target_context: Context) -> Context:
        """The context of the decoder: the memory, and the segments of the target."""
        if target_context.memory is not None:
            raise ValueError(
                "EncoderDecoder: target_context has a memory, but the memory is what the encoder "
                "makes of the source; give segments only"
            )
        context = self.encode(source, source_context)
        return dataclasses.replace(context, segments=target_context.segments)
