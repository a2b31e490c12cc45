"""The model of one sequence: a frontend, a body and a readout."""

from typing import Any

import flax.linen as nn
import jax

from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.models.readouts import Comparison, Predictions, Readout
from recattn_jax.shapes import Activations, Array, State


class SequenceModel(nn.Module):
    """A frontend, a body and a readout: language model, classifier, tagger, forecaster, decoder.

    Attributes:
      frontend: tokens `[B, T]` or features `[B, T, F]` to `[B, T, D]`; it sets the dtype of the
        activations.
      body: `[B, T, D] -> [B, T, E]`.
      readout: `[B, T, E]` to float32 predictions, of every step or of the whole row.

    Call: `(inputs, state, context) -> (predictions, state)`; state: `(frontend's, body's)`.

    >>> from recattn_jax.layers import LSTM, Embed
    >>> from recattn_jax.models import PerStep
    >>> model = SequenceModel(Embed(10, 8), LSTM(8), PerStep(10))
    >>> tokens = jax.numpy.ones((2, 5), int)
    >>> predictions, state = model.init_with_output(jax.random.key(0), tokens)[0]
    """

    frontend: SequenceLayer
    body: SequenceLayer
    readout: Readout

    @property
    def streams(self) -> bool:
        """Whether predictions never depend on later inputs, so that a state can carry on."""
        return self.frontend.streams and self.body.streams and self.readout.streams

    def prepare(self, context: Context) -> Context:
        """Does the work on `context.memory` that is the same at every step, before stepping.

        Args:
          context: side inputs with the memory.

        Returns:
          The context, with `prepared` filled; it changes no prediction.
        """
        return self.body.prepare(self.frontend.prepare(context))

    def __call__(
        self,
        inputs: Array,
        state: State | None = None,
        context: Context = Context(),
    ) -> tuple[Predictions, State]:
        """Predicts from T >= 1 steps.

        Args:
          inputs: what the frontend takes: ids `[B, T]`, or features `[B, T, F]`.
          state: the state that an earlier call returned; None for a fresh one.
          context: segments and memory, for all layers and the readout.

        Returns:
          Predictions, float32, `[B, T, V]`, or `[B, V]` from a readout that pools the steps, or a
          tuple of such from `Joint`; and the state after the inputs.
        """
        x, state = self._read(inputs, state, context)
        return self.readout(x, context), state

    def compare(
        self,
        comparison: Comparison,
        labels: Any,
        inputs: Array,
        state: State | None = None,
        context: Context = Context(),
    ) -> tuple[Any, State]:
        """Compares what it predicts with labels: `comparison(predictions, labels)`.

        Where the readout has a `chunk`, predictions of all steps never stand in memory together.

        Args:
          comparison: what is to be known of predictions and labels, each step by itself.
          labels: `[B, T]`, or whatever the comparison takes beside the predictions.
          inputs: what the frontend takes: ids `[B, T]`, or features `[B, T, F]`.
          state: the state that an earlier call returned; None for a fresh one.
          context: segments and memory, for all layers and the readout.

        Returns:
          What the comparison returns, and the state after the inputs.

        >>> import optax
        >>> from recattn_jax.layers import LSTM, Embed
        >>> from recattn_jax.models import PerStep
        >>> model = SequenceModel(Embed(10, 8), LSTM(8), PerStep(10, chunk=4))
        >>> tokens = jax.numpy.ones((2, 5), int)
        >>> variables = model.init(jax.random.key(0), tokens)
        >>> nats = optax.softmax_cross_entropy_with_integer_labels
        >>> model.apply(variables, nats, tokens, tokens, method="compare")[0].shape
        (2, 5)
        """
        x, state = self._read(inputs, state, context)
        return self.readout.compare(comparison, labels, x, context), state

    def _read(
        self, inputs: Array, state: State | None, context: Context
    ) -> tuple[Activations, State]:
        before: tuple[State, State] = (None, None)
        if state is not None and jax.tree.leaves(state):
            if not self.streams:
                raise ValueError(
                    "SequenceModel: a state was given, but the model needs later steps to predict "
                    "earlier ones, so it cannot carry on; pass state=None"
                )
            before = state
        x, frontend_state = self.frontend(inputs, before[0], context)
        x, body_state = self.body(x, before[1], context)
        return x, (frontend_state, body_state) if self.streams else ()
