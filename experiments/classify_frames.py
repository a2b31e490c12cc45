"""One label for a video, on your own archive of frames: an LSTM beside self-attention.

    python -m launch.train --config=experiments/classify_frames.py --config.path=VIDEOS.npz \
        --config.classes=3 --config.features=900 --config.height=30

where VIDEOS.npz, of NumPy, holds the frames of all recordings behind each other, `[N, height,
width]` or `[N, height, width, channels]`; `offsets`, where each begins, and the end; a label a
recording; and a group a recording, such as who was filmed, by which --config.test=2,4 chooses the
test. A tenth of the other recordings is held out. It is what moves that counts, and every time a
video is shown it is moved and zoomed a bit. With --config.mixer=lstm or --config.mixer=attention
the model is one half of itself. Time and the number to expect are matters of the videos.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import series, settings
from recattn_jax.data import Source, labelled_frames
from recattn_jax.errors import UserError
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **series.numbers() | series.video() | dict(features=900, length=64, batch=16, dropout=0.3),
        path="",
        frames="frames",  # names of arrays in the archive
        label="label",
        group="group",
        test="",  # groups, with commas; no test where there are none
        height=30,  # of a frame; its width is what the features leave
        channels=1,
        steps=600,
        evaluate_every=50,
        ema_decay=0.99,
        patience=10,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    rows = c.height * c.channels
    if rows < 1 or c.features % rows:
        raise UserError(
            f"features={c.features}, height={c.height}, channels={c.channels}: a frame has as many"
            " features as height, width and channels give"
        )
    try:
        groups = [int(group) for group in c.test.split(",") if group.strip()]
    except ValueError:
        raise UserError(f"test={c.test!r}: expected numbers of groups, with commas") from None

    def source(data_dir: Path) -> Source:
        path = settings.path(c, "path", "an archive of frames, offsets, labels and groups")
        splits = {"test": groups} if groups else {}
        return labelled_frames(path, data_dir, c.frames, c.label, c.group, splits)

    return series.moving(c, source, (c.height, c.features // rows, c.channels))


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return series.sweep() | {"shift": (0.0, 2.0, 4.0), "zoom": (0.0, 0.1, 0.2)}


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return series.tiny(c)
