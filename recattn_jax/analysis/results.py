"""Committed results: one JSON line a finished run, read back as strictly as it is written.

A line says nothing of the machine's folders: a path of the config is its key in capitals.
"""

import dataclasses
import json
import math
import os
import shlex
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recattn_jax.analysis.summaries import RunSummary
from recattn_jax.errors import StorageError, UserError
from recattn_jax.files import write_atomically

# Two lines that agree in these tell of one run.
_IDENTITY = ("config_file", "config", "commit", "steps", "validation")
# What of run.json makes a result.
_RECORD = ("argv", "attempts", "commit", "training_seconds", "versions")
CACHE = "data_dir"
"""The key of a config that says where prepared data are kept, which no number depends on."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What one finished run reached, and what repeats it.

    Args:
      experiment: the stem of the experiment file.
      config_file: the experiment file, relative to the checkout.
      config: the whole config, with placeholders for paths.
      changed: what differs from the file's own values, paths and seed left out; `--init_from` is
        there where the run started from weights of another.
      seed: the run's.
      data: the data's name, sizes and digest, as the log had them.
      split: what the metrics were measured on.
      metrics: every number of the best checkpoint on that split; None for one that is not finite.
      validation: the headline of that checkpoint in the training log.
      headline: the metric that runs are compared by.
      maximise: whether more of it is better.
      step: step of the best checkpoint.
      steps: step of the last evaluation.
      training_minutes: first to last step, evaluations included, compilation not.
      parameters: how many numbers the model learns.
      commit: of the checkout that trained, short; with a + where files differed from it.
      hardware: what it was trained on.
      versions: of jax and Python.
      command: what repeats the run.

    >>> result = Result(
    ...     experiment="adding",
    ...     config_file="experiments/adding.py",
    ...     config={"mixer": "lstm", "steps": 9},
    ...     changed={"steps": 9},
    ...     seed=0,
    ...     data="adding",
    ...     split="test",
    ...     metrics={"loss": 0.1},
    ...     validation=0.1,
    ...     headline="loss",
    ...     maximise=False,
    ...     step=9,
    ...     steps=9,
    ...     training_minutes=0.1,
    ...     parameters=99,
    ...     commit="093054d",
    ...     hardware="2 cores",
    ...     versions={"jax": "0.10.2", "python": "3.11.7"},
    ...     command="python -m launch.train --config=experiments/adding.py --config.steps=9",
    ... )
    >>> to_line(result)[:25]
    '{"experiment": "adding", '
    """

    experiment: str
    config_file: str
    config: Mapping[str, Any]
    changed: Mapping[str, Any]
    seed: int
    data: str
    split: str
    metrics: Mapping[str, float | None]
    validation: float
    headline: str
    maximise: bool
    step: int
    steps: int
    training_minutes: float
    parameters: int
    commit: str
    hardware: str
    versions: Mapping[str, str]
    command: str


