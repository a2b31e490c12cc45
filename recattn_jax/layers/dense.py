"""Flax's layers of a kernel and a bias, as every layer here makes them.

Their products suit the device, and the gradient of a bias, a sum over all steps, is float32: a sum
kept in bfloat16 stops growing at 256 equal terms.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
from flax.linen.dtypes import promote_dtype

from recattn_jax.kernels.products import dense_product
from recattn_jax.shapes import Array, DTypeLike

Map = Callable[[Array], Array]


def _made(layer: Any, *sizes: Any, dtype: DTypeLike | None = None, **options: Any) -> Map:
    """A module of Flax that adds its bias in float32, and narrows only what comes out."""
    module = layer(*sizes, dtype=dtype, promote_dtype=_all_but_bias, **options)

    def apply(inputs: Array) -> Array:
        y: Array = module(inputs)
        return y if dtype is None else y.astype(dtype)

    return apply


def _all_but_bias(inputs: Array, kernel: Array, bias: Array | None, *, dtype: Any) -> Any:
    return (*promote_dtype(inputs, kernel, dtype=dtype), bias)


dense = partial(_made, nn.Dense, dot_general=dense_product)
dense_general = partial(_made, nn.DenseGeneral, dot_general=dense_product)
convolution = partial(_made, nn.Conv)
