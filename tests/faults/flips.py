"""One flipped bit anywhere in a checkpoint: harmless or found, never wrong in silence.

`python -m tests.faults.flips RUN SEED FIRST LAST` tells of each story in a line of JSON.
"""

import contextlib
import faulthandler
import io
import json
import random
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import absl.logging
import jax

from recattn_jax.errors import StorageError
from recattn_jax.training.checkpoints import Checkpoints, digest
from recattn_jax.training.loop import check
from recattn_jax.training.sharding import make_mesh
from recattn_jax.training.state import abstract_state, state_shardings
from tests.faults import experiment as experiment_file

PATIENCE = 120


class Reader:
    """Restores checkpoints of the experiment of the faults."""

    def __init__(self) -> None:
        experiment = experiment_file.build(experiment_file.get_config())
        data = experiment.data()
        mesh = make_mesh(experiment.layout.mesh)
        check(experiment, data)
        shapes = abstract_state(experiment)
        self.abstract = jax.tree.map(
            lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p),
            shapes,
            state_shardings(experiment, shapes, mesh),
        )
        self.fingerprint = data.train.fingerprint

    def whole(self, folder: Path) -> tuple[Any, list[str]]:
        """All that is restored for training, and the lines that were said."""
        said: list[str] = []
        checkpoints = Checkpoints(folder, keep=3, say=said.append)
        with contextlib.closing(checkpoints):
            state, notes = checkpoints.restore(self.abstract, self.fingerprint)
        return (None if state is None else (int(state.step), digest(state), notes)), said

    def params(self, folder: Path, which: str | int) -> Any:
        """Parameters alone, as those who read a run get them."""
        checkpoints = Checkpoints(folder, keep=3, say=print, read_only=True)
        with contextlib.closing(checkpoints):
            params, step = checkpoints.restore_params(which, self.abstract.params)
        return step, digest(params)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damage(chance: random.Random, checkpoint: Path) -> tuple[str, str]:
    """Flips a bit, or, one time in eight, empties, halves or removes a file; says where and what.

    Every file is as likely as any other, however small it is.
    """
    file = chance.choice([path for path in files(checkpoint) if path.stat().st_size])
    content = bytearray(file.read_bytes())
    place, bit = chance.randrange(len(content)), chance.randrange(8)
    kind = chance.choice(["flip"] * 21 + ["empty", "halve", "remove"])
    if kind == "flip":
        content[place] ^= 1 << bit
        kind = f"flip bit {bit} of byte {place}"
    elif kind == "empty":
        content.clear()
    elif kind == "halve":
        del content[len(content) // 2 :]
    if kind == "remove":
        file.unlink()
    else:
        file.write_bytes(content)
    name = str(file.relative_to(checkpoint))
    return name, kind


def judge(reader: Reader, folder: Path, good: dict[int, Any]) -> str:
    """`harmless`, `found`, or what is wrong, after the newest checkpoint was damaged."""
    last, before = sorted(good)[-1], sorted(good)[-2]
    noise = io.StringIO()
    with contextlib.redirect_stderr(noise):
        try:
            params = "harmless" if reader.params(folder, last) == good[last][1] else "WRONG: params"
        except StorageError:
            params = "found"
        state, said = reader.whole(folder)
    if params not in ("harmless", "found"):
        return params
    if "Traceback" in noise.getvalue():
        return f"WRONG: a traceback: {noise.getvalue()[-2000:]}"
    if state == good[last][0] and not said:
        return "harmless"
    if state == good[before][0] and len(said) == 1 and f"step {last} is damaged" in said[0]:
        return "found"
    return f"WRONG: restored {state and state[0]}, said {said}, parameters {params}"


def story(
    reader: Reader, run: Path, seed: int, number: int, good: dict[int, Any]
) -> dict[str, Any]:
    chance = random.Random(f"flips {seed} {number}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "checkpoints"
        shutil.copytree(run / "checkpoints", folder)
        where, what = damage(chance, folder / str(max(good)))
        try:
            result = judge(reader, folder, good)
        except Exception:
            result = f"WRONG: {traceback.format_exc()[-3000:]}"
    return {"story": number, "file": where, "what": what, "result": result}


def undamaged(reader: Reader, run: Path) -> dict[int, Any]:
    """By step: what is restored for training, and what for readers."""
    good = {}
    for step in sorted(int(path.name) for path in (run / "checkpoints").iterdir()):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "checkpoints"
            shutil.copytree(run / "checkpoints", folder)
            for other in folder.iterdir():
                if int(other.name) > step:
                    shutil.rmtree(other)
            good[step] = reader.whole(folder)[0], reader.params(folder, step)
    return good


def main() -> None:
    absl.logging.set_verbosity(absl.logging.FATAL)  # as commands do
    run, seed, first, last = Path(sys.argv[1]), *map(int, sys.argv[2:])
    reader = Reader()
    good = undamaged(reader, run)
    for number in range(first, last + 1):
        faulthandler.dump_traceback_later(PATIENCE, exit=True)  # where a story hangs
        print(json.dumps(story(reader, run, seed, number, good)), flush=True)


if __name__ == "__main__":
    main()
