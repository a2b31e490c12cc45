"""Generated problems: their answers by another way, and the same questions for any hosts."""

import numpy as np
import pytest

from recattn_jax.data import adding, generated, problem_batch
from recattn_jax.data.problems import (
    BinaryAddition,
    BucketSort,
    CopyMemory,
    CycleNavigation,
    Draws,
    Duplicate,
    EvenPairs,
    ModularArithmetic,
    Parity,
    Recall,
    Reverse,
)
from recattn_jax.errors import UserError


def arithmetic(asked):
    return [eval("".join(f"{s}" if s < 5 else "+-*"[s - 5] for s in asked)) % 5]  # noqa: S307


def walk(asked):
    place = 0
    for move in asked:
        place = (place + (0, 1, 4)[move]) % 5
    return [place]


def addition(asked):
    first, second = "".join("01+"[s] for s in asked).split("+")
    total = int(first[::-1] or "0", 2) + int(second[::-1] or "0", 2)
    bits = [int(bit) for bit in reversed(f"{total:b}")]
    return bits + [2] * (len(asked) - len(bits))


SPELLED = {
    Parity(): lambda asked: [list(asked).count(1) % 2],
    EvenPairs(): lambda asked: [int(asked[0] != asked[-1])],
    CycleNavigation(): walk,
    ModularArithmetic(): arithmetic,
    Reverse(): lambda asked: list(reversed(asked)),
    Duplicate(): lambda asked: [*asked, *asked],
    BucketSort(): sorted,
    BinaryAddition(): addition,
}


@pytest.mark.parametrize("problem", SPELLED, ids=lambda p: type(p).__name__)
def test_answers_follow_from_the_question(problem):
    seen = set()
    for length in (1, 2, 3, 4, 7, 20, 61):
        for key in range(20):
            symbols, asked, answers = problem.make(Draws(key), length)
            question = symbols[: len(symbols) - len(answers)].tolist()
            assert len(question) == length - (
                isinstance(problem, ModularArithmetic) and length % 2 == 0
            )
            assert SPELLED[problem](question) == answers.tolist()
            assert (symbols[asked] == problem.symbols - 1).all() and asked[-1] == len(symbols) - 1
            steps, count = problem.sizes(length)
            assert len(symbols) <= steps and len(answers) == count
            assert symbols.min() >= 0 and symbols.max() < problem.symbols
            assert answers.min() >= 0 and answers.max() < problem.answers
            seen.update(answers.tolist())
    assert seen == set(range(problem.answers))


def test_a_key_is_asked_for_after_its_value():
    problem = Recall(vocabulary=64, pairs=4)
    places = []
    for key in range(200):
        symbols, asked, answers = problem.make(Draws(key), 64)
        value_of = dict(zip(symbols[:8:2].tolist(), symbols[1:8:2].tolist(), strict=True))
        assert len(value_of) == 4 and len(symbols) == 64
        assert [value_of[key] for key in symbols[asked].tolist()] == answers.tolist()
        assert (np.diff(asked) > 0).all() and asked[0] >= 8
        assert all(0 < key < 32 <= value for key, value in value_of.items())
        places += asked.tolist()
    near, far = np.sum(np.array(places) < 16), np.sum(np.array(places) >= 56)
    assert near > 4 * far > 0
    with pytest.raises(UserError, match="pairs=4 of vocabulary=8, which has 3 keys"):
        Recall(vocabulary=8, pairs=4)
    with pytest.raises(UserError, match="length=15: 4 pairs need 16"):
        problem.make(Draws(0), 15)


def test_memory_is_asked_for_after_the_wait():
    symbols, asked, answers = CopyMemory().make(Draws(3), 30)
    assert symbols[:10].tolist() == answers.tolist() and asked.tolist() == list(range(40, 50))
    assert set(symbols[10:39].tolist()) == {8} and symbols[39] == 9
    assert (symbols[40:] == 8).all()


