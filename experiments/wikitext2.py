"""Words of WikiText-2: LSTMs beside attention to the last words, tied to the embedding.

    python -m launch.train --config=experiments/wikitext2.py --config.folder=FOLDER

where FOLDER holds `train.txt`, `valid.txt` and `test.txt`, perhaps as .gz: 2,088,628 words to train
on, 33,278 different ones. The state is carried from batch to batch. With --config.mixer=lstm or
--config.mixer=attention the model is one half of itself.

Hardware: one GPU; on a CPU a step takes seconds. Time and the number to expect: see RESULTS.md.

Reference: perplexity of words on the test: tied LSTMs 86.7 (650 units) and 84.1 (1500), AWD-LSTM
65.8.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import language, settings
from recattn_jax.data import Source, WordTokenizer, find_file, word_text
from recattn_jax.errors import choose
from recattn_jax.layers import (
    LSTM,
    Dropout,
    Embed,
    Noise,
    Parallel,
    Residual,
    RMSNorm,
    SelfAttention,
    SequenceLayer,
    Serial,
    add,
)
from recattn_jax.models import SequenceModel, TiedPerStep
from recattn_jax.tasks import LanguageModel
from recattn_jax.training import Experiment

FILES = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        folder="",
        words=33_277,  # all but <unk>, with the end of a line
        batch=32,
        length=70,
        carry_state=True,
        mixer="lstm+attention",
        width=640,
        depth=2,
        heads=10,
        window=128,  # words that attention looks back
        chunk=560,  # words of a batch whose logits are there at a time, on each device
        dropout=0.5,
        weight_drop=0.3,  # of the LSTMs' recurrent kernels
        steps=30_000,
        evaluate_every=1_000,
        save_every=1_000,
        peak_lr=2e-3,
        warmup=500,
        ema_decay=0.999,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def lstm() -> SequenceLayer:
        return LSTM(c.width, noise=Noise(weights=c.weight_drop))

    def attention() -> SequenceLayer:
        return SelfAttention(c.heads, window=c.window)

    mixers: dict[str, Callable[[], SequenceLayer]] = {
        "lstm": lstm,
        "attention": attention,
        "lstm+attention": lambda: Parallel((lstm(), attention()), combine=add),
    }
    mixer = choose(mixers, c.mixer, "mixer")
    blocks = [Residual(Serial((RMSNorm(), mixer(), Dropout(c.dropout)))) for _ in range(c.depth)]
    embed = Embed(c.words + 2, c.width)

    def source(data_dir: Path) -> Source:
        folder = settings.path(c, "folder", ", ".join(FILES.values()))
        return word_text(
            {split: find_file(folder, name) for split, name in FILES.items()}, data_dir
        )

    def tokenizer(found: Source) -> WordTokenizer:
        return WordTokenizer.of(found.texts("train"), c.words, lowercase=False, spaced=True)

    return language.language_model(
        c,
        source,
        tokenizer,
        LanguageModel(separator=c.words + 1, symbol="word"),
        SequenceModel(
            frontend=Serial((embed, Dropout(c.dropout))),
            body=Serial((*blocks, RMSNorm(), Dropout(c.dropout))),
            readout=TiedPerStep(embed, c.chunk),
        ),
        settings.adamw(c, carry_state=c.carry_state),
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "peak_lr": (1e-3, 2e-3, 4e-3),
        "mixer": ("lstm", "attention", "lstm+attention"),
        "dropout": (0.4, 0.5, 0.6),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(words=20, heads=2, window=8)
    return language.tiny(c)
