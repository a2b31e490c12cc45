"""The folder of a run: what it holds, who may write there, and how to load what was trained."""

import contextlib
import datetime
import hashlib
import itertools
import json
import os
import re
import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from recattn_jax import untrusted
from recattn_jax.data import Data, save_vocabularies
from recattn_jax.errors import InUseError, RunError, SourceError, StorageError, UserError
from recattn_jax.files import write_atomically
from recattn_jax.locks import FileLock
from recattn_jax.training.experiment import Experiment
from recattn_jax.training.machine import commit, hardware, versions
from recattn_jax.training.precision import path_name
from recattn_jax.training.state import abstract_state

ATTEMPTS = 100
"""How many of the latest attempts `run.json` tells of; of earlier ones it keeps sums."""
_SECONDS = ("wall_seconds", "training_seconds")
_FRAMES = 30
PLACEMENT = ("mesh",)
"""Keys of a config that do not count when a run goes on: what it computes is the same."""


class RunFolder:
    """The folder of one run; `open` checks, `begin` writes.

    Holds `config.json`, `run.json`, `model.txt`, `vocabularies.json`, `metrics.jsonl`,
    `tensorboard/`, `checkpoints/`, `run.lock`, and `profile/` when a trace was asked for.
    `run.json` records the command line as it was typed, and of the environment only the name of the
    host.

    Args:
      path: where it is.
      config: the numbers of the experiment, by name.
      config_file: the experiment file.
      argv: the command line, as it was typed.

    >>> run = RunFolder(Path("runs/a"), {"steps": 9}, "tiny.py", ["--config=tiny.py"])
    >>> run.checkpoints.as_posix()
    'runs/a/checkpoints'
    """

    def __init__(
        self, path: Path, config: Mapping[str, Any], config_file: str, argv: Sequence[str]
    ):
        self.path = path
        self.config = plain(config)
        self.config_file = config_file
        self.argv = list(argv)
        self.headline = ""
        self.maximise = False
        self.training_seconds = 0.0

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    @property
    def profile(self) -> Path:
        """Where traces are."""
        return self.path / "profile"

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
        run = cls(Path(path), config, config_file, argv)
        _check_writable(run.path)
        stored = run.path / "config.json"
        if stored.exists():
            _check_same(run.path, read_object(stored), run.config)
        elif run.checkpoints.exists():
            raise UserError(f"{run.path} holds checkpoints but no config.json; use another workdir")
        return run

    @contextlib.contextmanager
    def begin(self, experiment: Experiment, data: Data) -> Iterator[None]:
        """Creates the folder, keeps others from writing there while the body runs, and begins.

        To begin is to write all that is known before the first step.

        Raises:
          UserError: the folder holds a run of another model, or cannot be created.
          InUseError: another process trains in it.
          StorageError: a file cannot be written, or locked.
        """
        check_same_model(self.path, experiment)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot create the workdir {self.path}: {error.strerror}") from error
        self.headline = experiment.task.headline
        self.maximise = experiment.task.maximise
        with contextlib.ExitStack() as stack:
            failure = None
            if jax.process_index() == 0:
                try:
                    stack.enter_context(_owned(self.path))
                    self._describe(experiment, data)
                except RunError as error:
                    failure = error
            _agree(failure)
            yield

    def _describe(self, experiment: Experiment, data: Data) -> None:
        # Another run may have begun and ended here since the folder was looked at.
        check_same_model(self.path, experiment)
        if (self.path / "config.json").exists():
            _check_same(self.path, read_object(self.path / "config.json"), self.config)
        write_atomically(self.path / "model.txt", model_text(experiment))
        save_vocabularies(data.vocabularies, self.path / "vocabularies.json")
        # Last, since it is what makes a folder a run.
        write_atomically(self.path / "config.json", json.dumps(self.config, indent=2) + "\n")

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Keeps `run.json` while the body runs: one entry an attempt, with how it ended.

        Of a crash it keeps the traceback too, since nobody may have been there to see it.
        """
        if jax.process_index() != 0:
            yield
            return
        file = self.path / "run.json"
        attempts, forgotten = _before(file)
        attempt: dict[str, Any] = {
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "devices": [device.device_kind for device in jax.devices()],
            "hardware": hardware(),
            "commit": commit(),
            "wall_seconds": None,
            "training_seconds": None,
            "ended": "killed",  # until we know better
        }
        fixed = {
            "argv": self.argv,
            "config_file": self.config_file,
            "headline": self.headline,
            "maximise": self.maximise,
            "commit": attempt["commit"],
            "versions": versions(),
            "vocabularies": file_digest(self.path / "vocabularies.json"),
        }
        start = time.monotonic()

        def write() -> None:
            told = attempts + [attempt]
            record = {
                **fixed,
                "ended": attempt["ended"],
                **{key: _total([forgotten, *told], key) for key in _SECONDS},
                "attempts": told,
                "forgotten": forgotten,
            }
            write_atomically(file, json.dumps(record, indent=2) + "\n")

        write()
        try:
            yield
            attempt["ended"] = "done"
        except RunError as error:
            attempt["ended"] = f"{type(error).__name__}: {error}"
            if isinstance(error, SourceError):  # which may be a bug of whatever reads data
                attempt["traceback"] = _traceback(error)
            raise
        except BaseException as error:
            attempt["ended"] = f"crashed: {type(error).__name__}: {error}"
            attempt["traceback"] = _traceback(error)
            raise
        finally:
            attempt["wall_seconds"] = round(time.monotonic() - start, 3)
            attempt["training_seconds"] = round(self.training_seconds, 3)
            try:
                write()
            except StorageError:
                if attempt["ended"] == "done":
                    raise
                # Else the error that is under way says more than that it cannot be recorded.


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a run; StorageError where there is none."""
    try:
        return untrusted.read_object(file)
    except untrusted.Unreadable as error:
        raise StorageError(f"{file} is damaged ({error}); take that of another copy") from error


