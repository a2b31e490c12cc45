"""Beam search on the step protocol: many rows at once, in one compiled loop."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from recattn_jax.decoding.stepping import Step, check_length, repeat_rows
from recattn_jax.errors import UserError
from recattn_jax.layers.base import State, map_batch


@dataclasses.dataclass(frozen=True)
class Beam:
    """How beam search ranks what it finds.

    A hypothesis Y of n symbols, its stop included, has the score

    `score(Y) = log P(Y) / lp(n) + beta sum_s log(min(1, sum_t a_ts))`,
    `lp(n) = ((5 + n) / 6)^alpha`,

    where `a_ts` is how much of its attention step t paid to position s of the source. Without the
    length penalty short hypotheses win, as every symbol costs; without the coverage penalty parts
    of the source may be left out. Both rank hypotheses that have ended: which ones are followed is
    decided by `log P` alone, as all that are compared then are equally long.

    Args:
      beams: K, how many hypotheses are followed at once.
      length_penalty: alpha; 0 for plain log probabilities, 1 for nearly their mean a symbol.
      coverage_penalty: beta; 0 for none.

    Raises:
      UserError: a setting is out of its range.

    >>> beam = Beam(beams=4, length_penalty=0.6, coverage_penalty=0.0)

    Reference: Wu et al. 2016, Google's neural machine translation system, arXiv:1609.08144,
    equation 14; there alpha = 0.2 and beta = 0.2 did best.
    """

    beams: int
    length_penalty: float
    coverage_penalty: float

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise UserError(f"beams must be at least 1; got {self.beams}")
        for name in ("length_penalty", "coverage_penalty"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"{name} must be 0 or more and finite; got {value}")

    def over_length(
        self, log_p: Float[Array, "*rows"], length: Int[Array, ""] | int
    ) -> Float[Array, "*rows"]:
        """Divides log probabilities by the length penalty.

        Args:
          log_p: `[...]`, log probabilities of hypotheses of one length.
          length: n, their symbols, the stop included; a number or `[]`.

        Returns:
          `[...]`, `log P / lp(n)`.
        """
        return log_p / ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** self.length_penalty

    def uncovered(
        self, coverage_BKS: Float[Array, "B K S"], covers_BS: Bool[Array, "B S"]
    ) -> Float[Array, "B K"]:
        """The coverage penalty, 0 or less.

        Args:
          coverage_BKS: the attention that each position got in all steps together.
          covers_BS: the positions that are to be covered; the others are padding.

        Returns:
          `[B, K]`, `beta sum_s log(min(1, coverage_s))`; a position without any attention counts as
          the smallest normal float32, about -87, so that scores stay finite.
        """
        tiny = jnp.finfo(jnp.float32).tiny
        log_BKS = jnp.log(jnp.clip(coverage_BKS, tiny, 1.0))
        return self.coverage_penalty * jnp.sum(jnp.where(covers_BS[:, None], log_BKS, 0.0), axis=-1)


class _Search(NamedTuple):
    """What the loop carries: K live hypotheses a row, and the best R that have ended."""

    length: Any  # symbols of every live hypothesis
    ids_BKL: Any
    token_BK: Any  # the last symbol of each
    log_p_BK: Any  # -inf: nothing lives in this place
    coverage_BKS: Any
    state: State  # of B K rows
    ended_ids_BRL: Any
    ended_scores_BR: Any  # falling; -inf: nothing yet


def beam_search(
    step: Step,
    state: State,
    start_B: Int[Array, "B"],
    *,
    beam: Beam,
    hypotheses: int,
    max_length: int,
    stop: int,
    covers_BS: Bool[Array, "B S"] | None,
) -> tuple[Int[Array, "B R L"], Float[Array, "B R"]]:
    """Finds likely sequences: of all one-symbol extensions of K hypotheses, the K best live on.

    Of the `K V` extensions of a row's live hypotheses the K of largest `log P` are kept. Those that
    end in `stop` leave the beam with their score, and the beam is filled again from the children of
    the others. So a beam of 1 is greedy decoding, whatever the penalties, and a beam as wide as the
    space finds the best of all sequences.

    *When it stops.* A row is done when the R-th best score so far is at least
    `max_k log P_k / lp(max_length)` over its live hypotheses k (there may be none). Then nothing
    that comes later can enter: a hypothesis Y that grows out of k has `log P(Y) <= log P_k <= 0`,
    so `log P(Y) / lp(n) <= log P_k / lp(n)`, and as `lp` grows with n (alpha >= 0) this is at most
    `log P_k / lp(max_length)`; the coverage penalty only takes away (beta >= 0). Among equals the
    one that ended first stays. So stopping early returns what running to `max_length` would, and
    rows that are done may run along with the others without a change.

    Args:
      step: the model, for `B K` rows: beam k of row b is row `b K + k`.
      state: its state before `start_B`, of B rows.
      start_B: the first symbol that each row reads.
      beam: K and the penalties.
      hypotheses: R, how many are returned; the fewer, the earlier a row is done.
      max_length: L, how many symbols a hypothesis may have, its stop included.
      stop: the symbol that ends a hypothesis.
      covers_BS: `[B, S]`: with a coverage penalty, the positions that are to be covered, and `step`
        must say what it looked at; None without one.

    Returns:
      Symbols `[B, R, L]` int32, filled with stops after the end, and scores `[B, R]`. Those that
      ended come first, best first; what was cut off at `max_length` only takes places that are left
      over, and `-inf` is the score of a place that stays empty.

    Raises:
      UserError: `hypotheses` or `max_length` is less than 1.

    >>> from recattn_jax.decoding.stepping import Stepped
    >>> def count(token_B, state):  # 0, 1, 2, 3, 4, 0, 1, ...
    ...     return Stepped(8.0 * jax.nn.one_hot((token_B + 1) % 5, 5), state, None)
    >>> ids_BRL, _ = beam_search(
    ...     count, jnp.zeros(1), jnp.array([0]), beam=Beam(2, 0.6, 0.0), hypotheses=1,
    ...     max_length=5, stop=4, covers_BS=None,
    ... )
    >>> ids_BRL.tolist()
    [[[1, 2, 3, 4, 4]]]

    Reference: Wu et al. 2016, arXiv:1609.08144, section 7.
    """
    check_length(max_length)
    if hypotheses < 1:
        raise UserError(f"beam search must return at least 1 hypothesis; got {hypotheses}")

    def score(search: _Search) -> Float[Array, "B K"]:
        scores_BK = beam.over_length(search.log_p_BK, search.length)
        if covers_BS is None:
            return scores_BK
        return scores_BK + beam.uncovered(search.coverage_BKS, covers_BS)

    def goes_on(search: _Search) -> Bool[Array, ""]:
        hope_B = jnp.max(beam.over_length(search.log_p_BK, max_length), axis=1)
        done_B = hope_B <= search.ended_scores_BR[:, -1]
        return (search.length < max_length) & ~jnp.all(done_B)

    def extend(search: _Search) -> _Search:
        search = _extend(step, search)
        ended_BK = search.token_BK == stop
        ended_scores_BR, ended_ids_BRL = _best(
            hypotheses,
            (search.ended_scores_BR, jnp.where(ended_BK, score(search), -jnp.inf)),
            (search.ended_ids_BRL, search.ids_BKL),
        )
        return search._replace(
            log_p_BK=jnp.where(ended_BK, -jnp.inf, search.log_p_BK),
            ended_ids_BRL=ended_ids_BRL,
            ended_scores_BR=ended_scores_BR,
        )

    positions = 0 if covers_BS is None else covers_BS.shape[1]
    search = _begin(state, start_B, beam.beams, hypotheses, max_length, stop, positions)
    search = jax.lax.while_loop(goes_on, extend, search)
    return _with_cut_off(search, score(search), stop)


def _begin(
    state: State,
    start_B: Int[Array, "B"],
    beams: int,
    hypotheses: int,
    max_length: int,
    stop: int,
    positions: int,
) -> _Search:
    """One live hypothesis of no symbols a row, in the first of K places."""
    (batch,) = start_B.shape
    first_K = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)
    return _Search(
        length=jnp.zeros((), jnp.int32),
        ids_BKL=jnp.full((batch, beams, max_length), stop, jnp.int32),
        token_BK=jnp.repeat(start_B.astype(jnp.int32)[:, None], beams, axis=1),
        log_p_BK=jnp.repeat(first_K[None], batch, axis=0),
        coverage_BKS=jnp.zeros((batch, beams, positions)),
        state=repeat_rows(state, beams),
        ended_ids_BRL=jnp.full((batch, hypotheses, max_length), stop, jnp.int32),
        ended_scores_BR=jnp.full((batch, hypotheses), -jnp.inf),
    )


def _extend(step: Step, search: _Search) -> _Search:
    """The K most likely children of all live hypotheses, with the states of their parents."""
    batch, beams = search.token_BK.shape
    stepped = step(search.token_BK.reshape(-1), search.state)
    log_p_NV = jax.nn.log_softmax(stepped.logits.astype(jnp.float32))
    size = log_p_NV.shape[-1]
    log_p_BKV = search.log_p_BK[..., None] + log_p_NV.reshape((batch, beams, size))
    log_p_BK, child_BK = jax.lax.top_k(log_p_BKV.reshape((batch, beams * size)), beams)
    parent_BK, token_BK = child_BK // size, (child_BK % size).astype(jnp.int32)
    row_N = (parent_BK + beams * jnp.arange(batch)[:, None]).reshape(-1)

    coverage_BKS = search.coverage_BKS
    if coverage_BKS.shape[-1]:
        assert stepped.looked is not None, "a coverage penalty needs a step that says what it saw"
        coverage_BKS += stepped.looked.reshape(coverage_BKS.shape)
    ids_BKL = jnp.take_along_axis(search.ids_BKL, parent_BK[..., None], axis=1)
    return search._replace(
        length=search.length + 1,
        ids_BKL=ids_BKL.at[:, :, search.length].set(token_BK),
        token_BK=token_BK,
        log_p_BK=log_p_BK,
        coverage_BKS=jnp.take_along_axis(coverage_BKS, parent_BK[..., None], axis=1),
        state=map_batch(lambda leaf: leaf[row_N], stepped.state),
    )


def _best(
    count: int, scores: tuple[Array, Array], ids: tuple[Array, Array]
) -> tuple[Float[Array, "B R"], Int[Array, "B R L"]]:
    """The best of two sets, best first; among equals the first set's."""
    scores_BR, order_BR = jax.lax.top_k(jnp.concatenate(scores, axis=1), count)
    ids_BNL = jnp.concatenate(ids, axis=1)
    return scores_BR, jnp.take_along_axis(ids_BNL, order_BR[..., None], axis=1)


def _with_cut_off(
    search: _Search, live_scores_BK: Float[Array, "B K"], stop: int
) -> tuple[Int[Array, "B R L"], Float[Array, "B R"]]:
    """Fills places that no ended hypothesis took with the best of those that did not end."""
    count = search.ended_scores_BR.shape[1]
    scores_BN = jnp.concatenate([search.ended_scores_BR, live_scores_BK], axis=1)
    ids_BNL = jnp.concatenate([search.ended_ids_BRL, search.ids_BKL], axis=1)
    cut_off_N = jnp.arange(scores_BN.shape[1]) >= count
    rank_BN = jnp.where(jnp.isneginf(scores_BN), 2, cut_off_N[None])
    order_BR = jnp.lexsort((-scores_BN, rank_BN))[:, :count]
    scores_BR = jnp.take_along_axis(scores_BN, order_BR, axis=1)
    ids_BRL = jnp.take_along_axis(ids_BNL, order_BR[..., None], axis=1)
    return jnp.where(jnp.isneginf(scores_BR)[..., None], stop, ids_BRL), scores_BR
