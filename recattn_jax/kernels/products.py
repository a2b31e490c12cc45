"""Products with the kernels of recurrent cells, summed in float32 or wider, and their gradients.

A recurrent kernel is `[P, G, H]`, or `[N, K, G, K]` for heads that do not see each other: then all
its products have the letter n, and the width of h is cut into N parts.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from recattn_jax.kernels import backends
from recattn_jax.kernels.precision import wide
from recattn_jax.shapes import Array, DTypeLike, Float

LARGE = 2**23
"""Bytes from which a CPU's recurrent product is bound by reading the kernel."""
MANY = 16
"""Steps from which it pays to turn such a kernel first."""


def affine(weights: tuple[Array, Array], x: Float[Array, "... D"]) -> Float[Array, "... _ H"]:
    """Projects inputs to gates, `x W + b`, summed in float32 or wider.

    Args:
      weights: `(input_kernel [D, G, H], bias [G, H])`; a bias of more gates than the kernel has
        stands alone in the last ones.
      x: inputs `[..., D]`.

    Returns:
      Gates `[..., G, H]`, as many as the bias has.

    >>> affine((jnp.ones((2, 4, 3)), jnp.zeros((4, 3))), jnp.ones((5, 2))).shape
    (5, 4, 3)
    """
    kernel_DGH, bias_GH = weights
    return add_bias(product(x, kernel_DGH), bias_GH)


@jax.custom_vjp
def product(x: Float[Array, "... D"], kernel: Float[Array, "D *units"]) -> Float[Array, "..."]:
    """Multiplies by a kernel, `x W`, in the kernel's dtype, summed in float32 or wider.

    Args:
      x: `[..., D]`.
      kernel: `[D, H]` or `[D, G, H]`.

    Returns:
      `[..., H]` or `[..., G, H]`. `jax.jvp` through it raises; `grad` and `vmap` work.

    >>> product(jnp.ones((5, 2)), jnp.ones((2, 4, 3))).shape
    (5, 4, 3)
    """
    return _contract(x.astype(kernel.dtype), kernel, (x.ndim - 1,), (0,))


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return product(x, kernel), (x, kernel)


