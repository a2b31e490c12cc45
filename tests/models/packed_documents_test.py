"""Documents that share a row know nothing of each other: every named hybrid, from tokens to losses.

The laws hold a layer to this. Here is the whole model, as it is trained: tokens in, embedded,
through the hybrid, read out, compared; and of each document its own loss term, and the gradient of
that term with respect to every parameter, through jit. Altering another document changes no bit.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recattn_jax.layers import LSTM, Context, Embed, SequenceLayer, Serial
from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel, hybrids
from tests.laws import BATCH, LENGTH, MEMORY_SEGMENTS, SEGMENTS, TABLE, VOCABULARY, WIDTH, identical

# One that reads alone, and one that looks at what an encoder wrote; the others are slow.
OFTEN = ("recurrence_beside_attention", "bahdanau_decoder")
NAMES = [
    pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in hybrids.__all__
]
DOCUMENTS = [(b, int(n)) for b in range(BATCH) for n in np.unique(SEGMENTS[b]) if n]
ALTERED = ((0, 1), (0, 2), (0, 3), (1, 5), (1, 8), (2, 1))

Parts = dict[str, Any]
Terms = Callable[[Any, Parts], jax.Array]


def parts() -> Parts:
    """Tokens of sources and of targets, and what is to be predicted."""
    r = np.random.default_rng(3)
    draw = functools.partial(r.integers, 0, VOCABULARY, dtype=np.int32)
    steps = SEGMENTS.shape
    return {
        "source": draw(MEMORY_SEGMENTS.shape),
        "inputs": draw(steps),
        "labels": draw(steps),
    }


def altered(before: Parts, row: int, number: int) -> Parts:
    """The same, but that all of one document is other tokens."""
    after = {}
    for name, tokens in before.items():
        segments = MEMORY_SEGMENTS if name == "source" else SEGMENTS
        inside = np.zeros(tokens.shape, bool)
        inside[row] = segments[row] == number
        after[name] = np.where(inside, (tokens + 1 + tokens % 3) % VOCABULARY, tokens)
    return after


def built(layer: SequenceLayer, memory: bool) -> tuple[Any, Terms]:
    """Variables of the model around a hybrid, and its cross-entropy step by step."""
    reading = SequenceModel(Embed(VOCABULARY, WIDTH), layer, PerStep(VOCABULARY))
    context = Context(segments=jnp.asarray(SEGMENTS))
    known = parts()
    if memory:
        encoder = Serial((Embed(VOCABULARY, WIDTH), LSTM(WIDTH)))
        model = EncoderDecoder(encoder, reading)
        source = Context(segments=jnp.asarray(MEMORY_SEGMENTS))

        def logits(variables: Any, given: Parts) -> jax.Array:
            return model.apply(variables, given["source"], given["inputs"], source, context)[0]

        init = jax.jit(model.init)(jax.random.key(1), known["source"], known["inputs"])
    else:

        def logits(variables: Any, given: Parts) -> jax.Array:
            return reading.apply(variables, given["inputs"], None, context)[0]

        init = jax.jit(reading.init)(jax.random.key(1), known["inputs"])

    def nats(variables: Any, given: Parts) -> jax.Array:
        predicted = logits(variables, given)
        return optax.softmax_cross_entropy_with_integer_labels(predicted, given["labels"])

    noise = np.random.default_rng(5)  # so that no gate is shut and no weight is zero
    return jax.tree.map(lambda a: a + 0.1 * noise.normal(size=a.shape), init), nats


def check(layer: SequenceLayer, memory: bool) -> None:
    """Raises AssertionError where a document's loss term, or its gradient, hears of another."""
    variables, nats = built(layer, memory)

    @jax.jit
    def term(variables: Any, given: Parts, mine: jax.Array) -> Any:
        def loss(variables: Any) -> jax.Array:
            return jnp.sum(jnp.where(mine, nats(variables, given), 0.0))

        return jax.value_and_grad(loss)(variables)

    def terms(given: Parts) -> dict[tuple[int, int], Any]:
        found = {}
        for row, number in DOCUMENTS:
            mine = np.zeros(SEGMENTS.shape, bool)
            mine[row] = SEGMENTS[row] == number
            found[row, number] = jax.device_get(term(variables, given, mine))
        return found

    before = terms(parts())
    assert all(any(np.any(leaf != 0) for leaf in jax.tree.leaves(d)) for _, d in before.values()), (
        "a document has no gradient at all"
    )
    for row, number in ALTERED:
        after = terms(altered(parts(), row, number))
        assert after[row, number][0] != before[row, number][0], "altering a document is not seen"
        for document in DOCUMENTS:
            if document != (row, number):
                what = f"document {number} of row {row} altered: of document {document}"
                identical(before[document][0], after[document][0], f"{what}, the loss")
                identical(before[document][1], after[document][1], f"{what}, the gradient")


@pytest.mark.parametrize("name", NAMES)
def test_a_document_knows_nothing_of_those_it_is_packed_with(name: str) -> None:
    row = TABLE[f"hybrids.{name}"]  # a new hybrid has to be there
    check(row.layer, row.memory)


@pytest.mark.parametrize("memory", [False, True])
def test_a_leak_is_seen(memory: bool) -> None:
    class Leaking(SequenceLayer):
        """Adds to each step a little of the mean of its row."""

        streams = False

        def forward(self, x, state, context):
            return x + 1e-3 * jnp.mean(x, axis=1, keepdims=True), ()

    assert SEGMENTS.shape == (BATCH, LENGTH)
    with pytest.raises(AssertionError, match="document 1 of row 0 altered"):
        check(Leaking(), memory)
