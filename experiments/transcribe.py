"""What is said in your own recordings, letter by letter: an LSTM beside self-attention, and CTC.

    python -m launch.train --config=experiments/transcribe.py --config.path=SOUNDS \
        --config.transcripts=TEXTS.tsv

where SOUNDS is a folder (or a tar archive of one) with wav files of 16 bits, one channel and
--config.rate samples a second, and each line of TEXTS.tsv has the path of one below SOUNDS, a tab,
and what is said there. A tenth of the files is held out; those whose path has the regular
expression --config.test in it are the test. With --config.mixer=lstm or --config.mixer=attention
the model is one half of itself. Time and the number to expect are matters of the sounds; hours of
speech are needed, not minutes.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import settings, transcription
from recattn_jax.data import Source, transcribed_waves, transcripts
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **transcription.numbers() | dict(dropout=0.3, depth=2),
        path="",  # a folder, or a tar archive of one
        transcripts="",
        test="",
        steps=3000,
        evaluate_every=100,
        patience=10,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        path = settings.path(c, "path", "a folder of wav files")
        text = transcripts(settings.path(c, "transcripts", "lines of a path, a tab and a text"))
        splits = {"test": c.test} if c.test else {}
        return transcribed_waves(path, data_dir, c.rate, text, splits)

    return transcription.transcription(c, source)


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return transcription.sweep()


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return transcription.tiny(c)
