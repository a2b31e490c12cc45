"""The adding problem: two marked numbers among 600, and their sum.

    python -m launch.train --config=experiments/adding.py

An LSTM, and attention that pools its outputs; with --config.readout=last the last one is read off.
--config.mixer names others: rnn, gru, rglru, attention, transformer, s0, s1, s3, griffin,
lstm+attention. Whoever always says 1 has a mean squared error of 0.167.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: mean squared error at 600 steps: LSTM 0.164, GRU 5e-5, temporal convolutions 6e-5 (Bai et
al., 2018).
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.common import architectures, settings
from recattn_jax import partition
from recattn_jax.data import Data, Pipeline, adding, adding_batch
from recattn_jax.errors import choose
from recattn_jax.layers import Dense
from recattn_jax.models import AttentionPooled, Last, Readout, SequenceModel
from recattn_jax.tasks import Regression
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **architectures.numbers() | dict(mixer="lstm", width=32),
        length=600,
        readout="attention",  # pools all steps; or "last"
        batch=32,
        questions=512,  # of an evaluation
        steps=3000,
        evaluate_every=250,
        peak_lr=3e-3,
        weight_decay=0.0,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def pipeline(split: str) -> Pipeline:
        hosts = partition.hosts()
        return adding(split, c.length, c.questions, c.batch, c.seed, *hosts)

    def data() -> Data:
        others = {split: pipeline(split) for split in ("validation", "test")}
        return Data({}, pipeline("train"), others, f"two of {c.length} numbers are added")

    readouts: dict[str, Readout] = {"attention": AttentionPooled(1, c.width), "last": Last(1)}
    readout = choose(readouts, c.readout, "readout")
    return Experiment(
        model=SequenceModel(Dense(c.width), architectures.architecture(c), readout),
        task=Regression(),
        data=data,
        batch=adding_batch(c.batch, c.length),
        optimization=settings.adamw(c),
        cadence=settings.cadence(c),
        layout=settings.layout(c),
        seed=c.seed,
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {"peak_lr": (5e-4, 2e-3), "mixer": architectures.NAMES, "readout": ("attention", "last")}


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return settings.tiny(c, batch=8, questions=8, length=12, width=16, heads=2, depth=1, chunk=4)
