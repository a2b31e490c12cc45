"""Checkpoints: the digest sees every bit, and damage costs a few steps, never the run."""

import dataclasses
import json
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from recattn_jax.errors import StorageError, UserError
from recattn_jax.training import MeshShape, fit, optimizers
from recattn_jax.training import checkpoints as checkpoints_module
from recattn_jax.training.checkpoints import Checkpoints, digest, leaf_digest
from recattn_jax.training.checks import check
from recattn_jax.training.metrics import read_records
from recattn_jax.training.sharding import make_mesh
from recattn_jax.training.state import abstract_state, state_shardings
from tests.training.toy import Counting, run_folder, toy, train


def saved(path):
    return sorted(int(p.name) for p in (path / "checkpoints").iterdir() if p.name.isdigit())


def flip_a_bit(checkpoint, place=0.5):
    """One bit of the largest array's data, so far into its file; all else stays as it was."""
    files = [p for p in (checkpoint / "state").rglob("d/*") if p.is_file()]
    file = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << 3
    file.write_bytes(content)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of 9 steps, saved at 3, 6, 9 (and 4 and 8, where it got better)."""
    path = tmp_path_factory.mktemp("finished") / "run"
    outcome, _ = train(path, steps=9, keep=3, ema_decay=0.9)
    assert outcome.step == 9
    return path


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to damage."""
    return shutil.copytree(finished, tmp_path / "run")


def state_on(mesh_shape, **changes):
    experiment, data = toy(steps=9, keep=3, ema_decay=0.9, mesh=mesh_shape, **changes)
    mesh = check(experiment, data)
    shardings = state_shardings(experiment, abstract_state(experiment), mesh)
    abstract = jax.tree.map(
        lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p),
        abstract_state(experiment),
        shardings,
    )
    return abstract, data.train.fingerprint


