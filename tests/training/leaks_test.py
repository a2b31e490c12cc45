"""Saving leaves nothing behind."""

import dataclasses
import gc
import sys

import jax
import jax.numpy as jnp
import tensorstore

from recattn_jax.training.checkpoints import Checkpoints
from recattn_jax.training.sharding import make_mesh
from recattn_jax.training.state import abstract_state, create_state, state_shardings
from tests.training.toy import toy


def test_saves_leave_nothing_behind(tmp_path):
    """Blocks of Python's memory, after some saves and after as many more."""
    experiment, _ = toy()
    mesh = make_mesh(experiment.layout.mesh)
    with jax.set_mesh(mesh):
        abstract = abstract_state(experiment)
        state = create_state(experiment, state_shardings(experiment, abstract, mesh))
        checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, say=print)
        blocks = []
        for step in range(1, 25):
            state = dataclasses.replace(state, step=jnp.int32(step))
            checkpoints.save(state, "fingerprint", {})
            checkpoints.wait()
            if step % 8 == 0:
                gc.collect()
                blocks.append(sys.getallocatedblocks())
        checkpoints.close()
    arrays = len(jax.tree.leaves(state))
    # Without the remedy it is 4 an array and 100 besides, each time.
    assert (blocks[2] - blocks[1]) / 8 < 2 * arrays, blocks


def test_folders_keep_their_names(tmp_path):
    """Also more of them than are remembered, and whatever is done to an answer."""
    Checkpoints(tmp_path / "checkpoints", keep=2, say=print).close()
    for _ in range(2):
        for name in ("a", "b c", "d'é\"", *map(str, range(9))):
            wanted = {"driver": "file", "path": f"{tmp_path}/{name}/"}
            found = tensorstore.KvStore.Spec(wanted).to_json()
            assert found == wanted
            found["path"] = "elsewhere"
