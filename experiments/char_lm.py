"""An LSTM beside self-attention (system S3), on the bytes of Python's own documentation.

The default experiment: the text is what every Python installation carries, so it needs no network.

    python -m launch.train

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import language, settings
from recattn_jax.data import ByteTokenizer, Source, Tokenizer, python_docs
from recattn_jax.errors import choose
from recattn_jax.layers import (
    LSTM,
    Dropout,
    Embed,
    RMSNorm,
    Rotary,
    SelfAttention,
    SequenceLayer,
    Serial,
)
from recattn_jax.models import PerStep, SequenceModel
from recattn_jax.models.hybrids import pre_norm_block, recurrence_beside_attention
from recattn_jax.tasks import LanguageModel
from recattn_jax.training import Experiment, Optimization, optimizers


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        batch=8,
        length=512,
        carry_state=False,  # truncated BPTT: rows go on where the batch before ended
        mixer="lstm+attention",
        width=256,
        depth=1,
        heads=2,
        window=64,  # steps that attention looks back
        mlp_ratio=1,
        dropout=0.0,
        steps=450,
        peak_lr=1.5e-2,
        end_lr=0.0,
        warmup=30,
        momentum=0.95,
        adam_b2=0.99,  # of what Muon leaves to Adam: embeddings, readout, norms, biases
        weight_decay=0.1,
        clip=1.0,
        accumulate=1,
        log_every=10,
        evaluate_every=150,
        save_every=150,
        keep=2,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    return language_model(c, ByteTokenizer(), python_docs)


def language_model(
    c: ConfigDict, tokenizer: Tokenizer, source: Callable[[Path], Source]
) -> Experiment:
    """A language model of the config's shape, on any text.

    Args:
      c: the config.
      tokenizer: its vocabulary sets the width of the readout.
      source: from the folder for prepared data to the text.
    """
    mixers: dict[str, Callable[[], SequenceLayer]] = {
        "lstm": lambda: LSTM(c.width),
        "attention": lambda: SelfAttention(c.heads, window=c.window),
        "lstm+attention": lambda: recurrence_beside_attention(
            c.width, c.heads, c.window, positions=Rotary()
        ),
    }
    mixer = choose(mixers, c.mixer, "mixer")
    blocks = [pre_norm_block(mixer(), c.mlp_ratio * c.width, c.dropout) for _ in range(c.depth)]

    rate = optimizers.linear(c.peak_lr, c.warmup, c.steps, end=c.end_lr)
    return language.language_model(
        c,
        source,
        lambda found: tokenizer,
        LanguageModel(tokenizer.separator, tokenizer.symbol),
        SequenceModel(
            frontend=Embed(tokenizer.vocabulary_size, c.width),
            body=Serial((*blocks, RMSNorm(), Dropout(c.dropout))),
            readout=PerStep(tokenizer.vocabulary_size),
        ),
        Optimization(
            optimizer=optimizers.muon(
                rate,
                beta=c.momentum,
                adam_b1=0.9,
                adam_b2=c.adam_b2,
                weight_decay=c.weight_decay,
                clip=c.clip,
            ),
            learning_rate=rate,
            accumulate=c.accumulate,
            ema_decay=c.ema_decay or None,
            carry_state=c.carry_state,
            privacy=settings.privacy(c),
            skip_nonfinite=c.skip_nonfinite,
        ),
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "peak_lr": (3e-3, 1e-2, 2e-2),
        "mixer": ("lstm", "attention", "lstm+attention"),
        "dropout": (0.0, 0.1),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(heads=2)
    return language.tiny(c)
