"""What training says comes next."""

import functools

import numpy as np
import pytest

from launch.train import follows
from recattn_jax.data import ByteTokenizer, Labels, Measurements, Motion, Spectra
from recattn_jax.tasks import (
    Answers,
    Classification,
    LanguageModel,
    Regression,
    Transcription,
    losses,
)

CLASSIFIES = Classification(
    classes=2, loss=functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)
)
SOUND = Spectra.of([np.arange(400, dtype=np.int16)], 8000, 200, 80, 4)
FRAMES = [np.array([[[0, 9]], [[4, 0]]], np.uint8)]


@pytest.mark.parametrize(
    ("task", "vocabularies", "command"),
    [
        (CLASSIFIES, {"text": ByteTokenizer(), "label": Labels(("a", "b"))}, "generate"),
        (CLASSIFIES, {"series": Measurements.of(FRAMES), "label": Labels(("a", "b"))}, "generate"),
        (CLASSIFIES, {"series": Motion.of(FRAMES), "label": Labels(("a", "b"))}, "evaluate"),
        (Transcription(symbols=257), {"series": SOUND, "text": ByteTokenizer()}, "generate"),
        (LanguageModel(separator=0, symbol="byte"), {"text": ByteTokenizer()}, "generate"),
        (Answers(CLASSIFIES.loss), {"answer": Labels(("0", "1"))}, "evaluate"),
        (Regression(), {}, "evaluate"),
        (Regression(), {"columns": Labels(("a",))}, "generate"),
    ],
)
def test_a_model_is_applied_where_a_person_can_ask_it(task, vocabularies, command):
    assert follows(task, vocabularies) == command
