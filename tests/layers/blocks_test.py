"""Block recurrence against a plain loop over the blocks of every document."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers
from recattn_jax.layers import Context
from tests.layers.time_test import SEGMENTS, B, D, T, compare, documents, started
from tests.oracles import assert_close

BLOCK, SLOTS = 2, 2
ROWS = {"packed": Context(segments=SEGMENTS), "whole": Context()}


def reader():
    return layers.Serial((layers.LSTM(D), layers.Residual(layers.CrossAttention(2))))


def writer():
    return layers.Serial(
        (layers.SelfAttention(2, causal=False, positions=None), layers.CrossAttention(2))
    )


@pytest.mark.parametrize(
    ("rows", "gate", "writes_inputs"),
    [
        pytest.param("packed", layers.LSTMGate(), False, marks=pytest.mark.slow),
        ("packed", layers.FixedGate(), True),
        pytest.param("whole", layers.add, False, marks=pytest.mark.slow),
    ],
)
def test_equals_a_loop_over_blocks(rows: str, gate, writes_inputs: bool) -> None:
    layer = layers.BlockRecurrent(
        reader(), writer(), gate, slots=SLOTS, block=BLOCK, writes_inputs=writes_inputs
    )

    def wanted(variables, x):
        params = variables["params"]
        own = {name: {"params": params.get(name)} for name in ("reader", "writer", "gate")}
        y = jnp.zeros((B, T, D))
        each = documents() if rows == "packed" else ((row, np.arange(T)) for row in range(B))
        for row, steps in each:
            slots, state = params["start"][None], None
            for first in range(0, len(steps), BLOCK):
                at = steps[first : first + BLOCK]
                inside = x[row : row + 1, at]
                out, state = reader().apply(own["reader"], inside, state, Context(memory=slots))
                y = y.at[row, at].set(out[0])
                memory = Context(memory=inside if writes_inputs else out)
                written, _ = writer().apply(own["writer"], slots, None, memory)
                both = [slots, written]
                slots = gate(both) if gate is layers.add else gate.apply(own["gate"], both)
        return y

    compare(layer, wanted, ROWS[rows])


def test_a_block_that_is_not_over_changes_nothing_yet() -> None:
    layer = layers.BlockRecurrent(reader(), writer(), layers.add, slots=SLOTS, block=4)
    x = jax.random.normal(jax.random.key(0), (B, 5, D))
    variables = started(layer, x)
    _, after_four = layer.apply(variables, x[:, :4])
    assert not after_four.slots.any()  # a block is over where the next one begins
    _, after_five = layer.apply(variables, x[:, 4:5], after_four)
    assert after_five.slots.any()
    _, at_once = layer.apply(variables, x[:, :5])
    assert_close(after_five, at_once)
