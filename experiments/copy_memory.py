"""Copy memory: ten digits, a long wait, and the ten digits again.

    python -m launch.train --config=experiments/copy_memory.py

An LSTM and one layer of attention; --config.mixer names others: rnn, lstm, gru, rglru, attention,
transformer, s0, s1, s3, griffin. Whoever remembers nothing has an accuracy of 12.5 %.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: after a wait of 200 steps unitary recurrences copy without a mistake, and LSTMs hardly
better than chance (Arjovsky et al., 2015; from memory).
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.common import problems, settings
from recattn_jax.data.problems import CopyMemory
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **problems.numbers() | dict(batch=32, test_batch=32, width=64),
        wait=200,
        steps=2000,
        evaluate_every=250,
        peak_lr=2e-3,
        weight_decay=0.0,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    lengths = dict.fromkeys(("train", "validation", "test"), (c.wait, c.wait))
    return problems.problem(c, CopyMemory(), lengths, curriculum=0, headline="accuracy")


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return problems.sweep() | {"wait": (100, 200, 500)}


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(wait=8)
    return problems.tiny(c)
