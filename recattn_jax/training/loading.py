"""Loading what a run has trained: its folder is data, its experiment file is code."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from recattn_jax import untrusted
from recattn_jax.data import Vocabulary, load_vocabularies
from recattn_jax.errors import RunError, StorageError, UserError
from recattn_jax.training.checkpoints import Checkpoints
from recattn_jax.training.experiment import Experiment
from recattn_jax.training.experiment_file import load_experiment_file, trusted_experiment_file
from recattn_jax.training.runs import check_same_model, file_digest, plain, read_object
from recattn_jax.training.state import abstract_state


@dataclass(frozen=True)
class Run:
    """What `load_run` gives: enough to evaluate, to generate, or to go on in a notebook.

    Args:
      path: the run's folder.
      config: the config that the run was started with.
      experiment: built from `config`.
      params: parameters (their moving average where the run kept one).
      vocabularies: the run's tokenizers and labels, by name.
      step: the step that `params` come from.

    >>> run = load_run("runs/a")  # doctest: +SKIP
    >>> run.step  # doctest: +SKIP
    2000
    """

    path: Path
    config: Any
    experiment: Experiment
    params: Any
    vocabularies: Mapping[str, Vocabulary]
    step: int


def load_run(
    path: str | Path, checkpoint: str | int = "best", config_file: str | Path | None = None
) -> Run:
    """Loads a trained run: its folder is read as data; its experiment file is code, and is run.

    Args:
      path: the run's folder.
      checkpoint: "best" (by the headline of its evaluation), "last", or a step.
      config_file: the experiment file; None for the one that the folder names, where
        `trusted_experiment_file` lets it.

    Returns:
      The run.

    Raises:
      UserError: no run there, or no such checkpoint; or its experiment file must be named; or the
        folder's numbers are none of that file's.
      StorageError: the checkpoint, or another file of the folder, is damaged.

    >>> run = load_run("runs/a")  # doctest: +SKIP
    >>> model, params = run.experiment.model, {"params": run.params}  # doctest: +SKIP
    >>> logits, state = model.apply(params, tokens)  # doctest: +SKIP
    """
    path = Path(path)
    for name in ("config.json", "run.json"):
        if not untrusted.is_there(path / name):
            raise UserError(f"no run in {path}: it has no config.json and run.json")
    if not (path / "checkpoints").is_dir():
        raise UserError(f"the run in {path} has no checkpoint yet")
    record = read_object(path / "run.json")
    if config_file is None:
        recorded = record.get("config_file")
        if not isinstance(recorded, str):
            raise StorageError(f"{path / 'run.json'} is damaged: it names no config_file")
        config_file = trusted_experiment_file(recorded, path)
    words = path / "vocabularies.json"
    now = file_digest(words)
    if record.get("vocabularies", now) != now:
        raise StorageError(
            f"{words} is damaged: it changed since it was written; take another copy's"
        )
    module = load_experiment_file(config_file)
    config = module.get_config()
    _take_numbers(config, read_object(path / "config.json"), path, config_file)
    try:
        experiment = module.build(config)
        check_same_model(path, experiment)
    except RunError:
        raise
    except Exception as error:  # of numbers that do not fit each other, wherever it is noticed
        raise UserError(
            f"{config_file} builds nothing of the numbers in {path / 'config.json'}:"
            f" {type(error).__name__}: {error}"
        ) from error
    checkpoints = Checkpoints(path / "checkpoints", keep=1, say=print, read_only=True)
    try:
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = jax.tree.map(
            lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device),
            abstract_state(experiment).params,
        )
        params, step = checkpoints.restore_params(checkpoint, shapes)
    finally:
        checkpoints.close()
    return Run(path, config, experiment, params, load_vocabularies(words), step)


def _take_numbers(config: Any, stored: dict[str, Any], path: Path, file: str | Path) -> None:
    """Gives a config the numbers of a run, if they are of its kinds."""
    own = plain(config)
    if own.keys() != stored.keys():
        keys = sorted(own.keys() ^ stored.keys())
        raise UserError(f"{file} has changed since {path} was run: keys {keys}")
    for key, value in stored.items():
        if not _alike(own[key], value):
            raise UserError(
                f"{path / 'config.json'}: {key} is {value!r:.60}, but the value in {file} is"
                f" {own[key]!r:.60}; put the right one there"
            )
        config[key] = tuple(value) if isinstance(config[key], tuple) else value


def _alike(default: Any, value: Any) -> bool:
    """Whether a value is of the kind of another, as JSON has kinds."""
    if isinstance(default, list):
        kinds = {type(item) for item in default}
        return isinstance(value, list) and all(not kinds or type(v) in kinds for v in value)
    if isinstance(default, float):
        return type(value) in (int, float) and abs(value) <= sys.float_info.max or value != value
    return default is None or type(value) is type(default)
