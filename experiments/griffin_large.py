"""Griffin at the size of accelerators: recurrences and local attention in turn, on subwords.

    python -m launch.train --config=experiments/griffin_large.py --config.text='books/*.txt'

Any UTF-8 files; without --config.text it is Python's own documentation, which is far too little.
404 million parameters; 2.0 billion with

    --config.width=2560 --config.recurrence=3584 --config.hidden=7680 --config.heads=20
    --config.depth=24

Two blocks of a gated linear recurrence, one of local attention, over and over. Activations are
bfloat16, parameters and moments float32 and split over all devices; every block is computed again
in the backward pass, and logits exist for a few steps at a time.

Hardware: a slice of TPUs; whether it fits one is what `launch.compile_check` says without it. Time
and the number to expect: it was compiled, and never trained at this size.

De et al., Griffin: mixing gated linear recurrences with local attention, 2024, arXiv:2402.19427.
"""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.common import language, settings
from recattn_jax.data import Source, SubwordTokenizer, python_docs, text_file
from recattn_jax.errors import UserError
from recattn_jax.layers import (
    Embed,
    Remat,
    Repeat,
    RMSNorm,
    SelfAttention,
    SequenceLayer,
    Serial,
)
from recattn_jax.models import SequenceModel, TiedPerStep
from recattn_jax.models.hybrids import gated_linear_recurrence, pre_norm_block
from recattn_jax.tasks import LanguageModel
from recattn_jax.training import Experiment

TURN = 3  # blocks after which it goes round: recurrence, recurrence, attention


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        text="",  # a path, or a pattern such as 'books/*.txt'; empty is Python's documentation
        validation=0.01,  # shares of the text that are held out
        test=0.01,
        vocabulary=32_000,  # subwords
        batch=256,
        length=2048,
        carry_state=False,  # truncated BPTT: rows go on where the batch before ended
        width=1536,
        recurrence=2048,  # width of the recurrences, in Griffin 4/3 of the width
        gate_blocks=16,  # of the recurrences' gates
        heads=12,  # of queries; all share one of keys and values
        window=1024,  # steps that attention sees
        hidden=4608,  # inside the MLPs
        depth=12,  # blocks, a multiple of three
        chunk=1024,  # steps whose logits are there at a time, on each device
        dropout=0.0,
        steps=100_000,
        warmup=1_000,
        peak_lr=4e-4,
        evaluate_every=2_000,
        save_every=1_000,
        mesh="data:-1,fsdp:16",  # parameters and moments in 16 parts
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    if c.depth < TURN or c.depth % TURN:
        raise UserError(
            f"depth is {c.depth}, must be a multiple of {TURN}: two recurrences and one"
            " attention in turn"
        )

    def block(mixer: SequenceLayer) -> SequenceLayer:
        return Remat(pre_norm_block(mixer, c.hidden, c.dropout))

    def recurrence() -> SequenceLayer:
        return block(gated_linear_recurrence(c.width, c.recurrence, c.gate_blocks))

    attention = block(SelfAttention(c.heads, kv_heads=1, window=c.window))
    turn = Serial((recurrence(), recurrence(), attention))
    embed = Embed(c.vocabulary, c.width, jnp.bfloat16)

    def source(data_dir: Path) -> Source:
        if not c.text:
            return python_docs(data_dir)
        return text_file(c.text, data_dir, c.validation, c.test)

    return language.language_model(
        c,
        source,
        lambda found: SubwordTokenizer.of(found.texts("train"), c.vocabulary, lowercase=False),
        LanguageModel(SubwordTokenizer.separator, SubwordTokenizer.symbol),
        SequenceModel(
            frontend=embed,
            body=Serial((Repeat(turn, c.depth // TURN), RMSNorm())),
            readout=TiedPerStep(embed, c.chunk),
        ),
        settings.adamw(c, carry_state=c.carry_state),
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "peak_lr": (2e-4, 4e-4, 8e-4),
        "window": (512, 1024, 2048),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(vocabulary=512, recurrence=16, gate_blocks=2, heads=2, window=8, hidden=32, depth=3)
    c.update(chunk=8, mesh="data:-1")
    return language.tiny(c)
