"""An LSTM beside self-attention (system S3), on the characters of Tiny Shakespeare.

    python -m launch.train --config=experiments/shakespeare.py --config.folder=FOLDER

where FOLDER holds `input.txt` (1,115,394 bytes; without --config.folder it is downloaded). The last
10 % are for validation, in windows of the training length, each character counted once. With
--config.mixer=lstm or --config.mixer=attention it is one half of itself.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md. Reference: nanoGPT's
`train_shakespeare_char`, 1.88 nats a character in about 3 minutes on a CPU and 1.4697 on an A100.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import char_lm
from experiments.common import language
from recattn_jax.data import CharTokenizer, Source, tiny_shakespeare
from recattn_jax.layers import Embed, SequenceLayer
from recattn_jax.models import PerStep, SequenceModel
from recattn_jax.tasks import LanguageModel
from recattn_jax.training import Experiment, Optimization

CHARACTERS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    config = char_lm.get_config()
    with config.unlocked():
        config.folder = ""  # where input.txt is; empty downloads it
    config.update(
        heads=8,
        steps=720,
        warmup=15,
        momentum=0.9,
        weight_decay=0.2,
        evaluate_every=720,
        save_every=360,
    )
    return config


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    return char_lm.language_model(c, CharTokenizer(CHARACTERS), source(c))


def source(c: ConfigDict) -> Callable[[Path], Source]:
    """From the folder for prepared data to the plays, as `folder` has them or downloaded."""
    return lambda data_dir: tiny_shakespeare(data_dir, c.folder or None)


def characters(c: ConfigDict, body: SequenceLayer, optimization: Optimization) -> Experiment:
    """A body between characters and the next; reads `width`, `embedding` and `folder`.

    Args:
      c: the config.
      body: mixes the steps.
      optimization: how parameters move.
    """
    tokenizer = CharTokenizer(CHARACTERS)
    symbols = tokenizer.vocabulary_size
    return language.language_model(
        c,
        source(c),
        lambda found: tokenizer,
        LanguageModel(tokenizer.separator, tokenizer.symbol),
        SequenceModel(Embed(symbols, c.width, stddev=c.embedding), body, PerStep(symbols)),
        optimization,
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return char_lm.sweep()


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return char_lm.tiny(c)
