"""The folder of a run: what it holds, who may write there, and how to load what was trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from recattn_jax.data import Data, Tokenizer
from recattn_jax.training.experiment import Experiment


@dataclass(frozen=True)
class Run:
    """What `load_run` gives: enough to evaluate, to generate, or to go on in a notebook.

    Args:
      path: the run's folder.
      config: the flat config that the run was started with.
      experiment: built from `config`.
      params: parameters (their moving average where the run kept one).
      tokenizer: the run's tokenizer.
      step: the step that `params` come from.
    """

    path: Path
    config: Any
    experiment: Experiment
    params: Any
    tokenizer: Tokenizer
    step: int


class RunFolder:
    """The folder of one run; `open` checks, `begin` writes.

    Holds `config.json`, `run.json`, `model.txt`, `tokenizer.json`, `metrics.jsonl`, `tensorboard/`,
    `checkpoints/`, and `profile/` when a trace was asked for.
    """

    def __init__(
        self, path: Path, config: Mapping[str, Any], config_file: str, argv: Sequence[str]
    ):
        self.path = path
        self.config = dict(config)
        self.config_file = config_file
        self.argv = list(argv)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        config: Mapping[str, Any],
        config_file: str,
        argv: Sequence[str],
    ) -> "RunFolder":
        """Checks that a run with this config may live at `path`; writes nothing.

        Args:
          path: the run's folder, existing or not.
          config: the flat config, plain values only (`ConfigDict.to_dict()`).
          config_file: path of the experiment file, as the person gave it.
          argv: the command's arguments, for the record.

        Raises:
          UserError: the folder holds a run with another config, or cannot be written.
        """
        raise NotImplementedError

    def begin(self, experiment: Experiment, data: Data) -> None:
        """Creates the folder and writes all that is known before the first step."""
        raise NotImplementedError


def load_experiment_file(path: str | Path) -> ModuleType:
    """Imports an experiment file, which has `get_config()` and `build(config)`.

    Raises:
      UserError: no such file, or it lacks one of the two functions.
    """
    raise NotImplementedError


def load_run(path: str | Path, checkpoint: str | int = "best") -> Run:
    """Loads a trained run: `run = load_run("runs/a")`.

    Args:
      path: the run's folder.
      checkpoint: "best" (lowest headline in an evaluation), "last", or a step.

    Raises:
      UserError: no run there, or no such checkpoint.
      StorageError: the checkpoint is damaged.
    """
    raise NotImplementedError
