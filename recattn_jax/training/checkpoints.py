"""Checkpoints that know their own bits: Orbax reads them, a digest says whether to believe it."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from recattn_jax.errors import StorageError, UserError
from recattn_jax.training.leaks import stop_leaks
from recattn_jax.training.precision import path_name
from recattn_jax.training.state import TrainState

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
        self._policy = _LatestAndBest(keep)
        stop_leaks()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
        )
        try:
            self._manager = ocp.CheckpointManager(path.absolute(), options=options)
        except OSError as error:
            raise StorageError(f"cannot open checkpoints in {path}: {_line(error)}") from error

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, good or not, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, fingerprint: str) -> None:
        """Starts saving; the state may be donated at once, the next save waits for this one.

        Raises:
          StorageError: this save cannot start, or an earlier one failed.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._policy.best_step = int(state.stopping.best_step)
        meta = {
            "fingerprint": fingerprint,
            "best_step": self._policy.best_step,
            "averaged": state.ema is not None,
            "digest": digest(state),
        }
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._guard(lambda: self._manager.save(step, args=items, force=True), f"save step {step}")

    def wait(self) -> None:
        """Waits until the last save is on disk.

        Raises:
          StorageError: it failed.
        """
        self._guard(self._manager.wait_until_finished, "save the last step")

    def close(self) -> None:
        """Waits and lets go of the folder."""
        self._guard(self._manager.close, "save the last step")

    def restore(self, abstract: TrainState, fingerprint: str) -> TrainState | None:
        """The newest good state; damaged ones are named, and moved aside once a good one is found.

        Args:
          abstract: shapes, dtypes and shardings, which may be those of another mesh.
          fingerprint: of the training pipeline.

        Returns:
          The state, or None where there is no checkpoint at all.

        Raises:
          StorageError: there are checkpoints, but none is good.
          UserError: the newest good one was made with another data pipeline.
        """
        damaged: list[int] = []
        reason = ""
        for step in reversed(self.steps()):
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
            self._move_aside(damaged)
            self._policy.best_step = int(state.stopping.best_step)
            return state
        if damaged:
            raise StorageError(
                f"no good checkpoint among steps {damaged} in {self.path}; last reason: {reason}."
                " Not starting over in this folder: use another workdir, or delete the folder"
            )
        return None

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
        # A manager reads an item in one way only, and this one may have read whole states.
        manager = ocp.CheckpointManager(
            self.path.absolute(), options=ocp.CheckpointManagerOptions(create=False)
        )
        try:
            restored = manager.restore(step, args=ocp.args.Composite(state=args))["state"]
        except Exception as error:  # damage shows as any exception at all, even a bare one
            reason = _line(error)
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
            return self._manager.restore(step, args=items)["meta"], ""
        except Exception as error:  # damage shows as any exception at all, even a bare one
            return None, f"unreadable ({_line(error)})"

    def _read(self, step: int, abstract: TrainState) -> tuple[TrainState | None, Any, str]:
        meta, reason = self._read_meta(step)
        if meta is None:
            return None, None, reason
        try:
            items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            state = self._manager.restore(step, args=items)["state"]
        except Exception as error:  # damage shows as any exception at all, even a bare one
            return None, None, f"unreadable ({_line(error)})"
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
                shutil.rmtree(aside, ignore_errors=True)
                aside.parent.mkdir(exist_ok=True)
                shutil.move(self.path / str(step), aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("moved damaged checkpoints aside")
        self._manager.reload()

    def _guard(self, write: Callable[[], Any], what: str) -> None:
        try:
            write()
        except Exception as error:  # a full disk shows as OSError, ValueError or RuntimeError
            raise StorageError(f"cannot {what} in {self.path}: {_line(error)}") from error


def _difference(saved: dict[str, int], now: dict[str, int]) -> str:
    """First path of `now` whose digest is not the saved one."""
    return next((name for name in sorted(now) if saved.get(name) != now[name]), "")


def _line(error: Exception) -> str:
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:200]


def _as_float32(abstract: Any) -> Any:
    return jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, jnp.float32, sharding=s.sharding), abstract
    )
