"""From a source to a target: encode once, prepare the memory once, then step."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, PRNGKeyArray

from recattn_jax.decoding.beam import Beam, beam_search
from recattn_jax.decoding.coverage import watched_decoder_step
from recattn_jax.decoding.sampling import Sampler
from recattn_jax.decoding.stepping import (
    check_streams,
    decoder_step,
    fresh_state,
    repeat_rows,
    sample,
)
from recattn_jax.layers.base import Context


@functools.partial(
    jax.jit, static_argnames=("model", "start", "stop", "max_length", "search", "hypotheses")
)
def best_translations(
    model: nn.Module,
    variables: Any,
    source_BS: Int[Array, "B S"],
    source_segments_BS: Int[Array, "B S"] | None,
    *,
    start: int,
    stop: int,
    max_length: int,
    search: Beam,
    hypotheses: int,
) -> tuple[Int[Array, "B R L"], Float[Array, "B R"]]:
    """The best targets of each source that beam search finds, with their scores.

    Args:
      model: an unbound `models.EncoderDecoder` whose decoder streams.
      variables: its variables.
      source_BS: what the encoder takes, one source a row.
      source_segments_BS: 1 at the symbols of the source, 0 at its padding; None for no padding.
      start: the id that the decoder reads first.
      stop: the id that ends a target; may be `start`.
      max_length: L, how many ids a target may have, its stop included.
      search: the width of the beam and the penalties.
      hypotheses: R, how many targets a source.

    Returns:
      Ids `[B, R, L]` int32, nothing but stops after the end, and scores `[B, R]`; see `beam_search`
      for their order.

    Raises:
      UserError: the decoder does not stream, a number is out of its range, or there is a coverage
        penalty and no layer of the decoder looks at the source.

    >>> from recattn_jax.layers import CrossAttention, Embed
    >>> from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel
    >>> decoder = SequenceModel(Embed(5, 4), CrossAttention(2), PerStep(5))
    >>> model, source_BS = EncoderDecoder(Embed(5, 4), decoder), jnp.ones((1, 2), int)
    >>> variables = model.init(jax.random.key(0), source_BS, source_BS)
    >>> ids_BRL, scores_BR = best_translations(
    ...     model, variables, source_BS, None, start=0, stop=0, max_length=3,
    ...     search=Beam(2, 0.6, 0.0), hypotheses=2,
    ... )
    >>> ids_BRL.shape, scores_BR.shape
    ((1, 2, 3), (1, 2))

    Reference: Wu et al. 2016, Google's neural machine translation system, arXiv:1609.08144.
    """
    check_streams(model)
    context = _encode(model, variables, source_BS, source_segments_BS)
    start_B = _starts(source_BS, start)
    state = fresh_state(decoder_step(model, variables, context), start_B)
    # The memory is the same for all beams of a row, so it is repeated once and never reordered.
    of_beams = repeat_rows(context, search.beams)
    if search.coverage_penalty:
        step, covers_BS = watched_decoder_step(model, variables, of_beams), _real(context)
    else:
        step, covers_BS = decoder_step(model, variables, of_beams), None
    return beam_search(
        step,
        state,
        start_B,
        beam=search,
        hypotheses=hypotheses,
        max_length=max_length,
        stop=stop,
        covers_BS=covers_BS,
    )


@functools.partial(jax.jit, static_argnames=("model", "start", "stop", "max_length", "search"))
def translate(
    model: nn.Module,
    variables: Any,
    source_BS: Int[Array, "B S"],
    source_segments_BS: Int[Array, "B S"] | None,
    *,
    start: int,
    stop: int,
    max_length: int,
    search: Sampler | Beam,
    key: PRNGKeyArray,
) -> Int[Array, "B L"]:
    """One target for each source, all rows at once, in one compiled program.

    Args:
      model: an unbound `models.EncoderDecoder` whose decoder streams.
      variables: its variables.
      source_BS: what the encoder takes, one source a row.
      source_segments_BS: 1 at the symbols of the source, 0 at its padding; None for no padding.
      start: the id that the decoder reads first.
      stop: the id that ends a target; may be `start`.
      max_length: L, how many ids a target may have, its stop included.
      search: a `Sampler` chooses id by id (greedy at temperature 0), a `Beam` searches.
      key: the randomness of a sampler; nothing else uses it.

    Returns:
      Ids `[B, L]` int32: the stop and, after it, nothing but stops.

    Raises:
      UserError: as `best_translations` does.

    >>> from recattn_jax.layers import CrossAttention, Embed
    >>> from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel
    >>> decoder = SequenceModel(Embed(5, 4), CrossAttention(2), PerStep(5))
    >>> model, source_BS = EncoderDecoder(Embed(5, 4), decoder), jnp.ones((1, 2), int)
    >>> variables = model.init(jax.random.key(0), source_BS, source_BS)
    >>> ids_BL = translate(
    ...     model, variables, source_BS, None, start=0, stop=0, max_length=3,
    ...     search=Sampler(0.0, None, None), key=jax.random.key(0),
    ... )
    >>> ids_BL.shape
    (1, 3)
    """
    if isinstance(search, Beam):
        ids_BRL, _ = best_translations(
            model,
            variables,
            source_BS,
            source_segments_BS,
            start=start,
            stop=stop,
            max_length=max_length,
            search=search,
            hypotheses=1,
        )
        return ids_BRL[:, 0]
    check_streams(model)
    context = _encode(model, variables, source_BS, source_segments_BS)
    step, start_B = decoder_step(model, variables, context), _starts(source_BS, start)
    return sample(
        step,
        fresh_state(step, start_B),
        start_B,
        sampler=search,
        key=key,
        max_length=max_length,
        stop=stop,
    )


@dataclasses.dataclass(frozen=True)
class Translator:
    """All that `translate` is told, in one value that a task can hold and compare.

    Args:
      start: the id that the decoder reads first.
      stop: the id that ends a target; may be `start`.
      max_length: L, how many ids a target may have, its stop included.
      search: a `Sampler` or a `Beam`.
      seed: of a sampler's draws; every call draws the same.

    >>> from recattn_jax.layers import CrossAttention, Embed
    >>> from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel
    >>> decoder = SequenceModel(Embed(5, 4), CrossAttention(2), PerStep(5))
    >>> model, source_BS = EncoderDecoder(Embed(5, 4), decoder), jnp.ones((1, 2), int)
    >>> variables = model.init(jax.random.key(0), source_BS, source_BS)
    >>> translator = Translator(0, 0, max_length=3, search=Sampler(0.0, None, None), seed=0)
    >>> translator(model, variables, source_BS, None).shape
    (1, 3)
    """

    start: int
    stop: int
    max_length: int
    search: Sampler | Beam
    seed: int

    def __call__(
        self,
        model: nn.Module,
        variables: Any,
        source_BS: Int[Array, "B S"],
        source_segments_BS: Int[Array, "B S"] | None,
    ) -> Int[Array, "B L"]:
        """Translates a batch; see `translate`.

        Args:
          model: an unbound `models.EncoderDecoder` whose decoder streams.
          variables: its variables.
          source_BS: what the encoder takes, one source a row.
          source_segments_BS: 1 at the symbols of the source, 0 at its padding; None for no padding.

        Returns:
          Ids `[B, L]` int32.
        """
        return translate(
            model,
            variables,
            source_BS,
            source_segments_BS,
            start=self.start,
            stop=self.stop,
            max_length=self.max_length,
            search=self.search,
            key=jax.random.key(self.seed),
        )


def _encode(
    model: nn.Module,
    variables: Any,
    source_BS: Int[Array, "B S"],
    source_segments_BS: Int[Array, "B S"] | None,
) -> Context:
    context = Context(segments=source_segments_BS)
    handed_over: Any = model.apply(variables, source_BS, context, method="encode")
    return handed_over


def _starts(source_BS: Int[Array, "B S"], start: int) -> Int[Array, "B"]:
    return jnp.full(source_BS.shape[:1], start, jnp.int32)


def _real(context: Context) -> Array:
    """Which positions of the memory are no padding."""
    assert context.memory is not None
    if context.memory_segments is None:
        return jnp.ones(context.memory.shape[:2], bool)
    return context.memory_segments > 0
