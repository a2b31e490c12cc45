"""Beam search on a step of six units, against plain Python that looks at every sequence."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.decoding import Beam, Stepped, beam_search
from recattn_jax.errors import UserError
from recattn_jax.layers.base import Stacked

B, V, S, L, STOP, START = 3, 3, 4, 4, 0, 1
EVERYTHING = V * (V - 1) ** (L - 1)  # a beam that never has to drop anything
rng = np.random.default_rng(0)
TABLE, MIX = rng.normal(size=(V, 6)) * 1.5, rng.normal(size=(6, 6))
OUT, LOOK = rng.normal(size=(6, V)) * 1.5, rng.normal(size=(6, S)) * 2
FIRST = rng.normal(size=(B, 6))  # a state of its own for each row
COVERS = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 1, 1, 0]], bool)


def softmax(x):
    x = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def toy_step(token_B, state):
    # A part of the state has the depth before the batch, as in `Repeat`.
    before = jnp.concatenate([state["plain"], *state["deep"].layers], axis=1)
    after = jnp.tanh(before @ MIX + jnp.asarray(TABLE)[token_B])
    state = {"plain": after[:, :2], "deep": Stacked(after[:, 2:].reshape(-1, 2, 2).swapaxes(0, 1))}
    return Stepped(after @ OUT, state, jax.nn.softmax(after @ LOOK))


def first_state(rows):
    first = jnp.asarray(FIRST, jnp.float32)[rows]
    return {"plain": first[:, :2], "deep": Stacked(first[:, 2:].reshape(-1, 2, 2).swapaxes(0, 1))}


def by_hand(row, ids):
    """Log probability and coverage of a sequence, in float64."""
    state, token, log_p, coverage = FIRST[row], START, 0.0, np.zeros(S)
    for after in ids:
        state = np.tanh(state @ MIX + TABLE[token])
        log_p += np.log(softmax(state @ OUT))[after]
        coverage += softmax(state @ LOOK)
        token = after
    return log_p, coverage


def score(row, ids, beam):
    log_p, coverage = by_hand(row, ids)
    penalty = np.log(np.minimum(coverage[COVERS[row]], 1.0)).sum()
    return log_p / ((5 + len(ids)) / 6) ** beam.length_penalty + beam.coverage_penalty * penalty


@functools.partial(jax.jit, static_argnames=("beam", "hypotheses", "max_length", "covered"))
def search_rows(rows, beam, hypotheses, max_length=L, covered=True):
    return beam_search(
        toy_step,
        first_state(rows),
        jnp.full(rows.shape, START),
        beam=beam,
        hypotheses=hypotheses,
        max_length=max_length,
        stop=STOP,
        covers_BS=jnp.asarray(COVERS)[rows] if covered else None,
    )


def search(beam, hypotheses, rows=range(B), **settings):
    found = search_rows(jnp.array(list(rows)), beam, hypotheses, **settings)
    return jax.tree.map(np.asarray, found)


def filled(ids, length=L):
    return [*ids, *[STOP] * (length - len(ids))]


def by_plain_search(row, beam, hypotheses, max_length):
    """The same search to the very end, without any rule that stops it."""
    live, ended = [(0.0, ())], []
    for _ in range(max_length):
        children = [
            (by_hand(row, (*ids, token))[0], (*ids, token)) for _, ids in live for token in range(V)
        ]
        children = sorted(children, key=lambda child: -child[0])[: beam.beams]
        ended += [(score(row, ids, beam), ids) for _, ids in children if ids[-1] == STOP]
        live = [child for child in children if child[1][-1] != STOP]
    ranked = sorted(ended, key=lambda found: -found[0])
    cut_off = sorted(((score(row, ids, beam), ids) for _, ids in live), key=lambda cut: -cut[0])
    return (ranked + cut_off)[:hypotheses]


@pytest.mark.parametrize(
    "beam", [Beam(EVERYTHING, 0.0, 0.0), Beam(EVERYTHING, 0.8, 0.0), Beam(EVERYTHING, 0.8, 0.5)]
)
def test_a_beam_as_wide_as_the_space_ranks_all_sequences(beam):
    going_on = range(1, V)
    ended = [
        (*ids, STOP) for n in range(L) for ids in itertools.product(going_on, repeat=n)
    ]  # 1 + 2 + 4 + 8
    cut_off = list(itertools.product(going_on, repeat=L))
    found_ids, found_scores = search(beam, len(ended) + 3)
    orders = set()
    for row in range(B):
        wanted = sorted(ended, key=lambda ids, row=row: -score(row, ids, beam))
        orders.add(tuple(wanted))
        # What did not end stands after all that did.
        wanted += sorted(cut_off, key=lambda ids, row=row: -score(row, ids, beam))[:3]
        assert found_ids[row].tolist() == [filled(ids) for ids in wanted]
        scores = [score(row, ids, beam) for ids in wanted]
        np.testing.assert_allclose(found_scores[row], scores, rtol=1e-5)
    assert len(orders) == B, "the rows should differ"


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("penalties", [(0.0, 0.0), (1.5, 0.0), (1.0, 0.3)])
def test_stopping_early_finds_what_running_to_the_end_does(beams, penalties):
    beam, length = Beam(beams, *penalties), 9
    for hypotheses in {1, beams}:
        found_ids, found_scores = search(beam, hypotheses, max_length=length)
        for row in range(B):
            wanted = by_plain_search(row, beam, hypotheses, length)
            ids = [filled(ids, length) for _, ids in wanted]
            assert found_ids[row, : len(ids)].tolist() == ids
            np.testing.assert_allclose(
                found_scores[row, : len(ids)], [score for score, _ in wanted], rtol=1e-5
            )
            assert np.isneginf(found_scores[row, len(ids) :]).all()


def test_a_row_of_the_batch_is_the_row_alone():
    beam = Beam(3, 0.7, 0.2)
    together = search(beam, 3, max_length=9)
    for row in range(B):
        alone = search(beam, 3, rows=[row], max_length=9)
        assert alone[0][0].tolist() == together[0][row].tolist()
        np.testing.assert_allclose(alone[1][0], together[1][row], rtol=1e-6)


def test_what_has_ended_is_never_extended():
    found_ids, found_scores = search(Beam(4, 0.0, 0.0), 4, max_length=9)
    for ids in found_ids[np.isfinite(found_scores)].tolist():
        if STOP in ids:
            assert set(ids[ids.index(STOP) :]) == {STOP}
    for row in range(B):
        real = found_ids[row][np.isfinite(found_scores[row])]
        assert len({tuple(ids) for ids in real.tolist()}) == len(real), "one sequence, two places"


def test_places_that_nothing_takes_are_empty():
    found_ids, found_scores = search(Beam(2, 0.0, 0.0), 9, max_length=1)
    # Two of the three symbols are followed: whatever they are, seven places stay empty.
    assert np.isneginf(found_scores[:, 2:]).all() and np.isfinite(found_scores[:, :2]).all()
    assert (found_ids[:, 2:] == STOP).all()


def steps_taken(logits, beam, hypotheses, max_length=30):
    """How many steps a search takes in which the logits of step t are `logits[t]`."""
    taken = []

    def step(token_B, state):
        jax.debug.callback(lambda: taken.append(1))
        at = jnp.minimum(state, len(logits) - 1)
        return Stepped(jnp.asarray(logits)[at], state + 1, None)

    beam_search(
        step,
        jnp.zeros((1,), jnp.int32),
        jnp.zeros((1,), jnp.int32),
        beam=beam,
        hypotheses=hypotheses,
        max_length=max_length,
        stop=STOP,
        covers_BS=None,
    )
    jax.effects_barrier()
    return len(taken)


def test_the_search_ends_when_nothing_better_can_come():
    likely = np.log([[0.9, 0.05, 0.05]])
    # The stop is found at once, and no other first symbol can ever make up for it.
    assert steps_taken(likely, Beam(2, 0.0, 0.0), 1) == 1
    # The second best must be waited for: it ends one symbol later, or not at all.
    assert steps_taken(likely, Beam(2, 0.0, 0.0), 2) == 2
    # log 0.9 = -0.105 after 1 symbol; a child of log 0.05 = -3 may score -3 / lp(30) in the end.
    assert steps_taken(likely, Beam(2, 1.0, 0.0), 1) == 1
    # With lp(30) = 198 that is hope, until 7 log 0.05 / 198 = -0.1056.
    assert steps_taken(likely, Beam(2, 3.0, 0.0), 1) == 7
    # A beam of one has nothing left once it has ended, whatever could be hoped for.
    assert steps_taken(likely, Beam(1, 3.0, 0.0), 1) == 1


@pytest.mark.parametrize(
    "settings", [{"beams": 0}, {"length_penalty": -0.1}, {"coverage_penalty": float("nan")}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        Beam(**({"beams": 1, "length_penalty": 0.0, "coverage_penalty": 0.0} | settings))


def test_searches_without_room_or_result_are_refused():
    with pytest.raises(UserError, match="max_length must be at least 1"):
        search(Beam(1, 0.0, 0.0), 1, max_length=0)
    with pytest.raises(UserError, match="at least 1 hypothesis"):
        search(Beam(1, 0.0, 0.0), 0)
