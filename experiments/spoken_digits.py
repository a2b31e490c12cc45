r"""Which digit was said: sound at 8,000 samples a second, by five speakers.

    python -m launch.train --config=experiments/spoken_digits.py --config.path=PATH

where PATH is the archive of the Free Spoken Digit Dataset or a folder of its files,
`DIGIT_SPEAKER_INDEX.wav`. The first five of each digit and speaker are the test, as its authors
split it; with --config.held_out=theo all that this speaker said is. A bidirectional LSTM beside
self-attention (system S3) over the power in mel bands, and the mean over time. With
--config.mixer=lstm or --config.mixer=attention it is one half of itself.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: accuracy 95 to 99 % by small networks on spectrograms, same split (from memory).
"""

import functools
import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import series, settings
from recattn_jax.data import Source, labelled_waves
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **series.numbers()
        | series.sound()
        | dict(classes=10, rate=8000, window=256, hop=128, length=96),
        path="",
        held_out="",
        steps=1000,
        evaluate_every=100,
        ema_decay=0.99,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    test = rf"_{re.escape(c.held_out)}_\d+\.wav$" if c.held_out else r"_[0-4]\.wav$"

    def source(data_dir: Path) -> Source:
        path = settings.path(c, "path", "DIGIT_SPEAKER_INDEX.wav")
        label = r"(\d)_[a-z]+_\d+\.wav$"
        return labelled_waves(path, data_dir, c.rate, label, {"test": test})

    return series.series(c, source, functools.partial(series.spectra, c))


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return series.sweep()


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return series.tiny(c)
