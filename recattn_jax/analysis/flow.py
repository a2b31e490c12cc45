"""Gradient flow: how much of a step reaches a later output."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recattn_jax.layers.base import SequenceLayer
from recattn_jax.shapes import Activations, Array, Float


def gradient_flow(
    layer: SequenceLayer, variables: Any, x: Activations, key: Array, probes: int = 8
) -> Float[np.ndarray, " T"]:
    """The size of the gradient of the last output with respect to each step before it.

    `g_lag = sqrt(mean |v^T dy_T / dx_{T - lag}|^2)`, a mean over rows and random directions v with
    normal entries: so it is the Frobenius norm of the Jacobian, estimated.

    Args:
      layer: any that maps `[B, T, D]`.
      variables: its variables.
      x: `[B, T, D]`, all steps real.
      key: of the directions.
      probes: how many directions each row has.

    Returns:
      float64 `[T]`, from lag 0, the last step itself, to lag T - 1.

    >>> from recattn_jax.layers import Identity
    >>> x = jnp.ones((2, 3, 4))
    >>> flow = gradient_flow(Identity(), {}, x, jax.random.key(0))
    >>> bool(flow[0] > 1), flow[1:].tolist()
    (True, [0.0, 0.0])

    Hochreiter, Untersuchungen zu dynamischen neuronalen Netzen, 1991; Bengio et al., Learning
    long-term dependencies with gradient descent is difficult, 1994.
    """

    @jax.jit
    def squares(variables: Any, x: Activations, key: Array) -> Float[Array, "P B T"]:
        last_BE, pull = jax.vjp(lambda x: layer.apply(variables, x)[0][:, -1], x)
        directions_PBE = jax.random.normal(key, (probes, *last_BE.shape), last_BE.dtype)
        (gradients_PBTD,) = jax.vmap(pull)(directions_PBE)
        return jnp.sum(jnp.square(gradients_PBTD.astype(jnp.float32)), axis=-1)

    found = np.asarray(squares(variables, x, key), np.float64)
    return np.sqrt(found.mean(axis=(0, 1)))[::-1]


def lag_below(flow: Float[np.ndarray, " T"], share: float) -> int | None:
    """The lag at which a flow has faded.

    Args:
      flow: `[T]`, what `gradient_flow` returns.
      share: of `flow[0]`.

    Returns:
      The first lag at which the flow is less than that; None for none.

    >>> lag_below(np.array([2.0, 1.0, 0.1]), 0.1), lag_below(np.array([2.0, 1.0]), 0.1)
    (2, None)
    """
    below = np.flatnonzero(flow < share * flow[0])
    return int(below[0]) if len(below) else None
