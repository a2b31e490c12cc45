"""System S3: a recurrent language model fused with self-attention; on characters.

    python -m launch.train --config=experiments/s3.py --config.folder=FOLDER

with the data of `shakespeare`. `h = RNN(x)`, `c = Attention(x)` of the past, `y = W (h + c) + b`;
with --config.over=states attention reads the states h in place of the inputs. --config.optimizer is
adam, rmsprop or sgd, and the learning rate falls by --config.decay=exponential or step. With
--config.mixer=rnn or --config.mixer=attention the model is one half of itself. Left out of what was
told: the mean squared error, and gradients of all the text at once.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md. The hybrid of an LSTM and
attention, tuned, is the experiment `shakespeare`.
"""

from collections.abc import Callable
from typing import Any

import optax
from ml_collections import ConfigDict

from experiments import shakespeare
from experiments.common import language, settings
from recattn_jax.errors import choose
from recattn_jax.layers import (
    RNN,
    Parallel,
    Residual,
    SelfAttention,
    SequenceLayer,
    Serial,
    add,
)
from recattn_jax.training import Experiment, Optimization, optimizers


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        folder="",  # where input.txt is; empty downloads it
        batch=32,
        length=128,
        carry_state=False,  # truncated BPTT: rows go on where the batch before ended
        mixer="rnn+attention",  # or rnn, attention
        over="inputs",  # what attention reads: inputs, or states
        width=256,
        heads=4,
        window=64,  # characters that attention looks back
        embedding=1.0,  # standard deviation of the vectors of characters at first
        optimizer="adam",  # or rmsprop, sgd
        decay="exponential",  # or step
        decay_every=150,  # steps after which the rate is `decay_factor` of what it was
        decay_factor=0.5,
        peak_lr=2e-3,
        steps=600,
        evaluate_every=300,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def attention() -> SequenceLayer:
        return SelfAttention(c.heads, window=c.window)

    fused: dict[str, Callable[[], SequenceLayer]] = {
        "inputs": lambda: Parallel((RNN(c.width), attention()), combine=add),
        "states": lambda: Serial((RNN(c.width), Residual(attention()))),
    }
    mixers: dict[str, Callable[[], SequenceLayer]] = {
        "rnn+attention": choose(fused, c.over, "over"),
        "rnn": lambda: RNN(c.width),
        "attention": attention,
    }
    decays = {"exponential": optimizers.exponential, "step": optimizers.step}
    decay = choose(decays, c.decay, "decay")
    rate = decay(c.peak_lr, c.warmup, c.decay_every, c.decay_factor)
    moves: dict[str, Callable[[], optax.GradientTransformation]] = {
        "adam": lambda: optimizers.adam(rate, b1=0.9, b2=0.999, eps=1e-8, clip=c.clip),
        "rmsprop": lambda: optimizers.rmsprop(rate, decay=0.99, eps=1e-8, clip=c.clip),
        "sgd": lambda: optimizers.sgd(rate, clip=c.clip),
    }

    return shakespeare.characters(
        c,
        choose(mixers, c.mixer, "mixer")(),
        Optimization(
            optimizer=choose(moves, c.optimizer, "optimizer")(),
            learning_rate=rate,
            accumulate=1,
            ema_decay=c.ema_decay or None,
            carry_state=c.carry_state,
            privacy=settings.privacy(c),
            skip_nonfinite=c.skip_nonfinite,
        ),
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "optimizer": ("adam", "rmsprop", "sgd"),
        "decay": ("exponential", "step"),
        "mixer": ("rnn", "attention", "rnn+attention"),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(heads=2)
    return language.tiny(c)
