"""Checkpoints that know their own bits: Orbax reads them, a digest says whether to believe it."""

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from recattn_jax.errors import StorageError, UserError, summary
from recattn_jax.training.leaks import stop_leaks
from recattn_jax.training.precision import path_name
from recattn_jax.training.state import TrainState

Notes = dict[str, Any]
"""Small plain values, as JSON has them, that are kept beside a state."""

WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def leaf_digest(x: jax.Array) -> jax.Array:
    """Sum over the words of x of mix(word + key(position)), modulo 2^32.

    `mix` is a bijection of 32 bits, so changing any one word, by one bit or by many, changes the
    sum; and addition being exact, the sum does not depend on how x is sharded.

    Args:
      x: any shape and dtype.

    Returns:
      uint32[].
    """
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    words = jax.lax.bitcast_convert_type(x, WORDS[x.dtype.itemsize]).astype(jnp.uint32)
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        position = position * np.uint32(words.shape[axis] % 2**32)
        position = position + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    mixed = words + position * np.uint32(0x9E3779B9)
    mixed = (mixed ^ (mixed >> 16)) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


@jax.jit
def _digests(leaves: list[jax.Array]) -> list[jax.Array]:
    return [leaf_digest(leaf) for leaf in leaves]


def digest(tree: Any) -> dict[str, int]:
    """Digest of every leaf of a tree of arrays, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    values = jax.device_get(_digests([leaf for _, leaf in leaves]))
    return {path_name(path): int(v) for (path, _), v in zip(leaves, values, strict=True)}


def _hush_stray_reads() -> None:
    """Where an array cannot be read, Orbax stops, and closes the loop that the others report to.

    Each read still under way would print a traceback about that, at any later moment, or asyncio
    would for it; what is wrong with the checkpoint is told by us, in a line. So both stay hushed.
    """
    logging.getLogger("asyncio").addFilter(_of_no_read)
    before = sys.unraisablehook
    if getattr(before, "hushes_stray_reads", False):
        return

    def hook(raised: Any) -> None:
        code = getattr(raised.object, "cr_code", None)
        of_orbax = code is not None and "orbax" in Path(code.co_filename).parts
        closed = isinstance(raised.exc_value, RuntimeError)
        if not (of_orbax or (closed and str(raised.exc_value) == "Event loop is closed")):
            before(raised)

    hook.hushes_stray_reads = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _of_no_read(record: logging.LogRecord) -> bool:
    return "async_deserialize" not in record.getMessage()


def checksum(meta: Mapping[str, Any]) -> str:
    """Of what is kept beside a state: all that JSON can say of it, but for the checksum itself."""
    content = {key: value for key, value in meta.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


_BEFORE_CHECKSUMS = {"fingerprint", "best_step", "averaged", "digest"}


class _LatestAndBest:
    """Keeps the latest few steps and the best one."""

    def __init__(self, keep: int):
        self.keep = keep
        self.best_step = 0

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        first = len(checkpoints) - self.keep
        return [i >= first or c.step == self.best_step for i, c in enumerate(checkpoints)]


class Checkpoints:
    """The checkpoints of one run.

    Args:
      path: their folder; made if missing, unless `read_only`.
      keep: how many of the latest to keep, besides the best.
      say: where a line goes when a damaged checkpoint is passed over.
      read_only: for loading a run that may still be training.
    """

    def __init__(self, path: Path, keep: int, say: Callable[[str], None], read_only: bool = False):
        self.path = path
        self._say = say
        self._read_only = read_only
        self._policy = _LatestAndBest(keep)
        stop_leaks()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            async_options=ocp.AsyncOptions(
                # Or, where a folder cannot be made, threads wait for it for many minutes.
                create_directories_asynchronously=False,
                # By the clock on the wall, which may be set; alone there is nobody to wait for.
                timeout_secs=10**9 if jax.process_count() == 1 else 1200,
            ),
        )
        try:
            self._manager = ocp.CheckpointManager(path.absolute(), options=options)
        except OSError as error:
            raise StorageError(f"cannot open checkpoints in {path}: {summary(error)}") from error

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, good or not, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, fingerprint: str, notes: Mapping[str, Any]) -> None:
        """Starts saving; the state may be donated at once, the next save waits for this one.

        Args:
          state: after some step.
          fingerprint: of the training pipeline.
          notes: plain values to give back on `restore`.

        Raises:
          StorageError: this save cannot start, or an earlier one failed.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._policy.best_step = int(state.stopping.best_step)
        meta: dict[str, Any] = {
            "fingerprint": fingerprint,
            "best_step": self._policy.best_step,
            "averaged": state.ema is not None,
            "digest": digest(state),
            "notes": dict(notes),
        }
        meta["checksum"] = checksum(meta)
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._guard(lambda: self._manager.save(step, args=items, force=True))

    def wait(self) -> None:
        """Waits until the last save is on disk.

        Raises:
          StorageError: it failed.
        """
        self._guard(self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits and lets go of the folder."""
        self._guard(self._manager.close)

    def restore(
        self, abstract: TrainState, fingerprint: str, before: int | None = None
    ) -> tuple[TrainState, Notes] | tuple[None, Notes]:
        """The newest good state; damaged ones are named, and moved aside once a good one is found.

        What is opened `read_only` stays where it is.

        Args:
          abstract: shapes, dtypes and shardings, which may be those of another mesh.
          fingerprint: of the training pipeline.
          before: only states of earlier steps; None for all.

        Returns:
          The state and the notes beside it; (None, {}) where there is no checkpoint at all.

        Raises:
          StorageError: there are checkpoints, but none is good.
          UserError: the newest good one was made with another data pipeline.
        """
        _hush_stray_reads()
        damaged: list[int] = []
        reason = ""
        steps = [step for step in self.steps() if before is None or step < before]
        for step in reversed(steps):
            state, meta, reason = self._read(step, abstract)
            if state is None:
                self._say(f"checkpoint of step {step} is damaged: {reason}")
                damaged.append(step)
                continue
            if meta["fingerprint"] != fingerprint:
                raise UserError(
                    f"checkpoint of step {step} in {self.path} belongs to another data pipeline:"
                    f" {meta['fingerprint']}, not {fingerprint}; use another workdir"
                )
            if not self._read_only:
                self._move_aside(damaged)
            self._policy.best_step = int(state.stopping.best_step)
            return state, meta["notes"]
        if damaged:
            raise StorageError(
                f"no good checkpoint among steps {damaged} in {self.path}; last reason: {reason}."
                " Not starting over in this folder: use another workdir, or delete the folder"
            )
        return None, {}

    def restore_params(self, which: str | int, abstract: Any) -> tuple[Any, int]:
        """Parameters alone, or their moving average where the run kept one.

        Args:
          which: "best", "last" or a step.
          abstract: shapes and dtypes of the parameters, with shardings if they are to be sharded.

        Returns:
          (params, step).

        Raises:
          UserError: no such checkpoint.
          StorageError: it is damaged.
        """
        step = self._choose(which)
        meta, reason = self._read_meta(step)
        if meta is None:
            raise StorageError(f"checkpoint of step {step} in {self.path} is damaged: {reason}")
        name = "ema" if meta["averaged"] else "params"
        target = {name: _as_float32(abstract) if meta["averaged"] else abstract}
        args = ocp.args.PyTreeRestore(
            item=target,
            restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            partial_restore=True,
        )
        _hush_stray_reads()
        # A manager reads an item in one way only, and this one may have read whole states.
        manager = ocp.CheckpointManager(
            self.path.absolute(), options=ocp.CheckpointManagerOptions(create=False)
        )
        try:
            restored = manager.restore(step, args=ocp.args.Composite(state=args))["state"]
        except Exception as error:  # damage shows as any exception at all, even a bare one
            reason = summary(error)
            raise StorageError(
                f"checkpoint of step {step} in {self.path} cannot be read: {reason};"
                " choose another with --checkpoint"
            ) from error
        finally:
            manager.close()
        differs = _difference(meta["digest"], digest(restored))
        if differs:
            raise StorageError(
                f"checkpoint of step {step} in {self.path} is damaged: bits of {differs} changed;"
                " choose another with --checkpoint"
            )
        return restored[name], step

    def _choose(self, which: str | int) -> int:
        steps = self.steps()
        if not steps:
            raise UserError(f"no checkpoint in {self.path}")
        if which == "last":
            return steps[-1]
        if which == "best":
            metas = (self._read_meta(step)[0] for step in reversed(steps))
            best = next((meta["best_step"] for meta in metas if meta is not None), 0)
            if best not in steps:
                raise UserError(
                    f"no evaluated checkpoint in {self.path} yet; use --checkpoint=last"
                )
            return int(best)
        if not isinstance(which, int) or which not in steps:
            raise UserError(f"no checkpoint {which!r} in {self.path}; there are {steps}")
        return which

    def _read_meta(self, step: int) -> tuple[Any, str]:
        try:
            items = ocp.args.Composite(meta=ocp.args.JsonRestore())
            meta = dict(self._manager.restore(step, args=items)["meta"])
        except Exception as error:  # damage shows as any exception at all, even a bare one
            return None, f"unreadable ({summary(error)})"
        if meta.keys() == _BEFORE_CHECKSUMS:
            return {**meta, "notes": {}}, ""
        if meta.get("checksum") != checksum(meta):
            return None, "what is kept beside its state changed since it was saved"
        return meta, ""

    def _read(self, step: int, abstract: TrainState) -> tuple[TrainState | None, Any, str]:
        meta, reason = self._read_meta(step)
        if meta is None:
            return None, None, reason
        try:
            items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            state = self._manager.restore(step, args=items)["state"]
        except Exception as error:  # damage shows as any exception at all, even a bare one
            return None, None, f"unreadable ({summary(error)})"
        now = digest(state)
        differs = _difference(meta["digest"], now) or _difference(now, meta["digest"])
        if differs:
            return None, None, f"the bits of {differs} changed since they were saved"
        return state, meta, ""

    def _move_aside(self, steps: list[int]) -> None:
        """Frees the step numbers, since a step that exists is never saved again."""
        if not steps:
            return
        if jax.process_index() == 0:
            for step in steps:
                aside = self.path.parent / "damaged" / str(step)
                try:
                    shutil.rmtree(aside, ignore_errors=True)
                    aside.parent.mkdir(exist_ok=True)
                    shutil.move(self.path / str(step), aside)
                except OSError as error:
                    raise StorageError(f"cannot move {aside.name} to {aside}: {error}") from error
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("moved damaged checkpoints aside")
        self._manager.reload()

    def _guard(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except Exception as error:  # a full disk shows as OSError, ValueError or RuntimeError
            good = self._clear_up()
            raise StorageError(
                f"cannot save in {self.path}: {summary(error)}; last good checkpoint:"
                f" {f'step {good[-1]}' if good else 'none'}; once it can be written to, the same"
                " command goes on"
            ) from error

    def _clear_up(self) -> list[int]:
        """Removes what is half-written, if it can be; gives the steps that are whole."""
        try:
            names = [path.name for path in self.path.iterdir()]
        except OSError:
            return []
        if jax.process_index() == 0:
            for name in names:
                if "orbax-checkpoint-tmp" in name:
                    shutil.rmtree(self.path / name, ignore_errors=True)
        return sorted(int(name) for name in names if name.isdigit())


def _difference(saved: dict[str, int], now: dict[str, int]) -> str:
    """First path of `now` whose digest is not the saved one."""
    return next((name for name in sorted(now) if saved.get(name) != now[name]), "")


def _as_float32(abstract: Any) -> Any:
    return jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, jnp.float32, sharding=s.sharding), abstract
    )
