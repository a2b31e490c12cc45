"""Every experiment file builds, has the shapes it says, and trains two steps in its tiny form."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from recattn_jax.data import (
    ByteTokenizer,
    CharTokenizer,
    Data,
    Tokenizer,
    TokenStream,
    text_data,
    windows,
)
from recattn_jax.data.builders import Source
from recattn_jax.training import Experiment, RunFolder, fit, load_experiment_file
from recattn_jax.training.state import abstract_state

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "experiments").glob("*.py")
    if path.stem != "__init__"
)
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


@pytest.mark.parametrize("path", FILES, ids=str)
def test_sweep_names_config_keys(path: Path) -> None:
    file = load_experiment_file(str(ROOT / path))
    assert set(file.sweep()) <= set(file.get_config())


@pytest.mark.parametrize("path", FILES, ids=str)
def test_two_steps_of_the_tiny_form(path: Path, tmp_path: Path) -> None:
    """On a text of this test's own in place of the experiment's, which may need a network."""
    file = load_experiment_file(str(ROOT / path))
    config: ConfigDict = file.tiny(file.get_config())
    experiment: Experiment = file.build(config)
    tokenizer: Tokenizer = ByteTokenizer()
    if experiment.task.symbol == "char":
        tokenizer = CharTokenizer(file.CHARACTERS)
    text = "To be, or not to be: that is the question.\n" * 8
    records = [{"text": text}]
    source = Source("hamlet", "0" * 64, {"train": records, "validation": records})

    def data() -> Data:
        return text_data(source, tokenizer, tmp_path, pipeline)

    def pipeline(stream: TokenStream, host: int, hosts: int):
        return windows(stream, config.batch, config.length, config.seed, host, hosts)

    experiment = dataclasses.replace(experiment, data=data)
    run = RunFolder.open(tmp_path / "run", config=config.to_dict(), config_file=str(path), argv=[])
    outcome = fit(experiment, experiment.data(), run, say=lambda line: None)
    assert outcome.step == config.steps == 2
    assert np.isfinite(outcome.best)
