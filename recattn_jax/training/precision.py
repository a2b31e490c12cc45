"""How parameters are stored: rules on their paths, never fields of layers."""

import re
from typing import Any

import jax
import jax.numpy as jnp

Storage = tuple[tuple[str, Any], ...]


def path_name(path: tuple[Any, ...]) -> str:
    """Name of a leaf as rules see it, such as `body/layers_0/recurrent_kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def store(params: Any, storage: Storage) -> Any:
    """Casts floating parameters to the dtype of the first rule that is found in their path.

    Args:
      params: tree of arrays.
      storage: (regex, dtype) rules; a leaf that no rule matches keeps its dtype.

    Returns:
      The same tree, `store(params, ((r"embedding", jnp.bfloat16),))` with a bfloat16 embedding.
    """

    def cast(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        for pattern, dtype in storage:
            if re.search(pattern, path_name(path)):
                return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        return leaf

    return jax.tree_util.tree_map_with_path(cast, params)


def master(params: Any) -> Any:
    """Floating leaves in float32: what optimizer moments and averages are made from."""
    return jax.tree.map(
        lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x, params
    )
