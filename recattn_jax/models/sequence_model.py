"""The model of one sequence: a frontend, a body and a readout."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.shapes import Activations, Array, Float, State


class PerStep(nn.Module):
    """Reads outputs off every step, `y_t = x_t W + b`, in float32 whatever the dtype of x.

    Attributes:
      outputs: V, for a language model the size of the vocabulary.

    Call: `[B, T, D] -> [B, T, V]`.

    >>> PerStep(4).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0].shape
    (2, 5, 4)
    """

    outputs: int

    @nn.compact
    def __call__(self, x: Activations) -> Float[Array, "B T V"]:
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.outputs), jnp.float32
        )
        bias = self.param("bias", nn.initializers.zeros, (self.outputs,), jnp.float32)
        logits_BTV = jnp.einsum(
            "btd,dv->btv", x, kernel.astype(x.dtype), preferred_element_type=jnp.float32
        )
        return logits_BTV + bias[None, None, :].astype(jnp.float32)


class SequenceModel(nn.Module):
    """A frontend, a body of sequence layers and a readout: language model, tagger, forecaster.

    Attributes:
      frontend: tokens `[B, T]` or features `[B, T, F]` to `[B, T, D]`; it sets the dtype of the
        activations.
      body: `[B, T, D] -> [B, T, E]`.
      readout: `[B, T, E]` to float32 predictions.

    Call: `(inputs, state, context) -> (predictions, state)`; state: `(frontend's, body's)`.

    >>> from recattn_jax.layers import LSTM, Embed
    >>> model = SequenceModel(Embed(10, 8), LSTM(8), PerStep(10))
    >>> y, state = model.init_with_output(jax.random.key(0), jnp.ones((2, 5), int))[0]
    """

    frontend: SequenceLayer
    body: SequenceLayer
    readout: nn.Module

    @property
    def streams(self) -> bool:
        """Whether predictions never depend on later inputs."""
        return self.frontend.streams and self.body.streams

    def __call__(
        self,
        inputs: Array,
        state: State | None = None,
        context: Context = Context(),  # noqa: B008
    ) -> tuple[Float[Array, "B T V"], State]:
        """Predicts from T >= 1 steps.

        Args:
          inputs: what the frontend takes.
          state: the state that an earlier call returned; None for a fresh one.
          context: segments and memory, for all layers.

        Returns:
          Predictions `[B, T, V]`, float32, and the state after the inputs.
        """
        before: tuple[State, State] = (None, None)
        if state is not None and jax.tree.leaves(state):
            before = state
        x, frontend_state = self.frontend(inputs, before[0], context)
        x, body_state = self.body(x, before[1], context)
        return self.readout(x), (frontend_state, body_state) if self.streams else ()