def test_every_bit_and_every_position_counts():
    random = np.random.default_rng(0)
    arrays = [
        random.normal(size=(3, 5, 2)).astype(np.float32),
        random.normal(size=(7,)).astype(jnp.bfloat16),
        np.zeros((4, 4), np.float32),
        random.integers(0, 9, (6,)).astype(np.int8),
        np.array(3, np.int32),
    ]
    for array in arrays:
        good = int(leaf_digest(jnp.asarray(array)))
        size = array.nbytes
        seen = {good}
        for bit in random.choice(8 * size, size=min(40, 8 * size), replace=False):
            content = bytearray(array.tobytes())
            content[bit // 8] ^= 1 << (bit % 8)
            flipped = np.frombuffer(bytes(content), array.dtype).reshape(array.shape)
            now = int(leaf_digest(jnp.asarray(flipped)))
            assert now not in seen, (array.dtype, bit)
            seen.add(now)
    assert int(leaf_digest(jnp.array([True, False]))) != int(leaf_digest(jnp.array([False, True])))
    assert int(leaf_digest(jnp.array([1.0, 2.0]))) != int(leaf_digest(jnp.array([2.0, 1.0])))


def test_the_digest_does_not_depend_on_sharding():
    mesh = make_mesh(MeshShape(data=2, fsdp=4))
    x = jax.random.normal(jax.random.key(0), (8, 3, 16))
    split = jax.device_put(x, NamedSharding(mesh, P("fsdp", None, "data")))
    assert digest({"x": x}) == digest({"x": split})


def test_the_latest_and_the_best_stay(finished):
    assert saved(finished) == [6, 8, 9]
    meta = json.loads((finished / "checkpoints" / "9" / "meta" / "metadata").read_text())
    assert meta["best_step"] == 9 and meta["averaged"]


def test_one_flipped_bit_costs_the_step_and_is_named(run):
    before = [r for r in read_records(run / "metrics.jsonl")]
    flip_a_bit(run / "checkpoints" / "9")
    outcome, lines = train(run, steps=9, keep=3, ema_decay=0.9)
    # Whether the bit spoils the compression or the values depends on how the file was laid out.
    damaged = [line for line in lines if "step 9 is damaged" in line]
    assert damaged and ("bits of" in damaged[0] or "unreadable" in damaged[0]), lines
    assert [line for line in lines if "going on from step 8" in line], lines
    assert outcome.reason == "finished" and outcome.step == 9
    after = read_records(run / "metrics.jsonl")
    for record in before + after:
        record.pop("targets_per_second", None)
        record.pop("seconds")
    assert after == before
    assert saved(run) == [6, 8, 9] and (run / "damaged" / "9").is_dir()


def test_flipped_bits_that_can_be_read_are_found_by_the_digest(finished, tmp_path):
    said = []
    places = (0.2, 0.35, 0.5, 0.65, 0.8)
    for place in places:
        run = shutil.copytree(finished, tmp_path / str(place))
        flip_a_bit(run / "checkpoints" / "9", place)
        checkpoints = Checkpoints(run / "checkpoints", keep=3, say=said.append)
        state, _ = checkpoints.restore(*state_on(MeshShape(data=1)))
        checkpoints.close()
        assert int(state.step) == 8, said
    assert sum("step 9 is damaged" in line for line in said) == len(places), said
    assert any("the bits of" in line for line in said), said


def test_a_truncated_checkpoint_is_passed_over_too(run):
    files = [p for p in (run / "checkpoints" / "9" / "state").rglob("*") if p.is_file()]
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (run / "checkpoints" / "8" / "meta" / "metadata").write_text("{")
    said = []
    checkpoints = Checkpoints(run / "checkpoints", keep=3, say=said.append)
    state, _ = checkpoints.restore(*state_on(MeshShape(data=1)))
    checkpoints.close()
    assert int(state.step) == 6
    assert ["step 9" in line and "unreadable" in line for line in said] == [True, False], said


def test_no_good_checkpoint_is_no_fresh_start(run):
    for step in saved(run):
        flip_a_bit(run / "checkpoints" / str(step))
    with pytest.raises(StorageError, match="no good checkpoint among steps"):
        train(run, steps=9, keep=3, ema_decay=0.9)
    assert saved(run) == [6, 8, 9]
    assert json.loads((run / "run.json").read_text())["ended"].startswith("StorageError")


def test_another_pipeline_is_refused(run):
    with pytest.raises(UserError, match=r"another data pipeline: counting .* 0, not counting .* 5"):
        train(run, steps=9, keep=3, ema_decay=0.9, train=Counting(8, 12, 16, seed=5))


def test_another_mesh_restores_the_same_bits(run):
    states = []
    for shape in (MeshShape(data=1), MeshShape(data=2, fsdp=2, model=2)):
        checkpoints = Checkpoints(run / "checkpoints", keep=3, say=print)
        states.append(checkpoints.restore(*state_on(shape))[0])
        checkpoints.close()
    assert digest(states[0]) == digest(states[1])
    kernel = states[1].params["recurrent_kernel"]
    assert {s.data.shape for s in kernel.addressable_shards} == {(32, 32)}


def test_parameters_alone_by_name_or_number(run):
    abstract, fingerprint = state_on(MeshShape(data=1))
    whole = Checkpoints(run / "checkpoints", keep=3, say=print)
    state, _ = whole.restore(abstract, fingerprint)
    whole.close()
    checkpoints = Checkpoints(run / "checkpoints", keep=1, say=print, read_only=True)
    for which, step in (("best", 9), ("last", 9), (8, 8)):
        params, found = checkpoints.restore_params(which, abstract.params)
        assert found == step
        # The run keeps an average, so that is what is loaded.
        same = digest(params) == digest(state.ema)
        assert same is (step == 9)
    with pytest.raises(UserError, match=r"no checkpoint 7 in .*; there are \[6, 8, 9\]"):
        checkpoints.restore_params(7, abstract.params)
    for file in (run / "checkpoints" / "8" / "state").rglob("d/*"):
        content = bytearray(file.read_bytes())
        content[200::500] = bytes(b ^ 8 for b in content[200::500])
        file.write_bytes(content)
    with pytest.raises(StorageError, match="step 8 in .* (is damaged|cannot be read)"):
        checkpoints.restore_params(8, abstract.params)
    checkpoints.close()


def test_the_best_is_the_lowest_headline_not_the_latest(tmp_path):
    """The learning rate turns so high that the run only gets worse after its first evaluation."""

    def rate(step):
        return jnp.where(step < 4, 1e-2, 2.0)

    sgd = optimizers.adam(rate, 0.9, 0.999, 1e-8, None)
    outcome, _ = train(tmp_path / "run", steps=12, keep=1, optimizer=sgd)
    assert outcome.best_step == 4 and saved(tmp_path / "run") == [4, 12]
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", 1, print, read_only=True)
    experiment, _ = toy()
    assert checkpoints.restore_params("best", abstract_state(experiment).params)[1] == 4
    checkpoints.close()


def test_a_full_disk_is_a_storage_error(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    with pytest.raises(
        StorageError, match=r"cannot save in .*No space left on device; last good.*: none"
    ):
        fit(*toy(), run_folder(tmp_path / "run"), say=print)


def test_where_nothing_was_saved_nothing_is_restored(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1, say=print)
    assert checkpoints.restore(*state_on(MeshShape(data=1))) == (None, {})
    checkpoints.close()


def test_notes_come_back_with_the_state(run):
    abstract, fingerprint = state_on(MeshShape(data=1))
    checkpoints = Checkpoints(run / "checkpoints", keep=3, say=print)
    state, notes = checkpoints.restore(abstract, fingerprint)
    assert notes.keys() == {"metrics", "peaks"}
    assert notes["metrics"]["lines"] == len(read_records(run / "metrics.jsonl"))
    later = dataclasses.replace(state, step=state.step + 1)
    checkpoints.save(later, fingerprint, {"peaks": {"loss": 0.1, "grad_norm": float("inf")}})
    checkpoints.wait()
    _, notes = checkpoints.restore(abstract, fingerprint)
    checkpoints.close()
    assert notes == {"peaks": {"loss": 0.1, "grad_norm": float("inf")}}


def test_what_is_beside_the_state_is_covered_too(run):
    """Of an average nobody keeps, a pipeline that is not this one's, a best step that is not."""
    file = run / "checkpoints" / "9" / "meta" / "metadata"
    good = file.read_text()
    abstract, fingerprint = state_on(MeshShape(data=1))
    said = []
    for before, after in (
        ('"best_step": 9', '"best_step": 8'),
        ('"averaged": true', '"averaged": 0.00'),
        ('"counting', '"dounting'),
        ('"checksum"', '"bhecksum"'),
        ('"notes"', '"motes"'),
    ):
        assert before in good, good
        file.write_text(good.replace(before, after))
        checkpoints = Checkpoints(run / "checkpoints", keep=3, say=said.append, read_only=True)
        with pytest.raises(StorageError, match="step 9 in .* is damaged: what is kept beside"):
            checkpoints.restore_params("last", abstract.params)
        checkpoints.close()
    file.write_text(good.replace('"best_step": 9', '"best_step": 8'))
    checkpoints = Checkpoints(run / "checkpoints", keep=3, say=said.append)
    state, _ = checkpoints.restore(abstract, fingerprint)
    checkpoints.close()
    assert int(state.step) == 8 and "what is kept beside its state changed" in said[-1]


def test_checkpoints_from_before_checksums_are_read(run):
    file = run / "checkpoints" / "9" / "meta" / "metadata"
    meta = json.loads(file.read_text())
    del meta["checksum"], meta["notes"]
    file.write_text(json.dumps(meta))
    checkpoints = Checkpoints(run / "checkpoints", keep=3, say=print)
    state, notes = checkpoints.restore(*state_on(MeshShape(data=1)))
    checkpoints.close()
    assert int(state.step) == 9 and notes == {}


def test_only_what_stray_reads_find_is_hushed(monkeypatch):
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    checkpoints_module._hush_stray_reads()
    checkpoints_module._hush_stray_reads()
    closed = types.SimpleNamespace(exc_value=RuntimeError("Event loop is closed"), object=None)
    other = types.SimpleNamespace(exc_value=RuntimeError("something else"), object=None)
    sys.unraisablehook(closed)
    sys.unraisablehook(other)
    assert heard == [other]