def file_digest(file: Path) -> str | None:
    """Of a file's content; None where there is none to read."""
    try:
        return hashlib.sha256(untrusted.read_bytes(file, untrusted.JSON_BYTES)).hexdigest()
    except untrusted.Unreadable:
        return None


def model_text(experiment: Experiment) -> str:
    """The printed module and its parameters: the same for the same structure, run after run."""
    module = re.sub(r" at 0x[0-9a-f]+", "", str(experiment.model))
    return f"{module}\n\n{parameter_table(abstract_state(experiment).params)}"


def parameter_table(params: Any) -> str:
    """One line a parameter: path, shape, dtype, number of elements; and the total."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    rows = [
        (path_name(path), str(leaf.shape), str(leaf.dtype), f"{leaf.size:,}")
        for path, leaf in leaves
    ]
    total = sum(int(np.prod(leaf.shape)) for _, leaf in leaves)
    rows.append(("total", "", "", f"{total:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "".join(
        f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {dtype:<{widths[2]}}  {size:>{widths[3]}}\n"
        for name, shape, dtype, size in rows
    )


def plain(config: Any) -> dict[str, Any]:
    """The config as JSON gives it back: tuples become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(config)))
    return plain


def _check_writable(path: Path) -> None:
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise UserError(f"cannot use {path} as workdir: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"cannot use {path} as workdir: no permission to write in {there}")


def _agree(failure: RunError | None) -> None:
    """Sees to it that all processes of a run end where the first cannot begin.

    Raises:
      RunError: `failure`, and on the others one that points to it.
    """
    if jax.process_count() > 1:
        began = multihost_utils.broadcast_one_to_all(np.int32(failure is None))
        if not began and failure is None:
            raise InUseError("the first process of this run cannot begin, and says why")
    if failure is not None:
        raise failure


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-_FRAMES))


@contextlib.contextmanager
def _owned(path: Path) -> Iterator[None]:
    """Holds the lock of a run's folder, in which its owner is named."""
    file = path / "run.lock"
    lock = FileLock(file)
    if not lock.acquire(wait=False):
        owner = file.read_text(errors="replace").strip()[:200] or "another process"
        raise InUseError(
            f"{path} is in use by {owner}; wait until that ends, stop it with kill, upon which it"
            " saves, or use another workdir"
        )
    try:
        since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        host, pid = socket.gethostname(), os.getpid()
        try:
            file.write_text(f"process {pid} on {host}, since {since}\n")
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error}") from error
        yield
    finally:
        lock.release()


def check_same_model(path: Path, experiment: Experiment) -> None:
    """The config holds the numbers of a run, the experiment file its structure: that counts too."""
    file = path / "model.txt"
    if not file.exists():
        return
    try:
        text = untrusted.read_bytes(file, untrusted.JSON_BYTES).decode(errors="replace")
    except untrusted.Unreadable as error:
        raise StorageError(f"{file} is damaged ({error}); take that of another copy") from error
    stored, now = text.splitlines(), model_text(experiment).splitlines()
    for line, (old, new) in enumerate(itertools.zip_longest(stored, now, fillvalue=""), start=1):
        if old != new:
            raise UserError(
                f"{path} holds a run of another model: line {line} of model.txt is"
                f" {old.strip()!r:.200}, the experiment file now builds {new.strip()!r:.200};"
                " use another workdir"
            )


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what only says where a run runs: it may go on elsewhere.

    >>> identity({"width": 8, "mesh": "data:2"})
    {'width': 8}
    """
    return {key: value for key, value in config.items() if key not in PLACEMENT}


def _check_same(path: Path, stored: dict[str, Any], config: dict[str, Any]) -> None:
    stored, config = identity(stored), identity(config)
    differing = [
        f"{key}: {json.dumps(stored[key]) if key in stored else 'absent'} there,"
        f" {json.dumps(config[key]) if key in config else 'absent'} now"
        for key in sorted(stored.keys() | config.keys())
        if key not in stored or key not in config or stored[key] != config[key]
    ]
    if differing:
        raise UserError(
            f"{path} holds a run with another config ({'; '.join(differing)});"
            " use another workdir, or the same config to go on"
        )


def _before(file: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The former attempts of a run: the latest ones, and sums of those that are not told of."""
    record = read_object(file) if file.exists() else {"attempts": []}
    attempts = record.get("attempts")
    forgotten = record.get("forgotten", dict.fromkeys(("attempts", *_SECONDS), 0))
    if not isinstance(attempts, list) or not all(
        isinstance(each, dict)
        and all(isinstance(each.get(key, ""), float | int | None) for key in _SECONDS)
        for each in [*attempts, forgotten]
    ):
        raise StorageError(f"{file} is damaged: it has no list of attempts; take another copy's")
    old, latest = attempts[: 1 - ATTEMPTS], attempts[1 - ATTEMPTS :]
    sums = {key: _total([forgotten, *old], key) for key in _SECONDS}
    return latest, {"attempts": forgotten.get("attempts", 0) + len(old), **sums}


def _total(attempts: list[dict[str, Any]], key: str) -> float:
    return round(sum(attempt[key] or 0.0 for attempt in attempts), 3)
