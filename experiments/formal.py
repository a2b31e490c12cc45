"""Formal languages: learned on short questions, asked of far longer ones.

    python -m launch.train --config=experiments/formal.py --config.problem=parity

with --config.problem one of parity, even_pairs, cycle_navigation, modular_arithmetic (regular),
reverse, duplicate, bucket_sort, binary_addition (not), and --config.mixer one of rnn, lstm, gru,
rglru, attention, transformer, s0, s1, s3, griffin, lstm+attention. Training shows lengths of 1 to
40, short ones first; the test asks lengths of 41 to 500, each as often, and launch.evaluate with
--split=test_41_80, test_81_160, test_161_320 or test_321_500 some of them. A tanh recurrence (rnn,
s1) wants a smaller learning rate, --config.peak_lr=1e-3.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: mean accuracy on lengths 41 to 500, best of many seeds after a million steps: LSTMs 100 %
on the regular ones, transformers 96 (even pairs), 24 (modular arithmetic), 52 (parity), 62 (cycle
navigation); bucket sort 99.3 and 91.9, reverse 60.9 and 62.3 (Delétang et al., 2022).

Tried: 3,000 to 20,000 steps of 32 (of parity, where the row names no other problem). In cycle
navigation an LSTM learns the lengths that it is shown, and has 42 to 85 % of longer ones, over
three seeds and three learning rates: it may count, which fails further on, where RNN and GRU, whose
states are bounded, have 100 %. Bucket sort and reverse would need more steps: 5,000 are a small
part of the reference's.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.common import problems, settings
from recattn_jax.data.problems import (
    BinaryAddition,
    BucketSort,
    CycleNavigation,
    Duplicate,
    EvenPairs,
    ModularArithmetic,
    Parity,
    Reverse,
)
from recattn_jax.errors import UserError, choose
from recattn_jax.training import Experiment

PROBLEMS = {
    "parity": Parity(),
    "even_pairs": EvenPairs(),
    "cycle_navigation": CycleNavigation(),
    "modular_arithmetic": ModularArithmetic(),
    "reverse": Reverse(),
    "duplicate": Duplicate(),
    "bucket_sort": BucketSort(),
    "binary_addition": BinaryAddition(),
}


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **problems.numbers() | dict(mixer="lstm", batch=32, width=64),
        problem="parity",
        shown=40,  # the longest length in training
        longest=500,
        curriculum=0.5,  # of the steps, in which the longest shown grows from 1
        steps=20_000,
        evaluate_every=1000,
        peak_lr=3e-3,
        weight_decay=0.0,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    if not 1 <= c.shown < c.longest:
        raise UserError(f"shown={c.shown}, longest={c.longest}: expected 1 or more, and then more")
    if not 0.0 <= c.curriculum <= 1.0:
        raise UserError(f"curriculum={c.curriculum}: expected a share of the steps, from 0 to 1")
    lengths = {"train": (1, c.shown), "validation": (1, c.shown), "test": (c.shown + 1, c.longest)}
    # How far it carries: once more up to twice as long as shown, up to four times, and so on.
    low = c.shown + 1
    while low < c.longest:
        high = min(2 * (low - 1), c.longest)
        lengths[f"test_{low}_{high}"] = low, high
        low = high + 1
    grows = round(c.curriculum * c.steps)
    return problems.problem(
        c, choose(PROBLEMS, c.problem, "problem"), lengths, grows, headline="loss"
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return problems.sweep() | {"problem": tuple(PROBLEMS)}


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(shown=4, longest=12)
    return problems.tiny(c)
