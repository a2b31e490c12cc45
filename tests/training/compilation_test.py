"""The loop compiles all that it runs before it has stepped and evaluated once, and then no more."""

from pathlib import Path

import jax
import numpy as np

from experiments import char_lm
from experiments.benchmarks.compilations import compilations, compiled_by
from tests.training.toy import run_folder, toy


def test_the_default_run_compiles_nothing_after_its_first_evaluation(tmp_path: Path):
    """Steps, lines, evaluations and saves follow, the last of each included."""
    config = char_lm.tiny(char_lm.get_config())
    rhythm = dict(steps=5, log_every=1, evaluate_every=2, save_every=3)
    config.update(batch=32, length=256)  # or an evaluation takes many batches
    config.update(data_dir=str(tmp_path / "data"), **rhythm)
    experiment = char_lm.build(config)
    before, after = compiled_by(experiment, experiment.data(), run_folder(tmp_path / "run"))
    assert before and after == []


def test_a_run_with_all_that_a_state_can_hold_compiles_nothing_either(tmp_path: Path):
    holds = dict(ema_decay=0.5, carry_state=True, accumulate=2, patience=3)
    before, after = compiled_by(*toy(**holds), run_folder(tmp_path / "run"))
    assert before and after == []


def test_what_is_compiled_again_is_seen():
    half = jax.jit(lambda x: x / 2)
    half(np.ones(3, np.float32))
    with compilations() as names:
        half(np.ones(3, np.float32))
        assert names == []
        half(np.ones(4, np.float32))  # another shape
    assert names == ["jit(<lambda>)"]
    half(np.ones(5, np.float32))
    assert len(names) == 1  # nobody listens any more
