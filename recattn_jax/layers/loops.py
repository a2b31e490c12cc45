"""What layers need that step through time themselves: the structure of a carry, and the loop."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recattn_jax import partition
from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.shapes import Array, State


def blank(layer: SequenceLayer, x: Array, context: Context) -> tuple[Array, State]:
    """Zeros in the place of what a layer inside of another one would return.

    A loop over time needs the structure of its carry before it runs.

    Args:
      layer: a bound layer, whose parameters need not exist yet.
      x: an example input.
      context: its side inputs.

    Returns:
      Zeros like its output, and its fresh state.
    """
    # A copy outside of this call: what it would write is thrown away.
    unbound, _ = layer.unbind()

    def run(x: Array, context: Context) -> tuple[Array, State]:
        return unbound.init_with_output(jax.random.key(0), x, None, context)[0]

    shapes = jax.eval_shape(run, x, context)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def scan_over_time(
    step: Callable[[Any, Any, Any], tuple[Any, Any]], layer: SequenceLayer, carry: Any, inputs: Any
) -> tuple[Any, Any]:
    """Scans a step of a layer over axis 1, with its weights gathered before the loop.

    Args:
      step: maps `(layer, carry, inputs of the step)` to the next carry and the step's outputs.
      layer: a bound layer, whose parameters are the same at every step.
      carry: what goes into the first step.
      inputs: arrays `[B, T, ...]`.

    Returns:
      The last carry, and the outputs `[B, T, ...]`.
    """

    def scan(layer: SequenceLayer, carry: Any, inputs: Any) -> tuple[Any, Any]:
        over_time = nn.scan(
            step,
            variable_axes={"intermediates": 0},
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True, "variational": False},
            in_axes=1,
            out_axes=1,
        )
        return over_time(layer, carry, inputs)

    if not layer.is_initializing():
        scan = nn.map_variables(scan, "params", trans_in_fn=_gather_all)
    return scan(layer, carry, inputs)


def _gather_all(variables: Any) -> Any:
    return jax.tree.map(partition.gather, variables)
