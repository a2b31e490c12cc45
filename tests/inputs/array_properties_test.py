"""Batches, segments and masks: every target once, and no document but its own."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from recattn_jax import data as d
from recattn_jax.data import rows as rows_of
from recattn_jax.data.stream import TokenStream
from recattn_jax.errors import UserError
from recattn_jax.kernels import segments as places
from recattn_jax.layers import GRU, LSTM, MLSTM, RGLRU, Context, SelfAttention
from tests.inputs.commands import replaced
from tests.inputs.properties import TEXT, holds

DOCUMENTS = st.lists(st.lists(st.integers(0, 8), max_size=9), min_size=1, max_size=9)
SHAPES = dict(batch=st.integers(1, 4), length=st.integers(1, 9))


def stream(documents: list[list[int]]) -> TokenStream:
    """Documents behind each other, 9 before each."""
    tokens = np.array([t for document in documents for t in (9, *document)], np.int32)
    return TokenStream("train", tokens, 9, "digest")


@pytest.mark.parametrize("make", [d.windows, d.lanes])
def test_every_target_of_a_stream_counts_once(make):
    @holds(documents=DOCUMENTS, hosts=st.sampled_from((1, 2)), **SHAPES)
    def check(documents, hosts, batch, length):
        found = stream(documents)
        seed = (3,) if make is d.windows else ()
        try:
            whole = make(found, batch, length, *seed)
        except UserError:
            assert len(found.tokens) <= length
            return
        batches = list(whole.epoch())
        targets = collections.Counter()
        for rows in batches:
            real = rows["segments"] > 0
            assert all(rows[name].shape == (batch, length) for name in rows)
            assert not np.any(rows["inputs"][~real]) and not np.any(rows["targets"][~real])
            targets.update(zip(rows["inputs"][real], rows["targets"][real], strict=True))
            # A separator begins a document, and nothing else does.
            inside = real[:, 1:] & real[:, :-1]
            new = rows["segments"][:, 1:] != rows["segments"][:, :-1]
            assert np.array_equal(new[inside], (rows["inputs"][:, 1:] == 9)[inside])
        pairs = zip(found.tokens[:-1], found.tokens[1:], strict=True)
        assert targets == collections.Counter(pairs)
        if batch % hosts == 0:
            shares = [
                list(make(found, batch, length, *seed, p, hosts).epoch()) for p in range(hosts)
            ]
            for together, *parts in zip(batches, *shares, strict=True):
                for name, values in together.items():
                    joined = np.concatenate([part[name] for part in parts])
                    np.testing.assert_array_equal(values, joined)

    check(60)


@holds(
    lengths=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 5)), min_size=1, max_size=30),
    room=st.tuples(st.integers(7, 20), st.integers(5, 9)),
)
def test_no_row_holds_more_than_it_has_room_for(lengths, room):
    shapes, rows, count = rows_of.pack(np.array(lengths), room)
    order = np.argsort(shapes, kind="stable")
    assert len(rows) == len(lengths) and rows.min() >= 0 and rows.max() < count
    for part in (0, 1):
        used = np.bincount(rows, np.array(lengths)[order, part], count)
        assert used.max() <= room[part]


class Plain(rows_of.Batches):
    """Batches without a thread of their own, of which hypothesis would take notice."""

    def __init__(self, make, start):
        self._iterator = map(make, itertools.count(start))


PAIRS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8)


@holds(pairs=PAIRS, batch=st.integers(1, 3), seed=st.integers(0, 10**30))
def test_every_example_is_packed_once_an_epoch_and_in_one_piece(pairs, batch, seed):
    tokenizer = d.ByteTokenizer()
    records = [{"source": a, "targets": [b]} for a, b in pairs]
    vocabularies = {"source": tokenizer, "target": tokenizer}
    examples = d.pair_examples("train", records, vocabularies, (24, 24))
    pipeline = d.packed(examples, batch, (48, 48), seed)
    wanted = collections.Counter(_pieces(next_to_one(examples)))
    found: collections.Counter = collections.Counter()
    with replaced(rows_of, "Batches", Plain):
        for one in itertools.islice(pipeline.batches(0), pipeline.steps_per_epoch):
            found.update(_pieces(one))
    # Batches run on over the end of an epoch: nothing is missing, and nothing there is new.
    assert all(found[piece] >= count for piece, count in wanted.items())
    assert found.keys() == wanted.keys()


def next_to_one(examples):
    """An example a row, in order."""
    (batch,) = d.bucketed(examples, len(examples), (24,), 0).epoch()
    return batch


def _pieces(batch):
    """The examples in rows: what has one number, in both parts."""
    for b in range(len(batch["inputs"])):
        for number in range(1, batch["segments"][b].max(initial=0) + 1):
            here, there = batch["segments"][b] == number, batch["source_segments"][b] == number
            assert _together(here) and _together(there), "a document is cut in two"
            yield tuple(
                tuple(map(int, batch[name][b][where]))
                for name, where in (("source", there), ("inputs", here), ("targets", here))
            )


def _together(where) -> bool:
    at = np.flatnonzero(where)
    return len(at) > 0 and at[-1] - at[0] + 1 == len(at)


@holds(
    texts=st.lists(TEXT, min_size=1, max_size=12),
    batch=st.integers(1, 4),
    widths=st.sets(st.integers(1, 40), min_size=1, max_size=3),
)
def test_every_example_is_in_one_row_of_a_pass(texts, batch, widths):
    records = [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(texts)]
    vocabularies = {"text": d.ByteTokenizer(), "label": d.Labels(("a", "b"))}
    examples = d.text_examples("train", records, vocabularies, length=max(widths))
    pipeline = d.bucketed(examples, batch, sorted(widths), seed=1)
    seen = []
    for rows in pipeline.epoch():
        assert rows["inputs"].shape[0] == batch and rows["inputs"].shape[1] in widths
        for b, number in enumerate(rows["example"]):
            ids = rows["inputs"][b][rows["segments"][b] > 0]
            if number < 0:
                assert len(ids) == 0 and rows["weight"][b] == 0
                continue
            seen.append(int(number))
            own = d.ByteTokenizer().encode(texts[number])[: max(widths)]
            np.testing.assert_array_equal(ids, own if len(own) else [256])
    assert sorted(seen) == list(range(len(texts)))


# Of one shape, since each shape is compiled.
STEP = st.tuples(st.booleans(), st.booleans())
SEGMENTS = st.lists(st.lists(STEP, min_size=7, max_size=7), min_size=2, max_size=2)


def numbered(rows) -> np.ndarray:
    """Segment numbers: a step is real or not, and begins a document or not."""
    found = []
    for row in rows:
        number, out = 5, []
        for real, begins in row:
            number += real and begins
            out.append(number if real else 0)
        found.append(out)
    return np.array(found, np.int32)


@holds(rows=SEGMENTS, before=st.sampled_from((0, 5, 6, 9)), position=st.integers(0, 10**6))
def test_places_in_documents_are_those_of_a_plain_count(rows, before, position):
    segments = numbered(rows)
    segments = np.where(segments > 0, segments + max(before - 5, 0), 0).astype(np.int32)
    starting = np.full(len(segments), before, np.int32)
    told = places.follow_positions(
        jnp.asarray(segments), segments.shape[1], jnp.asarray(starting),
        jnp.asarray(np.full(len(segments), position, np.int32)),
    )  # fmt: skip
    for b, row in enumerate(segments):
        last, count = before, position
        for t, number in enumerate(row):
            if number:
                count = count if number == last or last == 0 else 0
                last = int(number)
                assert told.positions[b, t] == count
                count += 1
        assert int(told.segment[b]) == last
    order, rank = places.compact(jnp.asarray(segments))
    for b, row in enumerate(segments):
        real = np.flatnonzero(row)
        assert list(np.asarray(order[b])[: len(real)]) == list(real)
        assert sorted(np.asarray(order[b]).tolist()) == list(range(len(row)))
        assert [int(rank[b, t]) for t in real] == list(range(len(real)))


@holds(lengths=st.lists(st.integers(0, 9), max_size=5), length=st.integers(0, 9))
def test_a_context_of_lengths_has_as_many_real_steps(lengths, length):
    context = Context.from_lengths(jnp.asarray(lengths, jnp.int32).reshape(-1), length)
    assert context.segments.shape == (len(lengths), length)
    wanted = [[int(t < n) for t in range(length)] for n in lengths]
    np.testing.assert_array_equal(context.segments, np.array(wanted).reshape(len(lengths), length))


@pytest.mark.parametrize(
    "layer",
    [LSTM(3), GRU(3), MLSTM(1), RGLRU(1), SelfAttention(1), SelfAttention(1, window=2)],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("rows", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_rows_without_a_step_and_batches_without_a_row(layer, rows):
    """Nothing but padding gives zeros and finite gradients; no row gives no row."""
    x = jnp.ones((rows, 1, 4))
    variables = jax.jit(layer.init)(jax.random.key(0), jnp.ones((1, 1, 4)))
    context = Context.from_lengths(jnp.zeros(rows, jnp.int32), 1)

    def total(variables):
        y, _ = layer.apply(variables, x, None, context)
        return jnp.sum(y), y

    (_, y), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(variables)
    assert y.shape[:2] == (rows, 1) and not np.any(y)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradients))
