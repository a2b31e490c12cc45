"""One step of decoding, whatever the model, and the loop that samples with it."""

from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, PRNGKeyArray

from recattn_jax.decoding.sampling import Sampler
from recattn_jax.errors import UserError
from recattn_jax.layers.base import Context, State, map_batch

Tree = TypeVar("Tree")


class Stepped(NamedTuple):
    """What one step of a model gives.

    Attributes:
      logits: `[B, V]`, of the next symbol.
      state: the state after the step, of the structure of the state before it.
      looked: `[B, S]`, how much of this step's attention each position of the memory got, a sum of
        1 a row; None where nobody asked.

    >>> stepped = Stepped(logits=jnp.zeros((2, 5)), state=(), looked=None)
    """

    logits: Float[Array, "B V"]
    state: State
    looked: Float[Array, "B S"] | None


@runtime_checkable  # so that the checked annotations of the tests can ask
class Step(Protocol):
    """A model, its variables and its side inputs bound: one symbol a row in, logits out.

    >>> def count(token_B, state):  # 0, 1, 2, 3, 4, 0, 1, ...
    ...     return Stepped(8.0 * jax.nn.one_hot((token_B + 1) % 5, 5), token_B, None)
    >>> isinstance(count, Step)
    True
    """

    def __call__(self, token_B: Int[Array, "B"], state: State | None) -> Stepped:
        """Reads one symbol a row.

        Args:
          token_B: the last symbol of each row.
          state: the state before it; None for a fresh one.

        Returns:
          The logits of the next symbol, and the state to go on from.
        """
        ...


def language_model_step(model: nn.Module, variables: Any, separator: int) -> Step:
    """The step of a language model; a separator that it reads starts a new document.

    Args:
      model: an unbound streaming module from `[B, T]` ids to `[B, T, V]` logits.
      variables: its variables.
      separator: the id that stands before every document.

    Returns:
      A step whose state is the pair of the model's state and `segment_B`, the number of the
      document that each row is in.

    >>> from recattn_jax.layers import LSTM, Embed
    >>> from recattn_jax.models import PerStep, SequenceModel
    >>> model = SequenceModel(Embed(5, 4), LSTM(4), PerStep(5))
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 2), int))
    >>> step = language_model_step(model, variables, separator=0)
    >>> step(jnp.array([0]), None).logits.shape
    (1, 5)
    """

    def step(token_B: Int[Array, "B"], state: State | None) -> Stepped:
        inner, segment_B = (None, jnp.zeros_like(token_B)) if state is None else state
        segment_B = segment_B + (token_B == separator)
        context = Context(segments=segment_B[:, None])
        logits_B1V, inner = model.apply(variables, token_B[:, None], inner, context)
        return Stepped(logits_B1V[:, 0], (inner, segment_B), None)

    return step


def decoder_step(model: nn.Module, variables: Any, context: Context) -> Step:
    """The step of the decoder of an `EncoderDecoder`.

    Args:
      model: an unbound `models.EncoderDecoder` that streams.
      variables: its variables.
      context: what its `encode` returned, with as many rows as the step is to have.

    Returns:
      A step whose state is the decoder's.

    >>> from recattn_jax.layers import CrossAttention, Embed
    >>> from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel
    >>> decoder = SequenceModel(Embed(5, 4), CrossAttention(2), PerStep(5))
    >>> model, source_BS = EncoderDecoder(Embed(5, 4), decoder), jnp.ones((1, 2), int)
    >>> variables = model.init(jax.random.key(0), source_BS, source_BS)
    >>> context = model.apply(variables, source_BS, method="encode")
    >>> decoder_step(model, variables, context)(jnp.array([0]), None).logits.shape
    (1, 5)
    """

    def step(token_B: Int[Array, "B"], state: State | None) -> Stepped:
        y = model.apply(variables, token_B[:, None], state, context, method="decode")
        logits_B1V, state = y
        return Stepped(logits_B1V[:, 0], state, None)

    return step


