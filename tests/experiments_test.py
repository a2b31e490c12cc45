"""Every experiment file builds, all its arms too, and trains two steps in its tiny form."""

import hashlib
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from recattn_jax.data import sources
from recattn_jax.training import (
    Experiment,
    MeshShape,
    RunFolder,
    Span,
    fit,
    load_experiment_file,
)
from recattn_jax.training.evaluation import Evaluator
from recattn_jax.training.sharding import make_mesh, replicated
from recattn_jax.training.state import abstract_state, init_params
from tests.stand_ins import STAND_INS, VERSE, stand_in

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "experiments").glob("*.py")
    if path.stem != "__init__"
)
# Sounds, and columns of words; the others are looked into in the slow tests.
OFTEN = ("spoken_digits", "tag")
LOOKED_INTO = [
    pytest.param(path, marks=() if path.stem in OFTEN else pytest.mark.slow, id=str(path))
    for path in FILES
]
# Values of one kind per config: what a flag can say.
SIMPLE = (bool, int, float, str)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_shapes(path: Path) -> None:
    """The whole experiment, at full size, without an array or a byte of data."""
    file = load_experiment_file(str(ROOT / path))
    config = file.get_config()
    assert config.is_locked
    assert all(isinstance(value, SIMPLE) for value in config.values())
    experiment = file.build(config)
    state = abstract_state(experiment)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) > 1000
    assert file.__doc__ and "python -m launch.train" in file.__doc__


@pytest.mark.parametrize("path", LOOKED_INTO)
def test_sweep_builds(path: Path) -> None:
    """And their values build: the arms that no other test looks at."""
    file = load_experiment_file(str(ROOT / path))
    for key, values in file.sweep().items():
        for value in (values.low, values.high) if isinstance(values, Span) else values:
            config = file.get_config()
            config[key] = value  # an unknown key raises
            abstract_state(file.build(config))


@pytest.mark.parametrize("path", LOOKED_INTO)
def test_two_steps_of_the_tiny_form(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From files in the experiment's own layout to the last score."""
    digest = hashlib.sha256(VERSE.encode()).hexdigest()
    monkeypatch.setattr(sources, "SHAKESPEARE_SHA256", digest)
    file = load_experiment_file(str(ROOT / path))
    config: ConfigDict = file.tiny(file.get_config())
    config.data_dir = str(tmp_path / "data")
    if path.stem in STAND_INS:  # the default experiment brings its text along
        config.update(stand_in(path.stem, tmp_path))
    experiment: Experiment = file.build(config)
    run = RunFolder.open(tmp_path / "run", config=config.to_dict(), config_file=str(path), argv=[])
    outcome = fit(experiment, experiment.data(), run, say=lambda line: None)
    assert outcome.step == config.steps == 2
    assert np.isfinite(outcome.best)


def test_questions_far_longer_than_training_are_answered_by_one_program(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Lengths of 5 to 500 in one pass, and nothing is compiled after the evaluator is made."""
    file = load_experiment_file(str(ROOT / "experiments/formal.py"))
    config = file.tiny(file.get_config())
    config.update(longest=500, questions=31, test_batch=8)
    experiment = file.build(config)
    data = experiment.data()
    test = data.evaluation["test"]
    assert len(test.specs) == 1 and test.spec["inputs"].shape == (8, 501)
    mesh = make_mesh(MeshShape(data=1))
    with jax.set_mesh(mesh):
        params = jax.device_put(init_params(experiment, 0), replicated(mesh))
        evaluator = Evaluator(experiment, params, test, mesh)
        first = evaluator(params, test)
        caplog.clear()
        with jax.log_compiles():
            again = evaluator(params, test)
    assert "Compiling" not in caplog.text, caplog.text
    assert first == again and 0.0 <= first["accuracy"] <= 1.0


@pytest.mark.parametrize("name", ["formal", "mqar", "adding"])
def test_hosts_share_the_batches_of_generated_problems(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two hosts makes the second half of every batch."""
    file = load_experiment_file(str(ROOT / f"experiments/{name}.py"))
    data = file.build(file.tiny(file.get_config())).data
    with data().train.batches(0) as batches:
        whole = next(batches)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with data().train.batches(0) as batches:
        half = next(batches)
    for key, values in whole.items():
        np.testing.assert_array_equal(half[key], values[len(values) // 2 :])
