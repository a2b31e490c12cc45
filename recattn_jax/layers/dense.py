"""Flax's dense layers, as every layer here makes them: their products suit the device."""

from functools import partial

import flax.linen as nn

from recattn_jax.kernels.products import dense_product

dense = partial(nn.Dense, dot_general=dense_product)
dense_general = partial(nn.DenseGeneral, dot_general=dense_product)
