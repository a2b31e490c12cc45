"""Row pipelines: each example once, the same batches for any number of hosts, nothing cut."""

import itertools

import numpy as np
import pytest

from recattn_jax.data import (
    PAIRS,
    TAGGED,
    TAGGED_AND_LABELLED,
    TEXT,
    Examples,
    balanced,
    bucketed,
    packed,
)
from recattn_jax.data.rows import pack
from recattn_jax.errors import UserError

KINDS = {"text": TEXT, "tags": TAGGED, "intents": TAGGED_AND_LABELLED, "pairs": PAIRS}


def examples(kind, lengths, labels=None):
    """Example i has i + 1 at all its steps, but -1 at every other tag."""
    lengths = np.array(lengths).reshape(len(lengths), -1)
    lengths = np.broadcast_to(lengths, (len(lengths), len(kind.parts)))
    numbers = np.arange(1, len(lengths) + 1, dtype=np.int32)
    arrays = {
        name: np.repeat(numbers, lengths[:, p])
        for p, part in enumerate(kind.parts)
        for name in part.leaves
    }
    if "tags" in arrays:
        arrays["tags"][::2] = -1
    offsets = [np.cumsum([0, *column]) for column in lengths.T]
    if kind.labelled:
        labels = np.array(labels or [i % 3 for i in range(len(lengths))], np.int32)
    records = [{"text": str(i)} for i in range(len(lengths))]
    return Examples(kind, "train", arrays, offsets, labels, records, ())