def tell(run: RunSummary, config_file: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Reads what a run's folder alone tells of its result.

    Args:
      run: from `find_runs`; `check_finished` has passed it.
      config_file: its experiment file, relative to the checkout.
      defaults: the experiment file's own config.

    Returns:
      Those arguments of `Result` that `complete` does not take by name.

    >>> told = tell(run, "experiments/adding.py", defaults)  # doctest: +SKIP
    """
    assert run.best is not None
    record, plain = run.record, _plain(defaults)
    trained = [a for a in record["attempts"] if a["training_seconds"]] or record["attempts"]
    changed = {
        key: value
        for key, value in sorted(run.config.items())
        if key not in (CACHE, "seed") and not is_path(value) and value != plain.get(key)
    }
    if run.from_weights:
        changed["--init_from"] = "RUN"
    return dict(
        experiment=run.experiment,
        config_file=config_file,
        config=portable(run.config),
        changed=changed,
        validation=run.best[0],
        headline=run.headline,
        maximise=run.maximise,
        steps=max(record["step"] for record in run.records),
        training_minutes=round(record["training_seconds"] / 60, 3),
        commit=_each(short(a.get("commit", record["commit"])) for a in trained),
        hardware=_each(a.get("hardware") or ", ".join(a["devices"]) for a in trained),
        versions={name: record["versions"][name] for name in ("jax", "python")},
        command=command(config_file, run.config, plain) + " --init_from=RUN" * run.from_weights,
    )


def check_finished(run: RunSummary) -> None:
    """Sees to it that a run has a result.

    Args:
      run: from `find_runs`.

    Raises:
      UserError: it is damaged, did not finish, or was never evaluated.

    >>> check_finished(run)  # doctest: +SKIP
    """
    if run.damage:
        raise UserError(f"it is damaged: {'; '.join(run.damage)}")
    if run.ended != "done":
        raise UserError(f"it has not finished: {run.ended}")
    lacking = [name for name in _RECORD if name not in run.record]
    if lacking:
        raise UserError(f"it is damaged: run.json lacks {', '.join(lacking)}")
    if run.best is None:
        raise UserError(f"it has no evaluation whose {run.headline} is finite")


def complete(
    told: Mapping[str, Any],
    *,
    seed: int,
    data: str,
    split: str,
    metrics: Mapping[str, float],
    step: int,
    parameters: int,
) -> Result:
    """Adds to what `tell` gave what only the trained model tells.

    Args:
      told: from `tell`.
      seed: as of `Result`, like all that follow.
      data: the data's name, sizes and digest.
      split: what the metrics were measured on.
      metrics: every number on that split.
      step: step of the checkpoint.
      parameters: how many numbers the model learns.

    Returns:
      The result.

    Raises:
      UserError: the headline is not finite.

    >>> result = complete(  # doctest: +SKIP
    ...     told, seed=0, data="adding", split="test", metrics={"loss": 0.1}, step=9, parameters=99
    ... )
    """
    headline = told["headline"]
    if not math.isfinite(metrics[headline]):
        raise UserError(f"its {headline} on {split} is {metrics[headline]}")
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    return Result(
        **told,
        seed=seed,
        data=data,
        split=split,
        metrics=finite,
        step=step,
        parameters=parameters,
    )


def recorded(told: Mapping[str, Any], results: Iterable[Result]) -> bool:
    """Whether a run is among the results: the same config, commit and values.

    Args:
      told: from `tell`.
      results: those that are recorded.

    Returns:
      True where it is.

    >>> recorded(told, [])  # doctest: +SKIP
    False
    """
    wanted = [told[name] for name in _IDENTITY]
    return any([getattr(result, name) for name in _IDENTITY] == wanted for result in results)


def to_line(result: Result) -> str:
    """A result as one line of JSON, with its newline.

    Args:
      result: a finished run.

    Returns:
      The line.

    >>> to_line(result)  # doctest: +SKIP
    """
    return json.dumps(dataclasses.asdict(result), allow_nan=False) + "\n"


def append_result(path: Path, result: Result) -> None:
    """Adds a line to a file, so that a kill leaves the old file or the new one.

    Args:
      path: the file; a new one where there is none.
      result: a finished run.

    Raises:
      StorageError: it cannot be written.

    >>> append_result(Path("results.jsonl"), result)  # doctest: +SKIP
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    torn = "\n" * (text[-1:] not in ("", "\n"))
    write_atomically(path, text + torn + to_line(result))


def read_results(path: Path) -> list[Result]:
    """Reads every line that `to_line` wrote; no file is no lines.

    Args:
      path: the file.

    Returns:
      The results, in the order of their lines.

    Raises:
      StorageError: a line is damaged; it says which.

    >>> read_results(Path("results.jsonl"))
    []
    """
    if not path.exists():
        return []
    results = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            results.append(_from_line(line))
        except ValueError as error:
            raise StorageError(
                f"{path} line {number} is damaged ({error}); repair it or delete it"
            ) from error
    return results


def _from_line(line: bytes) -> Result:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    kinds = typing.get_type_hints(Result)
    if values.keys() != kinds.keys():
        raise ValueError(f"its keys differ from a result's: {sorted(values.keys() ^ kinds.keys())}")
    for name, hint in kinds.items():
        kind = typing.get_origin(hint) or hint
        value = values[name]
        right = isinstance(value, (int, float) if kind is float else kind)
        if not right or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name} is {value!r}, expected {kind.__name__.lower()}")
    if values["metrics"].get(values["headline"]) is None:
        raise ValueError(f"metrics lack the headline {values['headline']}")
    numbers = [*values["metrics"].values()]
    if not all(number is None or isinstance(number, (int, float)) for number in numbers):
        raise ValueError("a metric is no number")
    return Result(**values)


def is_path(value: Any) -> bool:
    """Whether a value of a config names a place on this machine.

    A bare word does not, even where a folder happens to have that name; `text.txt` does, if it is
    there.

    Args:
      value: of a config.

    Returns:
      True for a path.

    >>> [is_path(value) for value in ("~/.cache", "lstm", "glue/sst2", ".5,2", 3)]
    [True, False, False, False, False]
    """
    if not isinstance(value, str) or not value:
        return False
    path = Path(value).expanduser()
    if path.is_absolute() or value in (".", "..") or value.startswith(("./", "../", "~")):
        return True
    return (os.sep in value or bool(path.suffix)) and path.exists()


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the machine: no cache, and for every path its key in capitals.

    Args:
      config: plain values.

    Returns:
      The others, by key.

    >>> portable({"data_dir": "~/.cache", "folder": "/some/where", "width": 4})
    {'folder': 'FOLDER', 'width': 4}
    """
    return {
        key: key.upper() if is_path(value) else value
        for key, value in sorted(config.items())
        if key != CACHE
    }


def command(config_file: str, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """What a person types to train with this config.

    Args:
      config_file: the experiment file, relative to the checkout.
      config: plain values.
      defaults: the file's own.

    Returns:
      A line for a shell.

    >>> command("experiments/some.py", {"folder": "/x", "heads": 4}, {"folder": "", "heads": 2})
    'python -m launch.train --config=experiments/some.py --config.folder=FOLDER --config.heads=4'
    """
    words = ["python", "-m", "launch.train", f"--config={config_file}"]
    for key, value in portable(config).items():
        if config[key] != defaults.get(key):
            words.append(f"--config.{key}={as_flag(value)}")
    return shlex.join(words)


def as_flag(value: Any) -> str:
    """A config's value as `--config.key=` takes it.

    Args:
      value: plain.

    Returns:
      One word, before a shell quotes it.

    >>> [as_flag(value) for value in (True, 0.1, [1, 2], "lstm")]
    ['true', '0.1', '(1,2)', 'lstm']
    """
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else _literal(value)


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, Sequence):
        return repr(value)
    items = ",".join(map(_literal, value))
    return f"({items},)" if len(value) == 1 else f"({items})"


def short(commit: str | None) -> str:
    """Seven digits of a commit, and its + where it has one.

    Args:
      commit: all its digits; None where it is not known.

    Returns:
      Seven of them, or "unknown".

    >>> short("093054d5c9e8a1f0aa35+")
    '093054d+'
    """
    if not commit:
        return "unknown"
    return commit[:7] + "+" * commit.endswith("+")


def _each(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(config)))
    return plain
