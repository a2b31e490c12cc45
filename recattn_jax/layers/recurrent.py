"""Recurrent layers: a template, and the cells that fill it.

A new cell says how many gates it has, how it starts and how one step advances; the template brings
the projection of the inputs, the scan, resets between documents, padding, streaming and gradients.
"""

import operator
from typing import ClassVar, final

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from recattn_jax import partition
from recattn_jax.kernels import recurrence, segments
from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.shapes import Activations, Array, Float, Int, State


@struct.dataclass
class RecurrentState:
    """What a recurrent layer carries on.

    Attributes:
      carry: float32 arrays `[B, H]`, the hidden state first.
      segment: `[B]`, the number of the last real step's document; 0 is nothing yet.
    """

    __no_type_check__ = True

    carry: recurrence.Carry
    segment: Int[Array, " B"]


class Recurrent(SequenceLayer):
    """The template of recurrent layers (abstract).

    `gates_t = x_t W + b + h_{t-1} U`, `carry_t = advance(carry_{t-1}, gates_t)`, `y_t = h_t`.

    Parameters keep the gate as an axis of its own, so that a split of H over devices keeps every
    gate of a unit together: `input_kernel [D, G, H]`, `recurrent_kernel [H, G, H]`, `bias [G, H]`.
    The carry is float32.
    """

    features: int

    gates: ClassVar[int]
    """How many gates the cell has, G."""
    leaves: ClassVar[int]
    """How many arrays `[B, H]` the carry has, the hidden state first."""

    @staticmethod
    def advance(carry: recurrence.Carry, gates_BGH: Array) -> recurrence.Carry:
        """One step, elementwise and without parameters: `(carry, gates [B, G, H]) -> carry`."""
        raise NotImplementedError

    @property
    def bias_init(self) -> nn.initializers.Initializer:
        """How `bias [G, H]` starts."""
        raise NotImplementedError

    @final
    @property
    def streams(self) -> bool:
        """Always."""
        return True

    @final
    @nn.compact
    def forward(
        self, x: Activations, state: State | None, context: Context
    ) -> tuple[Float[Array, "B T H"], RecurrentState]:
        """Runs the cell over x; see the template."""
        gates, width = self.gates, x.shape[-1]
        input_kernel = self.param(
            "input_kernel", per_gate_lecun, (width, gates, self.features), jnp.float32
        )
        recurrent_kernel = self.param(
            "recurrent_kernel", per_gate_orthogonal, (self.features, gates, self.features)
        )
        bias = self.param("bias", self.bias_init, (gates, self.features), jnp.float32)

        carry, steps = self._documents(x, state, context)
        hidden_BTH, carry = recurrence.scan_cell(
            recurrence.Cell(recurrence.affine, operator.add, self.advance),
            (partition.gather(input_kernel.astype(x.dtype)), partition.gather(bias)),
            partition.gather(recurrent_kernel.astype(x.dtype)),
            x,
            carry,
            steps.starts,
            steps.keep,
        )
        return hidden_BTH.astype(x.dtype), RecurrentState(carry, steps.segment)

    def _documents(
        self, x: Activations, state: State | None, context: Context
    ) -> tuple[recurrence.Carry, segments.Steps]:
        """The carry to start from, and where it is reset and kept."""
        batch = x.shape[0]
        if state is None:
            zeros_BH = jnp.zeros((batch, self.features))
            state = RecurrentState((zeros_BH,) * self.leaves, jnp.zeros((batch,), jnp.int32))
        if not isinstance(state, RecurrentState) or len(state.carry) != self.leaves:
            raise ValueError(
                f"{type(self).__name__}: state must be a RecurrentState of {self.leaves} arrays, "
                f"as an earlier call returned it; got {type(state).__name__}"
            )
        if state.segment.shape[0] != batch:
            raise ValueError(
                f"{type(self).__name__}: state is for a batch of {state.segment.shape[0]}, "
                f"x has {batch}"
            )
        return segments.follow_documents(state.carry, state.segment, context.segments)


class RNN(Recurrent):
    """The tanh recurrent network of Elman.

    `h_t = tanh(x_t W + h_{t-1} U + b)`.

    Attributes:
      features: units H.

    Call: `[B, T, D] -> [B, T, H]`; state: `RecurrentState(carry=(h,), segment)`.

    >>> layer = RNN(4)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]

    Elman, Finding structure in time, 1990.
    """

    gates = 1
    leaves = 1
    advance = staticmethod(recurrence.advance_elman)

    @property
    def bias_init(self) -> nn.initializers.Initializer:
        return nn.initializers.zeros


class LSTM(Recurrent):
    """Long short-term memory.

    `i, f, g, o = x_t W + h_{t-1} U + b`, `c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)`,
    `h_t = sigmoid(o) tanh(c_t)`.

    Attributes:
      features: units H.
      forget_bias: what the bias of f starts at; the others start at 0.

    Call: `[B, T, D] -> [B, T, H]`; state: `RecurrentState(carry=(h, c), segment)`.

    >>> layer = LSTM(4)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]

    Hochreiter and Schmidhuber, Long short-term memory, 1997; forget gate: Gers et al., 2000.
    """

    forget_bias: float = 1.0

    gates = 4
    leaves = 2
    advance = staticmethod(recurrence.advance_lstm)

    @property
    def bias_init(self) -> nn.initializers.Initializer:
        def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
            del key
            return jnp.zeros(shape, dtype).at[1].set(self.forget_bias)

        return init


per_gate_lecun = nn.initializers.lecun_normal(in_axis=0, out_axis=-1, batch_axis=1)
"""Each gate's `[D, H]` is a matrix of its own; variance 1 / D."""


def per_gate_orthogonal(key: Array, shape: tuple[int, int, int]) -> Float[Array, "K G H"]:
    """Starts each gate's `[K, H]` as an orthogonal matrix of its own.

    Args:
      key: a random key.
      shape: `(K, G, H)`.

    Returns:
      `[K, G, H]`, float32.

    >>> per_gate_orthogonal(jax.random.key(0), (4, 3, 4)).shape
    (4, 3, 4)
    """
    rows, gates, columns = shape
    orthogonal = nn.initializers.orthogonal()
    draw = jax.vmap(lambda key: orthogonal(key, (rows, columns)), out_axes=1)
    return draw(jax.random.split(key, gates))
