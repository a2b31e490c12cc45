"""Layer norm inside of recurrent cells: of carries, of products, and of projected inputs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from recattn_jax.kernels.products import add_bias, product
from recattn_jax.shapes import Array, Float


def normalize(x: Float[Array, "..."], axis: int | tuple[int, ...]) -> Float[Array, "..."]:
    """Subtracts the mean and divides by the standard deviation (its square plus 1e-6).

    Args:
      x: `[...]`, any array, float32 or wider.
      axis: over which mean and variance are taken.

    Returns:
      `[...]`, of the shape of x.

    >>> normalize(jnp.array([1.0, 3.0]), -1).round(3).tolist()
    [-1.0, 1.0]

    Ba et al., Layer normalization, 2016, arXiv:1607.06450.
    """
    centred = x - jnp.mean(x, axis, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis, keepdims=True) + 1e-6)


def normalize_gates(
    gates: Float[Array, "... G H"],
    scale_GH: Float[Array, "G H"],
    groups: tuple[int, ...] | None = None,
) -> Float[Array, "... G H"]:
    """Layer norm of a product: each group of gates has one mean and one variance, over its units.

    Args:
      gates: `[..., G, H]`.
      scale_GH: `[G, H]`.
      groups: how many gates each group has, in order; None for one group.

    Returns:
      `[..., G, H]`.

    >>> normalize_gates(jnp.ones((5, 3, 2)), jnp.ones((3, 2)), groups=(2, 1)).shape
    (5, 3, 2)
    """
    cuts = [sum(groups[: n + 1]) for n in range(len(groups) - 1)] if groups else []
    parts = [normalize(part, (-2, -1)) for part in jnp.split(gates, cuts, axis=-2)]
    scale = jnp.reshape(scale_GH.astype(gates.dtype), (1,) * (gates.ndim - 2) + scale_GH.shape)
    return jnp.concatenate(parts, axis=-2) * scale


@functools.cache
def normed_affine(groups: tuple[int, ...] | None = None) -> Callable[[Any, Array], Array]:
    """Projects inputs to gates with layer norm, `norm(x W) scale + b`.

    Args:
      groups: as in `normalize_gates`.

    Returns:
      A function of `(input_kernel [D, G, H], bias [G, H], scale [G, H])` and x.

    >>> weights = jnp.ones((2, 4, 3)), jnp.zeros((4, 3)), jnp.ones((4, 3))
    >>> normed_affine()(weights, jnp.ones((5, 2))).shape
    (5, 4, 3)
    """

    def project(weights: tuple[Array, Array, Array], x: Array) -> Array:
        kernel_DGH, bias_GH, scale_GH = weights
        return add_bias(normalize_gates(product(x, kernel_DGH), scale_GH, groups), bias_GH)

    return project
