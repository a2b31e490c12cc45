"""Noise for recurrent layers, drawn outside the loop over time."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from recattn_jax.shapes import Activations, Array, DTypeLike, Float

RATES = ("inputs", "states", "zoneout", "weights")


@dataclasses.dataclass(frozen=True)
class Noise:
    """What is random in a recurrent layer while it is trained; all rates are 0 unless set.

    `gates_t = (x_t m_x) W + b + (h_{t-1} m_h) (U m_U)`, where an entry of a mask m is 0 with the
    given probability and `1 / (1 - probability)` otherwise; then zoneout,
    `carry_t = z_t carry_{t-1} + (1 - z_t) carry_t`, where an entry of `z_t` is 1 with probability
    `zoneout` and 0 otherwise.

    Without its rng stream nothing is drawn: nothing is dropped, and zoneout takes the expectation
    of `z_t`, its probability.

    A mask of the stream `variational` has no time axis. It is drawn once a call for each row, for
    all documents in it; its shape does not depend on T, so a sequence that is cut into several
    calls keeps its mask where each call is given the same `variational` key.

    Attributes:
      inputs: probability of dropping an entry of x.
      states: probability of dropping an entry of h, where it enters a recurrent product.
      per_step: whether those two are drawn for each step, from the stream `dropout`, or are the
        same over time, from the stream `variational`.
      zoneout: probability that an entry of the carry stays as it was, drawn for each step from the
        stream `dropout`.
      weights: probability of dropping an entry of the recurrent kernel, drawn once a call from the
        stream `variational`.

    Raises:
      ValueError: if a rate is not at least 0 and less than 1.

    >>> from recattn_jax.layers import LSTM
    >>> layer = LSTM(4, noise=Noise(inputs=0.2, states=0.2))

    Variational dropout: Gal and Ghahramani, 2015, arXiv:1512.05287; zoneout: Krueger et al., 2016,
    arXiv:1606.01305; weight drop: Merity et al., 2017, arXiv:1708.02182.
    """

    inputs: float = 0.0
    states: float = 0.0
    per_step: bool = False
    zoneout: float = 0.0
    weights: float = 0.0

    def __post_init__(self) -> None:
        for name in RATES:
            rate = getattr(self, name)
            if not 0.0 <= rate < 1.0:
                raise ValueError(f"Noise: {name}={rate} must be at least 0 and less than 1")

    def drop_inputs(self, layer: nn.Module, x: Activations) -> Activations:
        """Drops entries of x.

        Args:
          layer: whose rng streams are drawn from.
          x: `[B, T, D]`.

        Returns:
          x with the noise.
        """
        mask = self._over_time(layer, self.inputs, x.shape, x.dtype)
        return x if mask is None else x * mask

    def state_mask(
        self, layer: nn.Module, shape: tuple[int, int, int], dtype: DTypeLike
    ) -> Float[Array, "B _ P"] | None:
        """What h is multiplied by before a recurrent product.

        Args:
          layer: whose rng streams are drawn from.
          shape: `(B, T, P)`.
          dtype: of the mask.

        Returns:
          `[B, T, P]`, or `[B, 1, P]` where it is the same over time; None for no noise.
        """
        return self._over_time(layer, self.states, shape, dtype)

    def drop_weights(self, layer: nn.Module, kernel: Float[Array, "..."]) -> Float[Array, "..."]:
        """Drops entries of a kernel.

        Args:
          layer: whose rng streams are drawn from.
          kernel: `[...]`, any weights.

        Returns:
          `[...]`, the kernel with the noise.
        """
        mask = _draw(layer, "variational", self.weights, kernel.shape, kernel.dtype)
        return kernel if mask is None else kernel * mask

    def zoneout_mask(
        self, layer: nn.Module, shape: tuple[int, int, int], dtype: DTypeLike
    ) -> Float[Array, "_ T _"]:
        """Where an array of the carry stays as it was.

        Args:
          layer: whose rng streams are drawn from.
          shape: `(B, T, H)`.
          dtype: of the mask.

        Returns:
          Ones and zeros `[B, T, H]`, or their expectation `[1, T, 1]` where no stream is given.
        """
        if not layer.has_rng("dropout"):
            return jnp.full((1, shape[1], 1), self.zoneout, dtype)
        return jax.random.bernoulli(layer.make_rng("dropout"), self.zoneout, shape).astype(dtype)

    def _over_time(
        self, layer: nn.Module, rate: float, shape: tuple[int, ...], dtype: DTypeLike
    ) -> Array | None:
        if self.per_step:
            return _draw(layer, "dropout", rate, shape, dtype)
        return _draw(layer, "variational", rate, (shape[0], 1, shape[2]), dtype)


def _draw(
    layer: nn.Module, stream: str, rate: float, shape: tuple[int, ...], dtype: DTypeLike
) -> Array | None:
    """A mask of zeros, with chance `rate`, and `1 / (1 - rate)`; None where nothing is drawn."""
    if rate == 0.0 or not layer.has_rng(stream):
        return None
    kept = jax.random.bernoulli(layer.make_rng(stream), 1.0 - rate, shape)
    return jnp.where(kept, 1.0 / (1.0 - rate), 0.0).astype(dtype)
