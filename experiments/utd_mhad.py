"""What somebody does, in depth video: 27 actions, by people that training did not show.

    python -m launch.train --config=experiments/utd_mhad.py --config.path=PATH

where PATH is a NumPy archive with `frames`, uint8[N, 30, 30], all recordings behind each other;
`offsets`, where each starts; `action`; and `subject`, 1 to 8, of whom the even ones are the test. A
tenth of the other recordings is held out. Every time a video is shown it is moved and zoomed a bit.
Convolutions over what moves from frame to frame, a bidirectional LSTM beside self-attention (system
S3), and the mean over time. With --config.mixer=lstm or --config.mixer=attention the latter is one
half of itself.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: accuracy 66.1 % from the depth of the whole video (Chen et al., 2015).

Tried: frames as they are, in place of what moves in them, had 33.7 % (commit 6680c46), and what
moves, seen from one place only, 50.7 % after 500 steps (commit b5cbe8e): four people, each standing
where they stand, are too few to learn what all have in common.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import series, settings
from recattn_jax.data import Source, labelled_frames
from recattn_jax.training import Experiment

SIDE = 30


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **series.numbers()
        | series.video()
        | dict(classes=27, features=SIDE * SIDE, length=64, batch=16),
        path="",
        steps=600,
        evaluate_every=100,
        ema_decay=0.99,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        path = settings.path(c, "path", "an archive of frames, offsets, action and subject")
        people = {"test": (2, 4, 6, 8)}
        return labelled_frames(path, data_dir, "frames", "action", "subject", people)

    return series.moving(c, source, (SIDE, SIDE, 1))


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return series.sweep() | {"shift": (0.0, 2.0, 4.0), "zoom": (0.0, 0.1, 0.2)}


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return series.tiny(c)
