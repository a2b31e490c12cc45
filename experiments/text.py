"""An LSTM beside self-attention (system S3), on the bytes of your own text.

    python -m launch.train --config=experiments/text.py --config.text='books/*.txt'

Any UTF-8 files; several are a document each, split by document, and one is cut at its last tenths.
Time is that of `char_lm`; the number to expect is a matter of the text.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import char_lm
from recattn_jax.data import ByteTokenizer, Source, text_file
from recattn_jax.errors import UserError
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    config = char_lm.get_config()
    with config.unlocked():
        config.text = ""  # a path, or a pattern such as 'books/*.txt'
        config.validation = 0.1  # shares of the text that are held out
        config.test = 0.1
    return config


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        if not c.text:
            raise UserError("which text? set --config.text=FILE, or a pattern for several files")
        return text_file(c.text, data_dir, c.validation, c.test)

    return char_lm.language_model(c, ByteTokenizer(), source)


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return char_lm.sweep()


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return char_lm.tiny(c)