def test_draws_do_not_change_between_releases():
    draws = Draws(2**100 + 7)
    assert draws.below(10, 6).tolist() == [4, 6, 1, 0, 1, 3]
    assert sorted(Draws(1).some(9, 9).tolist()) == list(range(9))
    assert Draws(1).some(1000, 3).tolist() == [887, 255, 738]
    with pytest.raises(ValueError, match="4 different numbers below 3"):
        Draws(1).some(3, 4)
    uniform = Draws(2).uniform(1000)
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.05


def test_batches_are_the_same_for_any_hosts_and_start():
    def pipeline(split="train", *hosts):
        return generated(BucketSort(), split, (1, 6), 10, 4, 5, 0, *hosts)

    with pipeline().batches(0) as whole, pipeline("train", 1, 2).batches(0) as second:
        first, other = next(whole), next(second)
        later = next(whole)
        for name in first:
            np.testing.assert_array_equal(first[name][2:], other[name])
    with pipeline().batches(1) as resumed:
        np.testing.assert_array_equal(next(resumed)["inputs"], later["inputs"])
    assert not np.array_equal(first["inputs"], later["inputs"])
    assert pipeline().fingerprint == pipeline("train", 1, 2).fingerprint
    assert pipeline().fingerprint != pipeline("test").fingerprint


def test_a_pass_asks_every_length_alike_in_one_shape():
    pipeline = generated(Reverse(), "test", (3, 5), 7, 4, 0, 0)
    batches = list(pipeline.epoch())
    assert [batch["inputs"].shape for batch in batches] == [(4, 10), (4, 10)]
    lengths = [int(n) for batch in batches for n in (batch["answers"] >= 0).sum(axis=1)]
    assert lengths == [3, 4, 5, 3, 4, 5, 3, 0]
    for batch in batches:
        assert {name: (a.shape, a.dtype) for name, a in batch.items()} == {
            name: (spec.shape, spec.dtype) for name, spec in problem_batch(Reverse(), 4, 5).items()
        }
        assert (batch["segments"].sum(axis=1) == 2 * (batch["answers"] >= 0).sum(axis=1)).all()
    again = list(pipeline.epoch())
    np.testing.assert_array_equal(again[1]["inputs"], batches[1]["inputs"])
    with pytest.raises(UserError, match=r"test has lengths of \(0, 5\)"):
        generated(Reverse(), "test", (0, 5), 7, 4, 0, 0)


def test_a_curriculum_shows_longer_and_longer_questions():
    def longest(step, curriculum):
        with generated(Reverse(), "train", (2, 10), 9, 64, 0, curriculum).batches(step) as batches:
            batch = next(batches)
        assert batch["inputs"].shape == (64, 20)
        return (batch["answers"] >= 0).sum(axis=1).max()

    assert [longest(step, 8) for step in (0, 3, 8, 20)] == [2, 5, 10, 10]
    assert longest(0, 0) == 10
    with pytest.raises(UserError, match="curriculum is -1 steps"):
        longest(0, -1)


def test_the_marked_numbers_are_added():
    pipeline = adding("train", 9, count=5, batch=4, seed=0)
    batches = list(pipeline.epoch())
    weights = np.concatenate([batch["weight"] for batch in batches])
    assert weights.tolist() == [1.0] * 5 + [0.0] * 3
    for batch in batches:
        real = batch["weight"] > 0
        values, marks = batch["inputs"][..., 0][real], batch["inputs"][..., 1][real]
        assert (marks[:, :4].sum(axis=1) == 1).all() and (marks[:, 4:].sum(axis=1) == 1).all()
        expected = (values * marks).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(batch["targets"][real], expected, rtol=1e-6)
        assert values.min() >= 0 and values.max() < 1
    with pipeline.batches(0) as whole, adding("train", 9, 5, 4, 0, 1, 2).batches(0) as second:
        first, other = next(whole), next(second)
    np.testing.assert_array_equal(first["inputs"][2:], other["inputs"])
    with pytest.raises(UserError, match="length 1, 5 questions"):
        adding("train", 1, 5, 4, 0)
