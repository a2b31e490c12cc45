"""Continuing a sequence: the prompt in blocks, then one step a symbol, with the state carried."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, PRNGKeyArray

from recattn_jax.decoding.sampling import Sampler
from recattn_jax.errors import UserError
from recattn_jax.layers.base import Context, State, zero_state

# One width for every prompt, so a prompt of any length compiles the same program. The last block is
# filled up with padding, which is no step for any layer.
PREFILL_BLOCK = 64


def generate(
    model: nn.Module,
    params: Any,
    prompt_ids: Sequence[int],
    *,
    separator: int,
    n_tokens: int,
    sampler: Sampler,
    seed: int,
    stop_at_separator: bool,
) -> Iterator[int]:
    """Continues a prompt, one symbol at a time, at constant time a symbol.

    The model reads the separator first, as at the start of every document it was trained on; so an
    empty prompt asks for a document from its beginning. A separator that it produces itself starts
    a new document too: the layers forget what stood before.

    Args:
      model: an unbound streaming module from `[B, T]` int32 ids to `[B, T, V]` logits.
      params: its parameters.
      prompt_ids: the ids to continue, without the leading separator; may be empty.
      separator: the id that stands before every document.
      n_tokens: how many ids to produce at most.
      sampler: how each one is chosen.
      seed: same seed, same prompt: same continuation.
      stop_at_separator: end (without yielding it) when the model starts a new document.

    Yields:
      The new ids; the prompt is not repeated.

    Raises:
      UserError: the model does not stream (raised by the call, before the first id is asked for).

    Example:
      >>> ids = generate(model, params, tokenizer.encode("To be"), separator=tokenizer.separator,
      ...                n_tokens=100, sampler=Sampler(0.0, None, None), seed=0,
      ...                stop_at_separator=False)
    """
    if not model.streams:
        raise UserError(
            f"{type(model).__name__} cannot generate: one of its layers does not stream (it needs "
            "the whole sequence at once); give each attention a window and drop layers that look "
            "ahead"
        )
    if n_tokens < 0:
        raise UserError(f"the number of tokens to generate must be 0 or more; got {n_tokens}")
    variables = {"params": params}
    ids = np.concatenate([[separator], np.asarray(prompt_ids, np.int32)]).astype(np.int32)
    return _stream(
        model, variables, ids, separator, n_tokens, sampler, jax.random.key(seed), stop_at_separator
    )


def _stream(
    model: nn.Module,
    variables: Any,
    ids: np.ndarray,
    separator: int,
    n_tokens: int,
    sampler: Sampler,
    key: PRNGKeyArray,
    stop_at_separator: bool,
) -> Iterator[int]:
    if n_tokens == 0:
        return
    segments = np.cumsum(ids == separator, dtype=np.int32)
    logits_BV, state = prefill(model, variables, ids[None], segments[None])
    token_B = _choose(sampler, jax.random.fold_in(key, 0), logits_BV)
    segment_B = jnp.asarray(segments[-1:])
    for index in range(1, n_tokens + 1):
        token = int(token_B[0])
        if stop_at_separator and token == separator:
            return
        yield token
        if index < n_tokens:
            token_B, segment_B, state = _step(
                model,
                sampler,
                separator,
                variables,
                token_B,
                segment_B,
                state,
                jax.random.fold_in(key, index),
            )


def prefill(
    model: nn.Module,
    variables: Any,
    inputs_BT: np.ndarray,
    segments_BT: np.ndarray,
) -> tuple[Float[Array, "B V"], State]:
    """Reads whole prompts, in blocks of `PREFILL_BLOCK`; one compilation serves every length.

    Args:
      model: an unbound streaming module from ids to logits.
      variables: its variables.
      inputs_BT: ids of the prompts, all of one length T >= 1.
      segments_BT: positive document numbers, rising along a row.

    Returns:
      The logits after the last id of each row and the state to continue from, of the structure and
      shapes that every later state has.

    Example:
      >>> logits_BV, state = prefill(model, variables, ids_BT, np.ones_like(ids_BT))
    """
    batch, length = inputs_BT.shape
    widen = ((0, 0), (0, -length % PREFILL_BLOCK))
    inputs_BT = np.pad(inputs_BT.astype(np.int32), widen)
    segments_BT = np.pad(segments_BT.astype(np.int32), widen)
    state = zero_state(model, variables, jax.ShapeDtypeStruct((batch, 1), jnp.int32))
    for start in range(0, inputs_BT.shape[1], PREFILL_BLOCK):
        block = slice(start, start + PREFILL_BLOCK)
        logits_BV, state = _read_block(
            model, variables, inputs_BT[:, block], segments_BT[:, block], state
        )
    return logits_BV, state


@functools.partial(jax.jit, static_argnames=("model",), donate_argnames=("state",))
def _read_block(
    model: nn.Module,
    variables: Any,
    inputs_BT: Int[Array, "B T"],
    segments_BT: Int[Array, "B T"],
    state: State,
) -> tuple[Float[Array, "B V"], State]:
    logits_BTV, state = model.apply(variables, inputs_BT, state, Context(segments=segments_BT))
    last_B = jnp.sum(segments_BT > 0, axis=1) - 1
    logits_BV = jnp.take_along_axis(logits_BTV, last_B[:, None, None], axis=1)[:, 0]
    return logits_BV, state


@functools.partial(jax.jit, static_argnames=("sampler",))
def _choose(sampler: Sampler, key: PRNGKeyArray, logits_BV: Float[Array, "B V"]) -> Int[Array, "B"]:
    return sampler(key, logits_BV)


@functools.partial(
    jax.jit, static_argnames=("model", "sampler", "separator"), donate_argnames=("state",)
)
def _step(
    model: nn.Module,
    sampler: Sampler,
    separator: int,
    variables: Any,
    token_B: Int[Array, "B"],
    segment_B: Int[Array, "B"],
    state: State,
    key: PRNGKeyArray,
) -> tuple[Int[Array, "B"], Int[Array, "B"], State]:
    segment_B = segment_B + (token_B == separator)
    context = Context(segments=segment_B[:, None])
    logits_B1V, state = model.apply(variables, token_B[:, None], state, context)
    return sampler(key, logits_B1V[:, 0]), segment_B, state