def fresh_state(step: Step, token_B: Int[Array, "B"]) -> State:
    """The state before the first step: zeros, with the structure of the state after it.

    Args:
      step: the step.
      token_B: symbols, of which only the number matters.

    Returns:
      A pytree of zeros.

    >>> def count(token_B, state):  # 0, 1, 2, 3, 4, 0, 1, ...
    ...     return Stepped(8.0 * jax.nn.one_hot((token_B + 1) % 5, 5), token_B, None)
    >>> fresh_state(count, jnp.array([3])).tolist()
    [0]
    """
    shapes = jax.eval_shape(lambda token_B: step(token_B, None).state, token_B)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def repeat_rows(tree: Tree, times: int) -> Tree:
    """Every row several times, one after the other: row b becomes rows `b times, ..`.

    Args:
      tree: a state, or a context with its memory and what was prepared of it.
      times: how often.

    Returns:
      The tree with `times` as many rows in every leaf.

    >>> repeat_rows(jnp.array([7, 8]), 2).tolist()
    [7, 7, 8, 8]
    """
    return map_batch(lambda leaf: jnp.repeat(leaf, times, axis=0), tree)


def sample(
    step: Step,
    state: State,
    start_B: Int[Array, "B"],
    *,
    sampler: Sampler,
    key: PRNGKeyArray,
    max_length: int,
    stop: int | None,
) -> Int[Array, "B L"]:
    """Decodes symbol by symbol, all rows at once, until every row has ended.

    Args:
      step: the model.
      state: its state before `start_B`.
      start_B: the first symbol that each row reads.
      sampler: how a symbol is chosen; symbol t is drawn with `fold_in(key, t)`.
      key: the randomness; unused at temperature 0.
      max_length: L, how many symbols a row may get, its stop included.
      stop: the symbol that ends a row; None for rows that never end.

    Returns:
      `[B, L]` int32 symbols: the stop and, after it, nothing but stops.

    >>> def count(token_B, state):  # 0, 1, 2, 3, 4, 0, 1, ...
    ...     return Stepped(8.0 * jax.nn.one_hot((token_B + 1) % 5, 5), token_B, None)
    >>> start_B, sampler = jnp.array([0, 2]), Sampler(0.0, None, None)
    >>> key, state = jax.random.key(0), fresh_state(count, start_B)
    >>> sample(count, state, start_B, sampler=sampler, key=key, max_length=4, stop=4).tolist()
    [[1, 2, 3, 4], [3, 4, 4, 4]]
    """
    check_length(max_length)
    nothing = 0 if stop is None else stop

    def goes_on(carry: tuple[Any, ...]) -> Array:
        length, _, _, ended_B, _ = carry
        return (length < max_length) & ~jnp.all(ended_B)

    def extend(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        length, ids_BL, token_B, ended_B, state = carry
        stepped = step(token_B, state)
        drawn_B = sampler(jax.random.fold_in(key, length), stepped.logits)
        token_B = jnp.where(ended_B, nothing, drawn_B)
        ids_BL = ids_BL.at[:, length].set(token_B)
        if stop is not None:
            ended_B |= token_B == stop
        return length + 1, ids_BL, token_B, ended_B, stepped.state

    ids_BL = jnp.full((start_B.shape[0], max_length), nothing, jnp.int32)
    ended_B = jnp.zeros(start_B.shape, bool)
    carry = (jnp.zeros((), jnp.int32), ids_BL, start_B.astype(jnp.int32), ended_B, state)
    return jax.lax.while_loop(goes_on, extend, carry)[1]


def check_streams(model: nn.Module) -> None:
    """Raises if a model cannot be run step by step.

    Args:
      model: anything with a property `streams`.

    Raises:
      UserError: the model does not stream.

    >>> from recattn_jax.layers import LSTM
    >>> check_streams(LSTM(4))
    """
    if not model.streams:
        raise UserError(
            f"{type(model).__name__} cannot generate: one of its layers does not stream (it needs "
            "the whole sequence at once); give each attention a window and drop layers that look "
            "ahead"
        )


def check_length(max_length: int) -> None:
    """Raises if there is no room for a single symbol.

    Args:
      max_length: how many symbols there may be.

    Raises:
      UserError: there may be none.

    >>> check_length(1)
    """
    if max_length < 1:
        raise UserError(f"max_length must be at least 1; got {max_length}")