LENGTHS = [3, 1, 7, 2, 2, 5, 6, 1, 4, 7, 3, 3, 2, 1, 5, 2, 6]
PAIR_LENGTHS = [(n, (n + 1) // 2 + n % 2) for n in LENGTHS]
WEIGHTS = np.arange(1.0, 18.0) % 4


def some(kind):
    return examples(kind, PAIR_LENGTHS if kind is PAIRS else LENGTHS)


def make_packed(kind=PAIRS, **hosts):
    return packed(some(kind), 4, (8,), 5, **hosts)


def make_bucketed(kind=TEXT, **hosts):
    return bucketed(some(kind), 4, (3, 5, 7), 5, **hosts)


def make_weighted(kind=TEXT, **hosts):
    return bucketed(some(kind), 4, (3, 5, 7), 5, weights=WEIGHTS, **hosts)


every = pytest.mark.parametrize("make", [make_packed, make_bucketed, make_weighted])


def take(pipeline, start, count):
    with pipeline.batches(start) as batches:
        return list(itertools.islice(batches, count))


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def pieces(batch, kind):
    """(row, segment) -> the numbers of its example, by array; checks that padding is padding."""
    found = {}
    for part in kind.parts:
        segments = batch[part.segments]
        for name, leaf in part.leaves.items():
            assert (batch[name][segments == 0] == leaf.padding).all()
            for row, segment in {(r, s) for r, s in zip(*np.nonzero(segments), strict=True)}:
                where = segments[row] == segments[row, segment]
                key = int(row), int(segments[row, segment])
                found.setdefault(key, {})[name] = tuple(batch[name][row, where])
    return found


def whole(kind, number):
    """What `pieces` must find of an example."""
    made = some(kind)
    return {
        name: tuple(made.arrays[name][slice(*made.offsets[p][number : number + 2])])
        for p, part in enumerate(kind.parts)
        for name in part.leaves
    }


def numbers_in(batch, kind):
    """The examples of a batch, each checked to be whole and in one piece."""
    numbers = []
    for part in kind.parts:
        for row in batch[part.segments]:
            real = row[row > 0]
            # From 1 and up, without a gap, and then padding.
            assert (np.diff(real) >= 0).all() and set(real) == set(
                range(1, real.max(initial=0) + 1)
            )
            assert not row[len(real) :].any()
    for found in pieces(batch, kind).values():
        number = max(max(values) for values in found.values()) - 1
        assert found == whole(kind, number)
        numbers.append(number)
    return numbers


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_batches_have_the_shapes_that_specs_say(kind):
    pipelines = [make_bucketed(kind)] if kind.labelled else [make_bucketed(kind), make_packed(kind)]
    for pipeline in pipelines:
        specs = [
            {name: (leaf.shape, leaf.dtype) for name, leaf in spec.items()}
            for spec in pipeline.specs
        ]
        assert specs[-1] == {n: (leaf.shape, leaf.dtype) for n, leaf in pipeline.spec.items()}
        widths = [spec["inputs"][0][1] for spec in specs]
        assert widths == sorted(widths)
        found = [
            {name: (leaf.shape, leaf.dtype) for name, leaf in batch.items()}
            for batch in [*take(pipeline, 0, 20), *pipeline.epoch()]
        ]
        assert all(spec in found for spec in specs) and all(shape in specs for shape in found)
        assert pipeline.records is pipeline.examples.records


@pytest.mark.parametrize("kind", [PAIRS, TAGGED], ids=["pairs", "tags"])
def test_an_epoch_of_packed_rows_has_each_example_once_and_whole(kind):
    pipeline = make_packed(kind)
    assert pipeline.steps_per_epoch < -(-len(LENGTHS) // 4), "nothing was packed"
    batches = take(pipeline, 0, 40)
    numbers = [numbers_in({n: x[row : row + 1] for n, x in batch.items()}, kind)
               for batch in batches for row in range(4)]  # fmt: skip
    rows = pack(some(kind).lengths, (8,) * len(kind.parts))[2]
    epochs = [numbers[i : i + rows] for i in range(0, len(numbers) - rows + 1, rows)]
    assert len(epochs) > 5
    for epoch in epochs:
        assert sorted(itertools.chain(*epoch)) == list(range(len(LENGTHS)))
    orders = {tuple(map(tuple, epoch)) for epoch in epochs}
    assert len(orders) == len(epochs), "the order did not change"
    assert all((batch["example"] == -1).all() for batch in batches)


def test_examples_of_equal_lengths_change_places():
    made = examples(TAGGED, [3, 3, 3, 3, 5, 5, 5, 5])
    rows = set()
    for batch in take(packed(made, 4, (8,), seed=0), 0, 10):
        rows |= {tuple(sorted(set(row[row > 0]))) for row in batch["inputs"]}
    assert len(rows) > 10 and {len(row) for row in rows} == {2}


@pytest.mark.parametrize(
    "pipeline",
    [
        packed(examples(TAGGED, [5, 6, 7, 8]), 1, (8,), 0),
        bucketed(examples(TEXT, [5, 6, 7, 8]), 1, (5, 6, 7, 8), 0),
    ],
    ids=["packed", "bucketed"],
)
def test_lengths_come_in_another_order_every_epoch(pipeline):
    """Here each length has a row, or a width, of its own."""
    assert pipeline.steps_per_epoch == 4
    lengths = [int(batch["segments"].sum()) for batch in take(pipeline, 0, 24)]
    epochs = [tuple(lengths[i : i + 4]) for i in range(0, 24, 4)]
    assert {tuple(sorted(epoch)) for epoch in epochs} == {(5, 6, 7, 8)}
    assert len(set(epochs)) > 3


@pytest.mark.parametrize("row", [(8,), (9,), (40,)])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_plan_overflows_no_row_and_leaves_none_empty(row, parts):
    random = np.random.default_rng(0)
    for _ in range(5):
        lengths = random.integers(1, 9, (random.integers(1, 200), parts))
        shapes, places, count = pack(lengths, row * parts)
        inside = lengths[np.argsort(shapes, kind="stable")]
        for part in range(parts):
            filled = np.bincount(places, inside[:, part], minlength=count)
            assert filled.max() <= row[0] and filled.min() > 0
        if row == (40,):
            assert count <= 1.1 * np.ceil(lengths.sum(0) / row[0]).max() + 1


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_epoch_of_buckets_has_each_example_once_and_fills_up_the_last_batch(kind):
    pipeline = make_bucketed(kind)
    assert pipeline.steps_per_epoch == 5
    orders = set()
    for epoch in range(6):
        batches = take(pipeline, epoch * 5, 5)
        numbers = [numbers_in(batch, kind) for batch in batches]
        for batch in batches:
            np.testing.assert_array_equal(batch["inputs"].max(1) - 1, batch["example"])
        counts = np.bincount(list(itertools.chain(*numbers)), minlength=len(LENGTHS))
        assert set(counts) == {1, 2} and counts.sum() == 20
        orders.add(tuple(map(tuple, numbers)))
        if kind.labelled:
            for batch in batches:
                np.testing.assert_array_equal(batch["label"], batch["example"] % 3)
                assert (batch["weight"] == 1).all()
    assert len(orders) == 6, "the order did not change"
    # Wider than needed are only those that did not fill a batch where they fit.
    wide = sum(
        int((batch["segments"].sum(1) <= before).sum())
        for batch in take(make_bucketed(TEXT), 0, 5)
        for before in [{3: 0, 5: 3, 7: 5}[batch["inputs"].shape[1]]]
    )
    assert wide <= 2 * 3 + 3


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("make", [make_packed, make_bucketed])
def test_an_evaluation_pass_has_each_example_once_and_filler_rows(kind, make):
    if kind.labelled and make is make_packed:
        return
    batches = list(make(kind).epoch())
    rows = np.concatenate([batch["example"] for batch in batches])
    assert sorted(rows[rows >= 0]) == list(range(len(LENGTHS)))
    assert len(rows) == 20 and not (rows[:17] < 0).any()
    for batch in batches:
        real = batch["example"] >= 0
        assert sorted(numbers_in(batch, kind)) == sorted(batch["example"][real])
        np.testing.assert_array_equal(batch["inputs"].max(1)[real] - 1, batch["example"][real])
        assert not batch["segments"][~real].any()
        if kind.labelled:
            np.testing.assert_array_equal(batch["weight"], real)
            np.testing.assert_array_equal(batch["label"], np.where(real, batch["example"] % 3, 0))
    if make is make_packed:
        np.testing.assert_array_equal(rows[:17], np.arange(17))


@every
@pytest.mark.parametrize("start", [1, 5, 14])
def test_a_position_is_all_that_a_resume_needs(make, start):
    all_of_them = take(make(), 0, start + 6)
    assert_equal(take(make(), start, 6), all_of_them[start:])


@every
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_batch_of_one(make, hosts):
    def joined(parts):
        return [
            {key: np.concatenate([part[key] for part in together]) for key in together[0]}
            for together in zip(*parts, strict=True)
        ]

    alone = make()
    each = [make(process_index=i, process_count=hosts) for i in range(hosts)]
    assert_equal(joined([take(one, 2, 12) for one in each]), take(alone, 2, 12))
    assert_equal(joined([list(one.epoch()) for one in each]), list(alone.epoch()))
    assert {one.fingerprint for one in each} == {alone.fingerprint}
    assert all(one.specs == alone.specs for one in each)


def test_weights_say_how_often_an_example_is_drawn():
    expected = 17 * WEIGHTS / WEIGHTS.sum()
    seen = np.zeros(17, int)
    pipeline = bucketed(some(TEXT), 1, (7,), 5, weights=WEIGHTS)
    for epoch in range(50):
        drawn = np.concatenate([batch["example"] for batch in take(pipeline, epoch * 17, 17)])
        counts = np.bincount(drawn, minlength=17)
        assert (np.abs(counts - expected) < 1).all()
        seen += counts
    np.testing.assert_allclose(seen / 50, expected, atol=0.2)


def test_balanced_weights_draw_every_class_as_often():
    labels = [0] * 12 + [1] * 4 + [2]
    made = examples(TEXT, LENGTHS, labels)
    pipeline = bucketed(made, 1, (7,), 5, weights=balanced(made.labels))
    seen = [batch["label"][0] for batch in take(pipeline, 0, 17 * 30)]
    np.testing.assert_allclose(np.bincount(seen), 170, atol=5)


def test_fewer_examples_than_rows_fill_the_batch_all_the_same():
    pipeline = bucketed(examples(TEXT, [2, 3]), 5, (3,), 0)
    [batch] = take(pipeline, 0, 1)
    assert pipeline.steps_per_epoch == 1 and sorted(batch["example"])[::4] == [0, 1]
    [batch] = pipeline.epoch()
    assert list(batch["example"]) == [0, 1, -1, -1, -1]


def test_the_fingerprint_names_all_that_matters():
    text, pairs = some(TEXT), some(PAIRS)
    other = examples(TEXT, LENGTHS, labels=[0] * 17)
    pipelines = [
        packed(pairs, 4, (8,), 0),
        packed(pairs, 4, (8,), 1),
        packed(pairs, 2, (8,), 0),
        packed(pairs, 4, (8, 9), 0),
        bucketed(pairs, 4, (8,), 0),
        bucketed(text, 4, (8,), 0),
        bucketed(text, 4, (4, 8), 0),
        bucketed(text, 4, (8,), 1),
        bucketed(text, 2, (8,), 0),
        bucketed(text, 4, (8,), 0, weights=[1.0] * 17),
        bucketed(text, 4, (8,), 0, weights=[1.0] * 16 + [2.0]),
        bucketed(other, 4, (8,), 0),
    ]
    assert len({pipeline.fingerprint for pipeline in pipelines}) == len(pipelines)
    assert bucketed(some(TEXT), 4, (8,), 0).fingerprint == pipelines[5].fingerprint
    assert packed(pairs, 4, (8, 8), 0).fingerprint == pipelines[0].fingerprint


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: packed(some(TEXT), 4, (8,), 0), "packed: a label belongs to a row of one example"),
        (lambda: packed(some(PAIRS), 4, (8, 4), 0), "5 steps of inputs/targets, a row has 4"),
        (lambda: packed(some(PAIRS), 4, (8, 8, 8), 0), r"or one each; found \(8, 8, 8\)"),
        (lambda: bucketed(some(TEXT), 4, (3, 6), 0), "train split: .* 7 steps of inputs, a row"),
        (lambda: bucketed(some(TEXT), 4, (7, 5), 0), r"from narrow to wide, found \(7, 5\)"),
        (lambda: bucketed(some(TEXT), 4, (7, 7), 0), "from narrow to wide"),
        (lambda: bucketed(some(PAIRS), 4, ((3, 8), (8, 7)), 0), "from narrow to wide"),
        (lambda: bucketed(some(TEXT), 4, (), 0), "one or more"),
        (lambda: bucketed(some(TEXT), 4, (0, 7), 0), "1 or more"),
        (lambda: bucketed(some(TEXT), 0, (7,), 0), "batch: expected 1 or more, found 0"),
        (lambda: bucketed(some(TEXT), 4, (7,), 0, 0, 3), "4 rows cannot be shared by 3 hosts"),
        (lambda: bucketed(some(TEXT), 4, (7,), 0, weights=[1.0]), "expected 17.*found 1"),
        (lambda: bucketed(some(TEXT), 4, (7,), 0, weights=[0.0] * 17), "one above 0"),
        (lambda: bucketed(some(TEXT), 4, (7,), 0, weights=[-1.0] + [1.0] * 16), "0 or more"),
        (lambda: bucketed(some(TEXT), 4, (7,), 0, weights=[np.nan] * 17), "finite"),
    ],
)
def test_wrong_use_is_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()
