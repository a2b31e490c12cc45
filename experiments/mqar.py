"""Associative recall: keys and values, and later keys whose values are asked for.

    python -m launch.train --config=experiments/mqar.py

Four pairs at the start of 64 symbols out of 8,192, each key asked for once. An LSTM and one layer
of attention; --config.mixer names others: rnn, lstm, gru, rglru, attention,
transformer, s0, s1, s3, griffin.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: two layers, accuracy 100 % by attention, 75 % by RWKV of width 64 (Arora et al., 2023).

Tried: width 128 and half the learning rate had 97.9 % after 3,000 steps (commit b5cbe8e).
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.common import problems, settings
from recattn_jax.data.problems import Recall
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **problems.numbers() | dict(batch=64, test_batch=64, width=64),
        length=64,
        pairs=4,
        vocabulary=8192,
        steps=4000,
        evaluate_every=500,
        peak_lr=2e-3,
        weight_decay=0.1,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    lengths = dict.fromkeys(("train", "validation", "test"), (c.length, c.length))
    return problems.problem(
        c, Recall(c.vocabulary, c.pairs), lengths, curriculum=0, headline="accuracy"
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return problems.sweep() | {"length": (64, 256)}


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(length=16, vocabulary=32, pairs=2)
    return problems.tiny(c)
