"""Forecasters: the steps after those of a series, at once or one patch after the other."""

import flax.linen as nn
import jax.numpy as jnp

from recattn_jax.layers.base import SequenceLayer
from recattn_jax.layers.dense import Map, dense
from recattn_jax.shapes import Activations, Array, Float, State


class Forecaster(nn.Module):
    """The template of forecasters (abstract): each feature by itself, relative to its last value.

    `y = x_L + W r + b + f(r)` with `r = (x_1 - x_L, ..., x_L - x_L)`, all alike for all features.
    f reads patches of several steps: fewer and more telling steps for the body. It begins at zero,
    so that it learns what a linear map leaves over.

    Attributes:
      body: `[rows, patches, width] -> [rows, patches, E]`.
      width: of what a patch is mapped to.
      patch: steps of a patch, a divisor of L.
      horizon: H, how many steps are forecast.

    Call: `[B, L, D] -> [B, H, D]`, and no state.

    Raises:
      ValueError: if L is no multiple of the patch, or a state is given.

    Patches: Nie et al., A time series is worth 64 words, 2022, arXiv:2211.14730; the last value:
    Zeng et al., Are transformers effective for time series forecasting?, 2022, arXiv:2205.13504.
    """

    body: SequenceLayer
    width: int
    patch: int
    horizon: int

    def forecast(
        self, patches: Activations, linear: Float[Array, "rows H"]
    ) -> Float[Array, "rows H"]:
        """Forecasts each row.

        Args:
          patches: `[rows, patches, patch]`, relative to the last value of the row.
          linear: `[rows, H]`, what a linear map of all of them forecasts.

        Returns:
          `[rows, H]`, relative to the same.
        """
        raise NotImplementedError

    @nn.compact
    def __call__(
        self, x: Activations, state: State | None = None
    ) -> tuple[Float[Array, "B H D"], State]:
        """Forecasts; see the class."""
        name = type(self).__name__
        batch, steps, features = x.shape
        if steps % self.patch:
            raise ValueError(f"{name}: {steps} steps are no multiple of the patch, {self.patch}")
        if state:
            raise ValueError(f"{name}: a state was given, but every window starts afresh")
        last_BD = x[:, -1]
        rows_RL = jnp.swapaxes(x - last_BD[:, None], 1, 2).reshape(batch * features, steps)
        linear_RH = dense(self.horizon, name="linear")(rows_RL)
        patches = rows_RL.reshape(batch * features, -1, self.patch)
        y_BDH = self.forecast(patches, linear_RH).reshape(batch, features, self.horizon)
        return jnp.swapaxes(y_BDH, 1, 2) + last_BD[:, None], ()


class DirectForecaster(Forecaster):
    """All steps at once, from the last output of the body: `f = V body(patches)_last + b`.

    Attributes:
      body: `[rows, patches, width] -> [rows, patches, E]`, any.
      width: of what a patch is mapped to.
      patch: steps of a patch, a divisor of L.
      horizon: H, how many steps are forecast.

    >>> import jax
    >>> from recattn_jax.layers import LSTM
    >>> model = DirectForecaster(LSTM(8), width=8, patch=4, horizon=6)
    >>> model.init_with_output(jax.random.key(0), jnp.ones((2, 12, 3)))[0][0].shape
    (2, 6, 3)
    """

    def forecast(
        self, patches: Activations, linear: Float[Array, "rows H"]
    ) -> Float[Array, "rows H"]:
        y, _ = self.body(dense(self.width, name="embed")(patches))
        return linear + _readout(self.horizon)(y[:, -1])


class RollingForecaster(Forecaster):
    """One patch after the other, each read before the next is written; trained that way as well.

    Attributes:
      body: `[rows, patches, width] -> [rows, patches, E]`; streams: its state is carried from patch
        to patch.
      width: of what a patch is mapped to.
      patch: steps of a patch, a divisor of L.
      horizon: H, how many steps are forecast.

    Raises:
      ValueError: if the body does not stream.

    >>> import jax
    >>> from recattn_jax.layers import LSTM
    >>> model = RollingForecaster(LSTM(8), width=8, patch=4, horizon=6)
    >>> model.init_with_output(jax.random.key(0), jnp.ones((2, 12, 3)))[0][0].shape
    (2, 6, 3)
    """

    def forecast(
        self, patches: Activations, linear: Float[Array, "rows H"]
    ) -> Float[Array, "rows H"]:
        if not self.body.streams:
            raise ValueError("RollingForecaster: the body needs later steps; give one that streams")
        embed, readout = dense(self.width, name="embed"), _readout(self.patch)
        ahead = -(-self.horizon // self.patch)
        filled = jnp.pad(linear, ((0, 0), (0, ahead * self.patch - self.horizon)))
        linear_RPN = filled.reshape(len(linear), ahead, self.patch)
        y, state = self.body(embed(patches))
        written = [linear_RPN[:, :1] + readout(y[:, -1:])]
        for patch in range(1, ahead):
            y, state = self.body(embed(written[-1]), state)
            written.append(linear_RPN[:, patch : patch + 1] + readout(y))
        return jnp.concatenate(written, axis=1).reshape(len(linear), -1)[:, : self.horizon]


def _readout(features: int) -> Map:
    # Zero at first: before anything is learned, f says nothing.
    return dense(features, kernel_init=nn.initializers.zeros, name="readout")
