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
from recattn_jax.decoding.stepping import check_streams, language_model_step, sample
from recattn_jax.errors import UserError
from recattn_jax.layers.base import Context, State, zero_state

PREFILL_BLOCK = 64
"""Ids of a prompt that are read at a time: one width, so that prompts of any length compile the
same program. The last block is filled up with padding, which is no step for any layer."""


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

    >>> from recattn_jax.layers import LSTM, Embed
    >>> from recattn_jax.models import PerStep, SequenceModel
    >>> model = SequenceModel(Embed(5, 4), LSTM(4), PerStep(5))
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 2), int))
    >>> ids = generate(
    ...     model, variables["params"], [3, 1], separator=0, n_tokens=2,
    ...     sampler=Sampler(0.0, None, None), seed=0, stop_at_separator=False,
    ... )
    >>> len(list(ids))
    2
    """
    _check(model, n_tokens)
    return _stream(model, params, prompt_ids, separator, n_tokens, sampler, seed, stop_at_separator)


def generate_batch(
    model: nn.Module,
    params: Any,
    prompts: Sequence[Sequence[int]],
    *,
    separator: int,
    n_tokens: int,
    sampler: Sampler,
    seed: int,
    stop_at_separator: bool,
) -> list[list[int]]:
    """Continues several prompts at once, in one compiled loop.

    Each row gets what `generate` gives for its prompt; where the sampler draws, rows draw different
    symbols, and a batch of one draws those of `generate`.

    Args:
      model: an unbound streaming module from `[B, T]` int32 ids to `[B, T, V]` logits.
      params: its parameters.
      prompts: the ids to continue, without the leading separators; of any lengths, also none.
      separator: the id that stands before every document.
      n_tokens: how many ids to produce at most for each prompt.
      sampler: how each one is chosen.
      seed: same seed, same prompts: same continuations.
      stop_at_separator: end a row (without the separator) when the model starts a new document.

    Returns:
      The new ids of each prompt.

    Raises:
      UserError: the model does not stream.

    >>> from recattn_jax.layers import LSTM, Embed
    >>> from recattn_jax.models import PerStep, SequenceModel
    >>> model = SequenceModel(Embed(5, 4), LSTM(4), PerStep(5))
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 2), int))
    >>> rows = generate_batch(
    ...     model, variables["params"], [[], []], separator=0, n_tokens=2,
    ...     sampler=Sampler(0.0, None, None), seed=0, stop_at_separator=False,
    ... )
    >>> [len(row) for row in rows]
    [2, 2]
    """
    _check(model, n_tokens)
    if n_tokens == 0 or not prompts:
        return [[] for _ in prompts]
    variables = {"params": params}
    token_B, state = _read_prompts(model, variables, prompts, separator)
    stop = separator if stop_at_separator else None
    ids_BL = _sample(
        model, sampler, separator, stop, n_tokens, variables, token_B, state, jax.random.key(seed)
    )
    rows = np.asarray(ids_BL).tolist()
    if not stop_at_separator:
        return rows
    return [row[: row.index(separator)] if separator in row else row for row in rows]


def _check(model: nn.Module, n_tokens: int) -> None:
    check_streams(model)
    if n_tokens < 0:
        raise UserError(f"the number of tokens to generate must be 0 or more; got {n_tokens}")


def _stream(
    model: nn.Module,
    params: Any,
    prompt_ids: Sequence[int],
    separator: int,
    n_tokens: int,
    sampler: Sampler,
    seed: int,
    stop_at_separator: bool,
) -> Iterator[int]:
    if n_tokens == 0:
        return
    variables, key = {"params": params}, jax.random.key(seed)
    token_B, state = _read_prompts(model, variables, [prompt_ids], separator)
    for index in range(n_tokens):
        token_B, state = _step(
            model, sampler, separator, variables, token_B, state, jax.random.fold_in(key, index)
        )
        token = int(token_B[0])
        if stop_at_separator and token == separator:
            return
        yield token


def _read_prompts(
    model: nn.Module, variables: Any, prompts: Sequence[Sequence[int]], separator: int
) -> tuple[Int[Array, "B"], State]:
    """The last id of each prompt, and the state before it, as `language_model_step` keeps it."""
    rows = [np.array([separator, *prompt], np.int32) for prompt in prompts]
    before = max(map(len, rows)) - 1
    inputs_BT = np.zeros((len(rows), before), np.int32)
    segments_BT = np.zeros_like(inputs_BT)
    for b, row in enumerate(rows):
        # Prompts end together; what stands before a shorter one is padding, which is no step.
        begin = before + 1 - len(row)
        inputs_BT[b, begin:] = row[:-1]
        segments_BT[b, begin:] = np.cumsum(row == separator)[:-1]
    if before:
        _, state = prefill(model, variables, inputs_BT, segments_BT)
    else:
        state = zero_state(model, variables, jax.ShapeDtypeStruct((len(rows), 1), jnp.int32))
    segment_B = segments_BT[:, -1] if before else np.zeros(len(rows), np.int32)
    token_B = np.array([row[-1] for row in rows], np.int32)
    return jnp.asarray(token_B), (state, jnp.asarray(segment_B))


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
      inputs_BT: ids of the prompts, T >= 1; shorter ones stand at the end of their rows.
      segments_BT: positive document numbers, rising along a row; 0 where a row has not begun.

    Returns:
      The logits `[B, V]` after the last id of each row and the state to continue from, of the
      structure and shapes that every later state has.

    >>> from recattn_jax.layers import LSTM, Embed
    >>> from recattn_jax.models import PerStep, SequenceModel
    >>> model = SequenceModel(Embed(5, 4), LSTM(4), PerStep(5))
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 2), int))
    >>> ids_BT = np.array([[3, 1]])
    >>> prefill(model, variables, ids_BT, np.ones_like(ids_BT))[0].shape
    (1, 5)
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
    last_B = segments_BT.shape[1] - 1 - jnp.argmax(segments_BT[:, ::-1] > 0, axis=1)
    logits_BV = jnp.take_along_axis(logits_BTV, last_B[:, None, None], axis=1)[:, 0]
    return logits_BV, state


@functools.partial(
    jax.jit, static_argnames=("model", "sampler", "separator"), donate_argnames=("state",)
)
def _step(
    model: nn.Module,
    sampler: Sampler,
    separator: int,
    variables: Any,
    token_B: Int[Array, "B"],
    state: State,
    key: PRNGKeyArray,
) -> tuple[Int[Array, "B"], State]:
    stepped = language_model_step(model, variables, separator)(token_B, state)
    return sampler(key, stepped.logits), stepped.state


@functools.partial(jax.jit, static_argnames=("model", "sampler", "separator", "stop", "max_length"))
def _sample(
    model: nn.Module,
    sampler: Sampler,
    separator: int,
    stop: int | None,
    max_length: int,
    variables: Any,
    token_B: Int[Array, "B"],
    state: State,
    key: PRNGKeyArray,
) -> Int[Array, "B L"]:
    step = language_model_step(model, variables, separator)
    return sample(step, state, token_B, sampler=sampler, key=key, max_length=max_length, stop=stop)
