"""From labelled series, such as measurements, sound or video, to an experiment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.common import classification, encoders, settings
from recattn_jax.data import (
    TEXT,
    Measurements,
    Motion,
    Source,
    Spectra,
    Steps,
    series_examples,
)
from recattn_jax.layers import (
    Dense,
    Dropout,
    FrameConvolutions,
    RandomAffine,
    SequenceLayer,
    Serial,
)
from recattn_jax.models import Mean, SequenceModel
from recattn_jax.training import Experiment


def numbers() -> dict[str, Any]:
    """The numbers that `series` reads, those of an encoder among them."""
    return encoders.numbers() | classification.labels() | dict(features=1)  # of a step, as it comes


def series(
    c: ConfigDict,
    source: Callable[[Path], Source],
    steps: Callable[[Source], Steps],
    frontend: SequenceLayer | None = None,
) -> Experiment:
    """An experiment that puts one label on a series.

    Args:
      c: the config.
      source: from the folder for prepared data to the records.
      steps: from the records to what makes `c.features` features a step of them.
      frontend: from the features to `c.width` channels; None for a linear map.
    """

    def inputs(found: Source) -> classification.Vocabularies:
        made = steps(found)
        settings.check_features(c, made.features)
        return {"series": made}

    entrance = Dense(c.width) if frontend is None else frontend
    model = SequenceModel(
        frontend=Serial((entrance, Dropout(c.dropout))),
        body=encoders.encoder(c),
        readout=Mean(c.classes),
    )
    kind = TEXT.holding("inputs", (c.features,), np.float32)
    optimization = settings.adamw(c)
    # Few series are held out, and soon all of them are right: the loss still tells steps apart.
    return classification.labelled(
        c, source, inputs, series_examples, kind, model, optimization, "loss"
    )


def scaled(found: Source) -> Steps:
    """Measurements, each feature with a scale of its own."""
    return Measurements.of(record["series"] for record in found.splits["train"])


def sound() -> dict[str, Any]:
    """The numbers that `spectra` reads."""
    return dict(
        rate=16_000,  # samples a second of every file
        window=400,  # samples of a frame
        hop=160,  # samples from frame to frame
        features=40,  # bands of the mel scale
    )


def spectra(c: ConfigDict, found: Source) -> Steps:
    """Sound, as its power in bands of the mel scale."""
    waves = (record["series"] for record in found.splits["train"])
    return Spectra.of(waves, c.rate, c.window, c.hop, c.features)


def video() -> dict[str, Any]:
    """The numbers that `moving` reads, beside those of `series`."""
    return dict(
        shift=2.0,  # pixels that a video is moved by in training, at most
        zoom=0.1,  # and how much larger or smaller it is seen
    )


def moving(
    c: ConfigDict, source: Callable[[Path], Source], shape: tuple[int, int, int]
) -> Experiment:
    """An experiment that puts one label on a video, by what moves in it.

    Args:
      c: the config.
      source: from the folder for prepared data to the records.
      shape: height, width and channels of a frame.
    """

    def motion(found: Source) -> Steps:
        return Motion.of(record["series"] for record in found.splits["train"])

    seen = RandomAffine(shape, c.shift, c.zoom)
    frontend = Serial((seen, FrameConvolutions(shape, (16, 32, 64), c.width)))
    return series(c, source, motion, frontend)


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "peak_lr": (1e-3, 3e-3, 1e-2),
        "mixer": ("lstm", "attention", "lstm+attention"),
        "dropout": (0.2, 0.3, 0.5),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return settings.tiny(c, batch=8, length=16, width=16, heads=2)
