"""The recurrent layer of the xLSTM family."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from recattn_jax.kernels import slstm
from recattn_jax.layers.recurrent import Recurrent
from recattn_jax.shapes import Array


class SLSTM(Recurrent):
    """The sLSTM of xLSTM: exponential gates, a normaliser n, and heads that do not see each other.

    `i, f, z, o = x_t W + h_{t-1} U + b`, with U block-diagonal,
    `m_t = max(log sigmoid(f) + m_{t-1}, i)`, `i' = exp(i - m_t)`,
    `f' = exp(log sigmoid(f) + m_{t-1} - m_t)`, `c_t = f' c_{t-1} + i' tanh(z)`,
    `n_t = f' n_{t-1} + i'`, `h_t = sigmoid(o) c_t / n_t`.

    In a fresh state n is 0, and `m_t` starts at i. c and n are in units of `e^m`, of which h is
    free: gradients are those of y, with m held constant. Zoneout keeps entries of h alone, as c, n
    and m hold one value between them.

    Attributes:
      features: units H.
      heads: N, with H / N units each; `recurrent_kernel [N, K, 4, K]`, K = H / N.
      noise: what is random where rng streams are given.
      remat_every: steps between the carries that are kept for the backward pass; None keeps all.

    The bias of f starts between 3 and 6, spread over the units; the others start at 0.

    Call: `[B, T, D] -> [B, T, H]`; state: `RecurrentState(carry=(h, c, n, m), segment)`.

    Raises:
      ValueError: if `features` does not divide by `heads`.

    >>> import jax
    >>> layer = SLSTM(4, heads=2)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]

    Beck et al., xLSTM, 2024, arXiv:2405.04517.
    """

    heads: int = 1

    gates = 4
    leaves = 4
    zoned = 1
    advance = staticmethod(slstm.advance_slstm)
    view = staticmethod(slstm.view_slstm)

    @property
    def recurrent_shape(self) -> tuple[int, ...]:
        if self.heads < 1 or self.features % self.heads:
            raise ValueError(
                f"SLSTM: heads={self.heads} must divide features, which are {self.features}"
            )
        size = self.features // self.heads
        return (self.heads, size, self.gates, size)

    @property
    def bias_init(self) -> nn.initializers.Initializer:
        def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
            del key
            return jnp.zeros(shape, dtype).at[1].set(jnp.linspace(3.0, 6.0, shape[1], dtype=dtype))

        return init