def _product_backward(residuals: tuple[Array, Array], d_y: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    units = tuple(range(1, kernel.ndim))
    d_x = _contract(d_y.astype(kernel.dtype), kernel, tuple(range(x.ndim - 1, d_y.ndim)), units)
    return d_x.astype(x.dtype), kernel_gradient(x, d_y, kernel)


product.defvjp(_product_forward, _product_backward)


def _contract(x: Array, y: Array, x_axes: tuple[int, ...], y_axes: tuple[int, ...]) -> Array:
    """A product of tensors, summed wide; axes are contracted in the order that they have in both.

    `einsum` sorts them by their letters, and its gradient puts the larger operand first: on a CPU
    both copy all gates of a sequence into another order.
    """
    return jax.lax.dot_general(
        x, y, ((x_axes, y_axes), ((), ())), preferred_element_type=wide(y.dtype)
    )


def dense_product(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    dimension_numbers: jax.lax.DotDimensionNumbers,
    precision: jax.lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "..."]:
    """`jax.lax.dot_general` for the `dot_general` of a dense layer: on a CPU a product of matrices.

    The gradient of a kernel `[D, H, K]` is otherwise a product whose outcome has D last, for which
    XLA copies the cotangent of a whole sequence into another order.

    Args:
      x: `[..., D]`, where D is one axis or more.
      kernel: `[D, ...]`.
      dimension_numbers: the last axes of x with the first of the kernel; no batches.
      precision: as of `dot_general`.
      preferred_element_type: as of `dot_general`.

    Returns:
      `[..., H]`, as `dot_general`; derivatives of any order, too.

    >>> dense_product(jnp.ones((5, 7, 2)), jnp.ones((2, 4, 3)), (((2,), (0,)), ((), ()))).shape
    (5, 7, 4, 3)
    """
    (x_axes, kernel_axes), (batches, _) = dimension_numbers
    count = len(x_axes)
    lead, units = x.shape[: x.ndim - count], kernel.shape[count:]
    ordered = tuple(x_axes) == tuple(range(len(lead), x.ndim)) and not batches
    if not (backends.one_cpu() and ordered and tuple(kernel_axes) == tuple(range(count))):
        return jax.lax.dot_general(x, kernel, dimension_numbers, precision, preferred_element_type)
    width = math.prod(kernel.shape[:count])
    y = jax.lax.dot_general(
        x.reshape((-1, width)),
        kernel.reshape((width, -1)),
        (((1,), (0,)), ((), ())),
        precision,
        preferred_element_type,
    )
    return y.reshape((*lead, *units))


def add_bias(
    gates: Float[Array, "... _ H"], bias_GH: Float[Array, "G H"]
) -> Float[Array, "... G H"]:
    """Adds a bias to gates; gates that the bias alone has are appended.

    Args:
      gates: `[..., g, H]`, g <= G.
      bias_GH: `[G, H]`.

    Returns:
      `[..., G, H]`.

    >>> add_bias(jnp.ones((5, 3, 2)), jnp.zeros((4, 2))).shape
    (5, 4, 2)
    """
    lead, more = gates.ndim - 2, bias_GH.shape[0] - gates.shape[-2]
    if more:
        gates = jnp.pad(gates, [(0, 0)] * lead + [(0, more), (0, 0)])
    return gates + jnp.reshape(bias_GH.astype(gates.dtype), (1,) * lead + bias_GH.shape)


@jax.custom_vjp
def split_gates(gates_BGH: Float[Array, "B G H"]) -> tuple[Float[Array, "B H"], ...]:
    """Tells gates apart, `[B, G, H]` to G arrays `[B, H]`.

    The same as indexing each; but the cotangents are stacked, where the gradient of indexing sums
    as many arrays of zeros.

    Args:
      gates_BGH: `[B, G, H]`.

    Returns:
      G arrays `[B, H]`. `jax.jvp` through it raises; `grad` and `vmap` work.

    >>> [gate.shape for gate in split_gates(jnp.ones((5, 2, 3)))]
    [(5, 3), (5, 3)]
    """
    return tuple(gates_BGH[:, gate] for gate in range(gates_BGH.shape[1]))


def _split_backward(_: None, d_gates: tuple[Array, ...]) -> tuple[Array]:
    return (jnp.stack(d_gates, axis=1),)


split_gates.defvjp(lambda gates_BGH: (split_gates(gates_BGH), None), _split_backward)


def units_of(kernel: Float[Array, "*N _ G H"]) -> tuple[int, int]:
    """How many gates, and how many units, the product with a recurrent kernel has.

    Args:
      kernel: `[P, G, H]` or `[N, K, G, K]`.

    Returns:
      G, and H or N K.

    >>> units_of(jnp.ones((2, 3, 4, 3)))
    (4, 6)
    """
    heads = kernel.shape[0] if kernel.ndim == 4 else 1
    return kernel.shape[-2], heads * kernel.shape[-1]


def _cut(x: Array, kernel: Array) -> Array:
    """`[..., P]`, or `[..., N, K]`, in the kernel's dtype."""
    lead = x.shape[:-1]
    if kernel.ndim == 4:
        x = x.reshape((*lead, kernel.shape[0], -1))
    return x.astype(kernel.dtype)


class RecurrentProducts(NamedTuple):
    """The products of a loop over time, with the kernel laid out before it.

    Attributes:
      forward: hidden states `[B, P]` to gates `[B, G, H]`, `h U`.
      transposed: cotangents of gates `[B, G, H]` to those of hidden states `[B, P]`.

    >>> products = recurrent_products(jnp.ones((2, 4, 2)), steps=7)
    >>> products.forward(jnp.ones((5, 2))).shape
    (5, 4, 2)
    """

    forward: Callable[[Array], Array]
    transposed: Callable[[Array], Array]


def recurrent_products(kernel: Float[Array, "*N _ G H"], steps: int) -> RecurrentProducts:
    """Makes the product with a recurrent kernel, and its transposed one, ready for a loop.

    Args:
      kernel: `[P, G, H]`, or `[N, K, G, K]` with P = N K.
      steps: of the loop; few of them do not repay the work before it.

    Returns:
      Functions of `[B, P]` and of `[B, G, H]`; sums are float32 or wider.

    >>> products = recurrent_products(jnp.ones((2, 3, 4, 3)), steps=7)
    >>> products.transposed(products.forward(jnp.ones((5, 6)))).shape
    (5, 6)
    """
    # Turned once, here: in the loop it would be turned in every step.
    turned = jnp.moveaxis(kernel, -3, -1)
    large = kernel.size * kernel.dtype.itemsize >= LARGE and steps >= MANY
    if kernel.ndim == 3 and large and backends.backend() == "cpu":
        return RecurrentProducts(partial(_recur_first, turned), partial(_back_first, kernel))
    return RecurrentProducts(partial(_recur, kernel), partial(_back, turned))


def _recur(kernel: Array, hidden_BP: Array) -> Array:
    n = "n" * (kernel.ndim - 3)
    gates = jnp.einsum(
        f"b{n}k,{n}kgh->bg{n}h",
        _cut(hidden_BP, kernel),
        kernel,
        preferred_element_type=wide(kernel.dtype),
    )
    return gates.reshape((gates.shape[0], *units_of(kernel)))


def _back(turned: Array, d_gates_BGH: Array) -> Array:
    n = "n" * (turned.ndim - 3)
    d_hidden = jnp.einsum(
        f"bg{n}h,{n}ghk->b{n}k",
        _cut(d_gates_BGH, turned),
        turned,
        preferred_element_type=wide(turned.dtype),
    )
    return d_hidden.reshape((d_hidden.shape[0], math.prod(d_hidden.shape[1:])))


# A CPU's product walks over its first operand once and keeps the second, so the larger one comes
# first. Without the barrier XLA would swap them back.


def _recur_first(turned_GHP: Array, hidden_BP: Array) -> Array:
    gates_GHB = _contract(turned_GHP, hidden_BP.astype(turned_GHP.dtype), (2,), (1,))
    return jnp.moveaxis(jax.lax.optimization_barrier(gates_GHB), -1, 0)


def _back_first(kernel_PGH: Array, d_gates_BGH: Array) -> Array:
    d_hidden_PB = _contract(kernel_PGH, d_gates_BGH.astype(kernel_PGH.dtype), (1, 2), (1, 2))
    return jnp.moveaxis(jax.lax.optimization_barrier(d_hidden_PB), -1, 0)


def kernel_gradient(
    x: Float[Array, "..."], d_y: Float[Array, "..."], kernel: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The cotangent of a kernel, the sum of the outer products of x and dy over all leading axes.

    Args:
      x: `[..., P]`; for a kernel of heads `[T, B, N K]`.
      d_y: cotangent of the product, `[..., H]` or `[..., G, H]`; `[T, B, G, N K]`.
      kernel: for its shape and dtype, `[P, H]`, `[P, G, H]` or `[N, K, G, K]`.

    Returns:
      `[P, H]`, `[P, G, H]` or `[N, K, G, K]`, as the kernel is.

    >>> kernel_gradient(jnp.ones((7, 5, 2)), jnp.ones((7, 5, 4, 3)), jnp.ones((2, 4, 3))).shape
    (2, 4, 3)
    """
    x, d_y = _cut(x, kernel), _cut(d_y, kernel)
    if kernel.ndim == 4:
        # Named so that they are contracted in the order that they have: see `_contract`.
        d_kernel = jnp.einsum("abnk,abgnh->nkgh", x, d_y, preferred_element_type=wide(kernel.dtype))
    else:
        lead = tuple(range(x.ndim - 1))
        d_kernel = _contract(x, d_y, lead, lead)
    return d_kernel.astype(kernel.dtype)
