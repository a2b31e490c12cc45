import itertools
import threading

import numpy as np
import pytest

from recattn_jax.data import TokenStream, lanes, windows
from recattn_jax.errors import UserError

SEPARATOR = 0


def stream(lengths, name="train", digest="d"):
    """Documents of these lengths; each other token is its own position."""
    tokens = np.arange(sum(lengths) + len(lengths), dtype=np.int32)
    starts = np.cumsum([0] + [length + 1 for length in lengths[:-1]])
    tokens[starts] = SEPARATOR
    return TokenStream(name, tokens, SEPARATOR, digest)


def take(pipeline, start, count):
    with pipeline.batches(start) as batches:
        return list(itertools.islice(batches, count))


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def make_windows(tokens, batch=4, length=5, **hosts):
    return windows(tokens, batch, length, seed=3, **hosts)


def make_lanes(tokens, batch=4, length=5, **hosts):
    return lanes(tokens, batch, length, **hosts)


both = pytest.mark.parametrize("make", [make_windows, make_lanes])
DOCUMENTS = stream([3, 17, 1, 0, 30, 8])


@both
def test_batches_have_the_shapes_that_spec_says(make):
    pipeline = make(DOCUMENTS)
    for batch in [*take(pipeline, 0, 2), *pipeline.epoch()]:
        assert {name: (leaf.shape, leaf.dtype) for name, leaf in pipeline.spec.items()} == {
            name: (leaf.shape, leaf.dtype) for name, leaf in batch.items()
        }


@both
@pytest.mark.parametrize("documents", [[3, 17, 1, 0, 30, 8], [19], [20], [39, 0], [4, 0]])
@pytest.mark.parametrize("length", [1, 4, 5])
def test_an_evaluation_pass_counts_every_target_once(make, documents, length):
    tokens = stream(documents).tokens
    found = []
    for batch in make(stream(documents), length=length).epoch():
        real = batch["segments"] > 0
        found += zip(batch["inputs"][real], batch["targets"][real], strict=True)
        assert not batch["inputs"][~real].any() and not batch["targets"][~real].any()
    expected = zip(tokens[:-1], tokens[1:], strict=True)
    assert sorted(found) == sorted(expected)


def test_a_pass_of_windows_keeps_the_order():
    found = [batch["inputs"][batch["segments"] > 0] for batch in make_windows(DOCUMENTS).epoch()]
    np.testing.assert_array_equal(np.concatenate(found), DOCUMENTS.tokens[:-1])


def test_a_pass_of_lanes_reads_equal_stretches():
    batches = list(make_lanes(DOCUMENTS).epoch())
    rows = np.concatenate([batch["inputs"] for batch in batches], axis=1)
    segments = np.concatenate([batch["segments"] for batch in batches], axis=1)
    found = [row[number > 0] for row, number in zip(rows, segments, strict=True)]
    np.testing.assert_array_equal(np.concatenate(found), DOCUMENTS.tokens[:-1])
    assert {len(row) for row in found[:-1]} == {16} and len(found[-1]) == 64 - 3 * 16


def test_an_epoch_of_windows_has_each_row_once_at_a_new_offset_in_a_new_order():
    tokens = stream([82])  # 83 tokens are 16 rows of 5 and a rest: 4 batches
    pipeline = make_windows(tokens)
    assert pipeline.steps_per_epoch == 4
    epochs = []
    for epoch in range(3):
        rows = np.concatenate([b["inputs"] for b in take(pipeline, epoch * 4, 4)])
        starts = (rows[:, 0], rows[:, -1] - 4)
        start = np.where(rows[:, 0] > 0, *starts) % 83  # token 0 is as good as any other here
        offsets = {tuple(sorted((start - o) % 83)) == tuple(range(0, 80, 5)) for o in range(83)}
        assert True in offsets, "the rows are not a cut of the rotated stream"
        epochs.append(tuple(start))
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 3, "the offset did not change"
    gaps = {tuple(np.diff(epoch) % 83) for epoch in epochs}
    assert len(gaps) == 3, "the order did not change"
    assert all(len(set(np.diff(epoch) % 83)) > 1 for epoch in epochs), "the rows are in order"


def test_windows_number_documents_from_one_in_each_row():
    tokens = DOCUMENTS.tokens
    for batch in [*take(make_windows(DOCUMENTS), 0, 12), *make_windows(DOCUMENTS).epoch()]:
        for inputs, targets, segments in zip(*batch.values(), strict=True):
            number = 1
            for t in range(5):
                if t > 0 and inputs[t] == SEPARATOR:
                    number += 1
                assert segments[t] in (number, 0)
            real = segments > 0
            np.testing.assert_array_equal(inputs[real][1:], targets[real][:-1])
            for here, after in zip(inputs[real], targets[real], strict=True):
                if here != SEPARATOR:
                    assert after == tokens[(here + 1) % len(tokens)]


