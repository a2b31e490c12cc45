"""Recurrent layers whose gates do not look at the hidden state: linear recurrences in parallel.

A new layer says how it makes decays and inputs from x; the template brings the recurrence, resets
between documents, padding, streaming and gradients.
"""

import dataclasses
from typing import final

import flax.linen as nn
import jax
import jax.numpy as jnp

from recattn_jax.kernels.linear_recurrence import linear_recurrence
from recattn_jax.kernels.precision import wide
from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.layers.initializers import per_gate_lecun
from recattn_jax.layers.recurrent_state import RecurrentState, resume
from recattn_jax.shapes import Activations, Array, DTypeLike, Float, State

DecayAndInput = tuple[Float[Array, "B T H"], Float[Array, "B T H"]]


class LinearRecurrent(SequenceLayer):
    """The template of elementwise linear recurrences (abstract).

    `h_t = a_t h_{t-1} + b_t`, with a and b functions of x_t alone. The carry, decays and inputs are
    float32, or float64 where x is.

    With `mutable=["intermediates"]` all `carries` and `gates` come out too, arrays `[B, T, H]`: the
    gates `decay`, a, and `input`, b, are what x makes of them, at starts and padding too.
    """

    @property
    def implementation(self) -> str | None:
        """Of the recurrence, as in `kernels.linear_recurrence`: a field of every layer."""
        raise NotImplementedError

    def decay_and_input(self, x: Activations) -> DecayAndInput:
        """a, from 0 to 1, and b of every step; float32 at least."""
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
        """Runs the recurrence over x; see the template."""
        decay_BTH, input_BTH = self.decay_and_input(x)
        (hidden_BH,), steps = resume(self, (jnp.zeros_like(decay_BTH[:, 0]),), state, context)
        hidden_BTH, hidden_BH = linear_recurrence(
            decay_BTH, input_BTH, hidden_BH, steps.starts, steps.keep, self.implementation
        )
        self.sow("intermediates", "carries", (hidden_BTH,))
        self.sow("intermediates", "gates", {"decay": decay_BTH, "input": input_BTH})
        return hidden_BTH.astype(x.dtype), RecurrentState((hidden_BH,), steps.segment)


class MinGRU(LinearRecurrent):
    """The minimal gated recurrent unit.

    `z = sigmoid(x_t W_z + b_z)`, `n = x_t W_n + b_n`, `h_t = (1 - z) h_{t-1} + z n`.

    Parameters, gates in the order z, n: `input_kernel [D, 2, H]`, `bias [2, H]`.

    Attributes:
      features: units H.
      implementation: of the recurrence, "associative", "sequential" or "pallas"; None is by device.

    Call: `[B, T, D] -> [B, T, H]`; state: `RecurrentState(carry=(h,), segment)`.

    >>> layer = MinGRU(4)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]

    Feng et al., Were RNNs all we needed?, 2024, arXiv:2410.01201.
    """

    features: int
    implementation: str | None = dataclasses.field(default=None, kw_only=True)

    def decay_and_input(self, x: Activations) -> DecayAndInput:
        z, n = _project(self, x, 2, self.features)
        return jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * n


class MinLSTM(LinearRecurrent):
    """The minimal long short-term memory, with gates that sum to 1.

    `f, i = sigmoid(x_t W_f + b_f), sigmoid(x_t W_i + b_i)`, `n = x_t W_n + b_n`,
    `h_t = f / (f + i) h_{t-1} + i / (f + i) n`.

    Parameters, gates in the order f, i, n: `input_kernel [D, 3, H]`, `bias [3, H]`.

    Attributes:
      features: units H.
      implementation: of the recurrence, "associative", "sequential" or "pallas"; None is by device.

    Call: `[B, T, D] -> [B, T, H]`; state: `RecurrentState(carry=(h,), segment)`.

    >>> layer = MinLSTM(4)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]

    Feng et al., Were RNNs all we needed?, 2024, arXiv:2410.01201.
    """

    features: int
    implementation: str | None = dataclasses.field(default=None, kw_only=True)

    def decay_and_input(self, x: Activations) -> DecayAndInput:
        f, i, n = _project(self, x, 3, self.features)
        # f / (f + i) by the logarithms of both: no quotient of two numbers that may both vanish.
        odds = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)
        return jax.nn.sigmoid(odds), jax.nn.sigmoid(-odds) * n


