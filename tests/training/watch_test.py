import math

import numpy as np
import pytest

from recattn_jax.training.watch import BadStep, Peaks, examples_of, not_finite


def test_peaks_are_the_largest_since_the_last_line():
    peaks = Peaks({})
    for loss, norm in ((1.0, 5.0), (3.0, 2.0), (2.0, 4.0)):
        peaks.see({"loss": loss, "grad_norm": norm})
    kept = Peaks(peaks.notes())
    assert peaks.take() == kept.take() == {"loss_peak": 3.0, "grad_norm_peak": 5.0}
    assert peaks.take() == {}
    peaks.see({"loss": -1.0, "grad_norm": 0.0})
    assert peaks.notes() == {"loss_peak": -1.0, "grad_norm_peak": 0.0}


@pytest.mark.parametrize(
    ("loss", "norm", "words"),
    [
        (1.0, 1.0, ""),
        (math.nan, 1.0, "loss is nan"),
        (1.0, -math.inf, "grad norm is -inf"),
        (math.inf, math.nan, "loss is inf and grad norm is nan"),
    ],
)
def test_what_is_wrong_with_a_step(loss, norm, words):
    assert not_finite({"loss": loss, "grad_norm": norm, "accuracy": math.nan}) == words


def test_examples_are_counted_once_and_padding_is_none():
    assert examples_of({"example": np.array([[4, 4, -1], [2, -1, -1]])}) == [2, 4]
    assert examples_of({"inputs": np.zeros((2, 3))}) == []


def test_a_bad_step_names_some_examples_and_records_all():
    bad = BadStep(8, "loss is nan", list(range(10)), 1)
    assert str(bad) == (
        "loss is nan at step 8, batch 7 of the training pipeline, examples 0, 1, 2, 3, 4, 5, 6, 7"
        " and 2 more"
    )
    assert bad.record()["examples"] == list(range(10)) and bad.record()["batch"] == 7
    assert str(BadStep(1, "x", [], 0)).endswith("pipeline")