@both
@pytest.mark.parametrize("start", [1, 5, 14])
def test_a_position_is_all_that_a_resume_needs(make, start):
    all_of_them = take(make(DOCUMENTS), 0, start + 6)
    assert_equal(take(make(DOCUMENTS), start, 6), all_of_them[start:])


@both
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_batch_of_one(make, hosts):
    def joined(parts):
        return [
            {key: np.concatenate([part[key] for part in together]) for key in together[0]}
            for together in zip(*parts, strict=True)
        ]

    alone = make(DOCUMENTS)
    each = [make(DOCUMENTS, process_index=i, process_count=hosts) for i in range(hosts)]
    assert_equal(joined([take(one, 2, 7) for one in each]), take(alone, 2, 7))
    assert_equal(joined([list(one.epoch()) for one in each]), list(alone.epoch()))
    assert {one.fingerprint for one in each} == {alone.fingerprint}
    assert all(one.spec == alone.spec for one in each)


def test_a_lane_is_the_stream_without_a_gap_and_its_documents_never_come_back():
    tokens = DOCUMENTS.tokens
    batches = take(make_lanes(DOCUMENTS), 0, 40)  # 200 tokens a lane: three rounds
    inputs, targets, segments = (
        np.concatenate([batch[name] for batch in batches], axis=1)
        for name in ("inputs", "targets", "segments")
    )
    for lane in range(4):
        start = lane * len(tokens) // 4
        endless = np.roll(np.tile(tokens, 4), -start)[:201]
        np.testing.assert_array_equal(inputs[lane], endless[:-1])
        np.testing.assert_array_equal(targets[lane], endless[1:])
        new = (inputs[lane] == SEPARATOR).astype(int)
        new[0] = 1
        np.testing.assert_array_equal(segments[lane], np.cumsum(new))


def test_lanes_read_the_stream_once_in_an_epoch():
    tokens = stream([79])
    pipeline = make_lanes(tokens)
    assert pipeline.steps_per_epoch == 4
    found = np.concatenate([batch["inputs"] for batch in take(pipeline, 0, 4)], axis=None)
    np.testing.assert_array_equal(np.sort(found), tokens.tokens)


def test_the_fingerprint_names_all_that_matters():
    tokens = stream([50])
    pipelines = [
        windows(tokens, 4, 5, seed=0),
        windows(tokens, 4, 5, seed=1),
        windows(tokens, 2, 5, seed=0),
        windows(tokens, 4, 6, seed=0),
        windows(stream([50], digest="e"), 4, 5, seed=0),
        lanes(tokens, 4, 5),
        lanes(tokens, 2, 5),
        lanes(tokens, 4, 6),
        lanes(stream([50], digest="e"), 4, 5),
    ]
    assert len({pipeline.fingerprint for pipeline in pipelines}) == len(pipelines)
    assert windows(stream([50]), 4, 5, seed=0).fingerprint == pipelines[0].fingerprint


def test_the_seed_changes_cut_and_order():
    cuts, orders = set(), set()
    for seed in range(3):
        rows = np.concatenate([b["inputs"] for b in take(windows(stream([82]), 4, 5, seed), 0, 4)])
        cuts.add(tuple(sorted(rows[:, 2])))
        orders.add(tuple(np.diff(rows[:, 2]) % 83))
    assert len(cuts) == len(orders) == 3


@both
@pytest.mark.parametrize("length", [51, 4096])
def test_a_row_longer_than_the_corpus_is_refused_with_both_numbers(make, length):
    with pytest.raises(UserError, match=f"{length} tokens .* validation split, which has 51"):
        make(stream([50], name="validation"), length=length)
    make(stream([50]), length=50)


@both
def test_a_batch_that_hosts_cannot_share_is_refused(make):
    with pytest.raises(UserError, match="4 rows cannot be shared by 3 hosts"):
        make(DOCUMENTS, process_index=0, process_count=3)


@both
@pytest.mark.parametrize("size", [{"batch": 0}, {"length": 0}])
def test_sizes_are_positive(make, size):
    with pytest.raises(UserError, match="1 or more"):
        make(DOCUMENTS, **size)


@both
def test_closing_ends_the_thread(make):
    before = set(threading.enumerate())
    with make(DOCUMENTS).batches(0) as batches:
        next(batches)
        started = set(threading.enumerate()) - before
        assert started
    batches.close()
    for thread in started:
        thread.join(timeout=5)
        assert not thread.is_alive()
