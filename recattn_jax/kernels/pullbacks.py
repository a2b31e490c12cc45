"""How steps of a recurrence take cotangents back, made ready before the loop that uses it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from recattn_jax.kernels.products import split_gates
from recattn_jax.shapes import Array

Carry = tuple[Array, ...]


def pullback(advance: Callable[[Carry, Any], Carry], before: Carry, gates: Any) -> Any:
    """What takes the cotangent of a step's carry back to what the step came from.

    It is a pytree: mapped over time, it makes all that does not wait for cotangents, the slopes of
    the nonlinearities above all, for many steps at once, and the loop over them need only multiply.
    The loop gets the cotangents of gates apart and writes each to its place (`write`): on a CPU,
    joining them costs as much as the product with the kernel.

    Args:
      advance: one step, `(carry, gates) -> carry`.
      before: the carry before the step, arrays `[B, ...]`.
      gates: a pytree of gates `[B, G, H]` and other arrays `[B, ...]`.

    Returns:
      A function from the cotangent of the carry to those of the carry before and of the gates,
      these as tuples of G arrays `[B, H]`.

    >>> before, gates = (jnp.ones((5, 2)),), jnp.ones((5, 1, 2))
    >>> pull = pullback(lambda carry, gates: (carry[0] * gates[:, 0],), before, gates)
    >>> pull((jnp.ones((5, 2)),))[1][0].shape
    (5, 2)
    """

    def joined(before: Carry, apart: Any) -> Carry:
        return advance(before, jax.tree.map(_join, gates, apart))

    return jax.vjp(joined, before, jax.tree.map(_apart, gates))[1]


def _apart(gates: Array) -> Any:
    """Gates `[B, G, H]` as G arrays; what has no axis G, such as a mask, as it is."""
    return split_gates(gates) if gates.ndim == 3 else gates


def _join(like: Array, apart: Any) -> Array:
    return jnp.stack(apart, axis=1) if like.ndim == 3 else apart


def write(at: Array, all_TB: Array, apart: Any) -> Array:
    """Writes the cotangents of one step, as a pullback gives them, to their place.

    Args:
      at: which step, `[]`.
      all_TB: gates `[T, B, G, H]`, or another array `[T, B, ...]`.
      apart: G arrays `[B, H]`, or an array `[B, ...]`.

    Returns:
      `[T, B, ...]`, as `all_TB`; inside a loop it is written in place.

    >>> new = jnp.ones((1, 1)), jnp.ones((1, 1))
    >>> write(jnp.array(1), jnp.zeros((3, 1, 2, 1)), new).sum((1, 2, 3)).tolist()
    [0.0, 2.0, 0.0]
    """
    if all_TB.ndim != 4:
        return jax.lax.dynamic_update_index_in_dim(all_TB, apart, at, 0)
    for gate, one_BH in enumerate(apart):
        all_TB = jax.lax.dynamic_update_slice(all_TB, one_BH[None, :, None], (at, 0, gate, 0))
    return all_TB


def read(at: Array, tree_TB: Any) -> Any:
    """Reads one step, or several that follow each other.

    Args:
      at: which step, or `[N]` of them.
      tree_TB: a pytree of arrays `[T, ...]`.

    Returns:
      Arrays without the T, or `[N, ...]`.

    >>> read(jnp.array([1, 2]), jnp.arange(4)).tolist()
    [1, 2]
    """
    if at.ndim == 0:
        return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, at, 0, False), tree_TB)
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, at[0], at.shape[0], 0), tree_TB)
