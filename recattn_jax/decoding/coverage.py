"""What a step of a decoder looked at: how much of its attention each position of the memory got."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from recattn_jax.decoding.stepping import Step, Stepped
from recattn_jax.errors import UserError
from recattn_jax.layers.base import Context, Stacked, State, map_batch


def watched_decoder_step(model: nn.Module, variables: Any, context: Context) -> Step:
    """The step of `decoder_step`, which also says what it looked at.

    `looked_s = mean_(layers, heads) a_s`: over the layers that prepared something of the memory
    and note their weights, as `CrossAttention` and `LocationAttention` do. Self-attention notes
    weights too, but prepares nothing, so it is left out.

    Args:
      model: an unbound `models.EncoderDecoder` that streams.
      variables: its variables.
      context: what its `encode` returned, with as many rows as the step is to have.

    Returns:
      The step.

    Raises:
      UserError: no layer of the decoder looks at the memory.

    >>> from recattn_jax.layers import CrossAttention, Embed
    >>> from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel
    >>> decoder = SequenceModel(Embed(5, 4), CrossAttention(2), PerStep(5))
    >>> model, source_BS = EncoderDecoder(Embed(5, 4), decoder), jnp.ones((1, 2), int)
    >>> variables = model.init(jax.random.key(0), source_BS, source_BS)
    >>> context = model.apply(variables, source_BS, method="encode")
    >>> step = watched_decoder_step(model, variables, context)
    >>> step(jnp.array([0]), None).looked.tolist()
    [[0.5, 0.5]]
    """

    def decode(
        token_B: Int[Array, "B"], state: State | None, context: Context
    ) -> tuple[Float[Array, "B V"], State, list[Array]]:
        (logits_B1V, state), notes = model.apply(
            variables, token_B[:, None], state, context, method="decode", mutable=["intermediates"]
        )
        return logits_B1V[:, 0], state, _weights(notes, context)

    axes = _batch_axes(decode, context)
    if not axes:
        raise UserError(
            f"a coverage penalty needs a decoder with CrossAttention to the source, and this "
            f"{type(model).__name__} has none; set coverage_penalty to 0"
        )

    def step(token_B: Int[Array, "B"], state: State | None) -> Stepped:
        logits_BV, state, weights = decode(token_B, state, context)
        rows = [jnp.moveaxis(a, axis, 0) for a, axis in zip(weights, axes, strict=True)]
        looks_BNS = [a.reshape((a.shape[0], -1, a.shape[-1])) for a in rows]
        looked_BS = jnp.mean(jnp.concatenate(looks_BNS, axis=1).astype(jnp.float32), axis=1)
        return Stepped(logits_BV, state, looked_BS)

    return step


def _batch_axes(decode: Any, context: Context) -> list[int]:
    """Where the batch stands in the weights of each layer: the axis that grows with it.

    Scans over depth and time put axes of their own before it, and not every layer has heads.
    """

    def shapes(rows: int) -> list[tuple[int, ...]]:
        def run(context: Context) -> list[Array]:
            rows_first = map_batch(lambda leaf: jnp.repeat(leaf[:1], rows, axis=0), context)
            return decode(jnp.zeros((rows,), jnp.int32), None, rows_first)[2]

        return [weights.shape for weights in jax.eval_shape(run, context)]

    return [
        next(axis for axis, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
        for one, two in zip(shapes(1), shapes(2), strict=True)
    ]


def _weights(notes: Mapping[str, Any], context: Context) -> list[Array]:
    """The weights, `[.., S]`, of one step of every layer that looks at the memory."""
    found: list[Array] = []
    for path in _paths(context.prepared):
        node: Any = notes.get("intermediates", {})
        for name in (*path.split("/"), "weights"):
            node = node.get(name, {})
        found.extend(node)
    return found


def _paths(prepared: Mapping[str, Any]) -> Iterator[str]:
    """The paths of the layers that prepared something; a stack of layers keeps those inside."""
    for path, made in prepared.items():
        if isinstance(made, Stacked):
            yield from _paths(made.layers)
        else:
            yield path
