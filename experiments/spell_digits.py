r"""What was said, letter by letter: digits as English words, by way of CTC.

    python -m launch.train --config=experiments/spell_digits.py --config.path=PATH

where PATH is the archive of the Free Spoken Digit Dataset or a folder of its files,
`DIGIT_SPEAKER_INDEX.wav`; the first five of each digit and speaker are the test. Nobody says which
of 60 frames a letter belongs to: the loss sums over all ways to write the word. A bidirectional
LSTM beside self-attention (system S3); with --config.mixer=lstm or --config.mixer=attention one
half of itself.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.
"""

import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import settings, transcription
from recattn_jax.data import Source, transcribed_waves
from recattn_jax.errors import UserError
from recattn_jax.training import Experiment

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **transcription.numbers()
        | dict(rate=8000, window=256, hop=128, letters=15, length=144, text=5, dropout=0.3),
        path="",
        steps=1500,
        evaluate_every=250,
        ema_decay=0.99,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        path = settings.path(c, "path", "DIGIT_SPEAKER_INDEX.wav")
        return transcribed_waves(path, data_dir, c.rate, spelled, {"test": r"_[0-4]\.wav$"})

    return transcription.transcription(c, source)


def spelled(name: str) -> str:
    """The word for the digit that a file's name begins with."""
    found = re.search(r"(\d)_[a-z]+_\d+\.wav$", name)
    if found is None:
        raise UserError("its name is not DIGIT_SPEAKER_INDEX.wav")
    return WORDS[int(found[1])]


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return transcription.sweep()


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return transcription.tiny(c)