class RGLRU(LinearRecurrent):
    """The real-gated linear recurrent unit of Griffin.

    `r, i = sigmoid(x_t W_r + b_r), sigmoid(x_t W_i + b_i)`, `a = exp(-8 softplus(L) r)`,
    `h_t = a h_{t-1} + sqrt(1 - a^2) (i x_t)`.

    The W are block-diagonal: a head's gates see the channels of that head only. Parameters, gates
    in the order r, i: `gate_kernel [H, K, 2, K]`, `gate_bias [2, H, K]` with K = D / H, and
    `decay [D]`, which is L. It starts such that a is uniform from 0.9 to 0.999 where r is 1.

    Attributes:
      heads: blocks H of the gates; the width of x must divide by it.
      implementation: of the recurrence, "associative", "sequential" or "pallas"; None is by device.

    Call: `[B, T, D] -> [B, T, D]`; state: `RecurrentState(carry=(h,), segment)`.

    Raises:
      ValueError: if D does not divide by `heads`.

    >>> layer = RGLRU(heads=2)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 4)))[0]

    De et al., Griffin, 2024, arXiv:2402.19427.
    """

    heads: int
    implementation: str | None = dataclasses.field(default=None, kw_only=True)

    def decay_and_input(self, x: Activations) -> DecayAndInput:
        batch, length, width = x.shape
        if self.heads < 1 or width % self.heads:
            raise ValueError(
                f"RGLRU: heads={self.heads} must divide the width of x, which is {width}"
            )
        size = width // self.heads
        kernel_HKGK = self.param(
            "gate_kernel", _per_block_lecun, (self.heads, size, 2, size), jnp.float32
        )
        bias_GHK = self.param(
            "gate_bias", nn.initializers.zeros, (2, self.heads, size), jnp.float32
        )
        decay_D = self.param("decay", _decay_init, (width,), jnp.float32)

        dtype = wide(x.dtype)
        gates_GBTHK = jnp.einsum(
            "bthk,hkgj->gbthj",
            x.reshape((batch, length, self.heads, size)),
            kernel_HKGK.astype(x.dtype),
            preferred_element_type=dtype,
        )
        gates_GBTHK += bias_GHK.astype(dtype)[:, None, None]
        r, i = jax.nn.sigmoid(gates_GBTHK).reshape((2, *x.shape))
        log_decay = -_DECAY_SCALE * jax.nn.softplus(decay_D.astype(dtype))[None, None] * r
        # 1 - a^2 without cancellation. Where a is 1 it is 0, at which sqrt has no finite slope.
        room = jnp.maximum(-jnp.expm1(2.0 * log_decay), _LEAST_ROOM)
        return jnp.exp(log_decay), jnp.sqrt(room) * i * x.astype(dtype)


_DECAY_SCALE = 8.0
"""c of the paper: how much faster than `softplus(L)` a unit may forget."""
_LEAST_ROOM = 1e-12


def _project(layer: nn.Module, x: Activations, gates: int, features: int) -> list[Array]:
    """The gates before their nonlinearities, `x W + b`, each `[B, T, H]`; float32 at least."""
    kernel_DGH = layer.param(
        "input_kernel", per_gate_lecun, (x.shape[-1], gates, features), jnp.float32
    )
    bias_GH = layer.param("bias", nn.initializers.zeros, (gates, features), jnp.float32)
    dtype = wide(x.dtype)
    projected_GBTH = jnp.einsum(
        "btd,dgh->gbth", x, kernel_DGH.astype(x.dtype), preferred_element_type=dtype
    )
    return list(projected_GBTH + bias_GH.astype(dtype)[:, None, None])


_per_block_lecun = nn.initializers.lecun_normal(in_axis=1, out_axis=3, batch_axis=(0, 2))


def _decay_init(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """L with `exp(-8 softplus(L))` uniform from 0.9 to 0.999."""
    slowest = jax.random.uniform(key, shape, dtype, minval=0.9, maxval=0.999)
    return jnp.log(jnp.expm1(-jnp.log(slowest) / _DECAY_SCALE))
