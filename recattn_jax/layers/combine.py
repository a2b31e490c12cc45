"""Ways of combining the outputs of layers: `combine([y_1, ..., y_n])`, step by step.

Plain functions, and small Linen modules where the combination is learned; both serve as `combine`
in `Parallel`, `Bidirectional` and `AttendToInput`, and as `gate` in `BlockRecurrent`.
"""

import operator
from collections.abc import Callable, Sequence
from functools import reduce

import flax.linen as nn
import jax.numpy as jnp

from recattn_jax.layers.dense import Map, dense
from recattn_jax.shapes import Array, Float

Combine = Callable[[Sequence[Array]], Array]
"""A function, or a Linen module, of a list of arrays `[B, T, E_i]`."""


def add(outputs: Sequence[Array]) -> Array:
    """Adds the outputs of parallel layers.

    Args:
      outputs: arrays of one shape, `[B, T, D]`.

    Returns:
      Their sum, `[B, T, D]`.

    Raises:
      ValueError: if the shapes differ: a width of one would be spread over the others in silence.

    >>> add([jnp.ones(2), jnp.ones(2)]).tolist()
    [2.0, 2.0]
    """
    _refuse_unequal("add", outputs)
    return reduce(operator.add, outputs)


def concat(outputs: Sequence[Array]) -> Array:
    """Joins the outputs of parallel layers along their width.

    Args:
      outputs: arrays `[B, T, E_i]`.

    Returns:
      `[B, T, sum of E_i]`.

    >>> concat([jnp.ones((1, 1, 2)), jnp.ones((1, 1, 3))]).shape
    (1, 1, 5)
    """
    return jnp.concatenate(outputs, axis=-1)


def multiply(outputs: Sequence[Array]) -> Array:
    """Multiplies the outputs of parallel layers, entry by entry: one gates the other.

    Args:
      outputs: arrays of one shape, `[B, T, D]`.

    Returns:
      Their product, `[B, T, D]`.

    Raises:
      ValueError: if the shapes differ.

    >>> multiply([jnp.full(2, 3.0), jnp.full(2, 2.0)]).tolist()
    [6.0, 6.0]
    """
    _refuse_unequal("multiply", outputs)
    return reduce(operator.mul, outputs)


class Gate(nn.Module):
    """A learned gate between two outputs, channel by channel.

    `g = sigmoid(W [a; b] + c)`, `y = g a + (1 - g) b`.

    Call: two arrays `[B, T, D] -> [B, T, D]`.

    Raises:
      ValueError: if there are not two outputs, or their widths differ.

    >>> from recattn_jax.layers import LSTM, Parallel, SelfAttention
    >>> layer = Parallel((LSTM(8), SelfAttention(heads=2, window=16)), combine=Gate())
    """

    @nn.compact
    def __call__(self, outputs: Sequence[Array]) -> Float[Array, "B T D"]:
        """Mixes the first output with the second."""
        first, second = _pair("Gate", outputs)
        gate = nn.sigmoid(_dense(first, "gate")(concat(outputs)))
        return gate * first + (1 - gate) * second


class NormalizedMean(nn.Module):
    """The mean of the outputs, each normalised and scaled by channel first.

    `y = 1/n sum_i s_i a_i / sqrt(mean(a_i^2) + epsilon)`, so that no branch outweighs the others.

    Attributes:
      epsilon: added to the mean square; statistics are float32.

    Call: arrays `[B, T, D] -> [B, T, D]`.

    Raises:
      ValueError: if the widths differ.

    >>> from recattn_jax.layers import LSTM, Parallel, SelfAttention
    >>> layer = Parallel((LSTM(8), SelfAttention(heads=2, window=16)), combine=NormalizedMean())

    Dong et al., Hymba, 2024, arXiv:2411.13676.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, outputs: Sequence[Array]) -> Float[Array, "B T D"]:
        """Normalises every output and takes their mean."""
        _refuse_unequal("NormalizedMean", outputs)
        normalized = [
            nn.RMSNorm(epsilon=self.epsilon, dtype=y.dtype, name=f"norm_{i}")(y)
            for i, y in enumerate(outputs)
        ]
        return add(normalized) / len(outputs)


class FixedGate(nn.Module):
    """A learned moving average of a state, the same at every update.

    `y = g a + (1 - g) (W b + c)`, `g = sigmoid(p)`, with one p a channel.

    Call: the state and its candidate, `[B, S, D]` each `-> [B, S, D]`.

    Raises:
      ValueError: if there are not two arrays, or their widths differ.

    >>> import jax
    >>> FixedGate().init_with_output(jax.random.key(0), [jnp.ones((1, 2, 3))] * 2)[0].shape
    (1, 2, 3)

    Hutchins et al., Block-recurrent transformers, 2022, arXiv:2203.07852.
    """

    @nn.compact
    def __call__(self, outputs: Sequence[Array]) -> Float[Array, "B S D"]:
        """Moves the state towards its candidate."""
        state, candidate = _pair("FixedGate", outputs)
        strength = self.param("strength", nn.initializers.zeros, (state.shape[-1],))
        keep = nn.sigmoid(strength).astype(state.dtype)[None, None]
        return keep * state + (1 - keep) * _dense(state, "candidate")(candidate)


class LSTMGate(nn.Module):
    """The input and forget gates of an LSTM, between a state and its candidate.

    `i, f, z = W b + c`, `y = sigmoid(f + 1) a + sigmoid(i - 1) tanh(z)`.

    Call: the state and its candidate, `[B, S, D]` each `-> [B, S, D]`.

    Raises:
      ValueError: if there are not two arrays, or their widths differ.

    >>> import jax
    >>> LSTMGate().init_with_output(jax.random.key(0), [jnp.ones((1, 2, 3))] * 2)[0].shape
    (1, 2, 3)

    Hutchins et al., Block-recurrent transformers, 2022, arXiv:2203.07852.
    """

    @nn.compact
    def __call__(self, outputs: Sequence[Array]) -> Float[Array, "B S D"]:
        """Forgets a part of the state and adds a part of its candidate."""
        state, candidate = _pair("LSTMGate", outputs)
        i, f, z = (_dense(state, name)(candidate) for name in ("input", "forget", "candidate"))
        return nn.sigmoid(f + 1) * state + nn.sigmoid(i - 1) * jnp.tanh(z)


def _dense(like: Array, name: str) -> Map:
    return dense(like.shape[-1], dtype=like.dtype, name=name)


def _pair(name: str, outputs: Sequence[Array]) -> Sequence[Array]:
    if len(outputs) != 2:
        raise ValueError(f"{name}: combines two outputs, got {len(outputs)}")
    _refuse_unequal(name, outputs)
    return outputs


def _refuse_unequal(name: str, outputs: Sequence[Array]) -> None:
    if len({output.shape for output in outputs}) > 1:
        widths = ", ".join(str(output.shape[-1]) for output in outputs)
        raise ValueError(f"{name}: outputs must be equally wide, got widths {widths}")
