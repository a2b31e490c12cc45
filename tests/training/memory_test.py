"""Logits in chunks: what training keeps in memory, read off compiled programs, and its steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.analysis import hlo
from recattn_jax.layers import Dense, Embed, Serial
from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel, TiedPerStep
from recattn_jax.tasks import LanguageModel, SequenceToSequence, losses
from recattn_jax.training import MeshShape, Privacy, optimizers
from recattn_jax.training.state import bind
from tests.oracles import assert_close
from tests.training.toy import Counting, prepared

B, T, V, D = 8, 64, 32768, 64
CHUNK = 64  # of the 512 targets
TASKS = {
    "language model": LanguageModel(separator=0, symbol="word"),
    "sequence to sequence": SequenceToSequence(0, lambda *given: None, losses.NATS, ()),
}


def model_of(task: str, tied: bool, chunk: int | None, dtype=jnp.float32):
    embed = Embed(V, D, dtype=dtype)
    readout = TiedPerStep(embed, chunk) if tied else PerStep(V, chunk)
    decoder = SequenceModel(embed, Serial((Dense(D),)), readout)
    return decoder if task == "language model" else EncoderDecoder(Embed(9, D), decoder)


def gradient(model, task: str) -> jax.stages.Compiled:
    ids = jax.ShapeDtypeStruct((B, T), jnp.int32)
    names = ("inputs", "targets", "segments", "source", "source_segments")
    batch = dict.fromkeys(names, ids)
    given = (ids,) if task == "language model" else (ids, ids)
    params = jax.eval_shape(model.init, jax.random.key(0), *given)["params"]

    def loss(params, batch):
        return TASKS[task](bind(model, params, {}), batch, None)[0]["loss"].total

    return jax.jit(jax.grad(loss)).lower(params, batch).compile()


def largest(program: jax.stages.Compiled) -> int:
    """Elements of the largest array, of whatever dtype."""
    return max(array.elements for array in hlo.arrays(program.as_text()))


@pytest.mark.parametrize(
    ("task", "tied", "dtype"),
    [
        ("language model", False, jnp.float32),
        ("language model", True, jnp.bfloat16),
        ("sequence to sequence", False, jnp.bfloat16),
    ],
)
def test_the_logits_of_a_large_vocabulary_never_stand_together(task, tied, dtype) -> None:
    def program(chunk):
        return gradient(model_of(task, tied, chunk, dtype), task)

    chunked, dense = program(CHUNK), program(None)
    assert largest(dense) >= B * T * V  # or this test would see nothing
    assert largest(chunked) <= max(V * D, CHUNK * V)

    def peak(program):
        return program.memory_analysis().temp_size_in_bytes

    assert peak(dense) > 4 * B * T * V
    assert peak(chunked) < peak(dense) / 4


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 2, "mesh": MeshShape(data=2, fsdp=2, sequence=2)},
        {"privacy": Privacy(clip=0.5, noise_multiplier=1e-30, delta=1e-5)},
    ],
    ids=["parts on devices", "private"],
)
def test_a_step_in_chunks_is_the_step(changes) -> None:
    results = []
    for chunk, how in ((None, {k: v for k, v in changes.items() if k == "privacy"}), (3, changes)):
        fresh, step, place = prepared(
            model=SequenceModel(Embed(16, 64), Serial((Dense(64),)), PerStep(16, chunk)),
            task=LanguageModel(separator=15, symbol="char"),
            optimizer=optimizers.sgd(optimizers.constant(1.0, 0), None),
            **how,
        )
        before = jax.device_get(fresh().params)
        state, (metrics, _) = step(fresh(), place(Counting(8, 12, 16, seed=3).batch(0)))
        gradient = jax.tree.map(np.subtract, before, jax.device_get(state.params))
        results.append((gradient, jax.device_get(metrics)))
    # Of parameters as large as 1, a step tells gradients to 1.2e-7.
    assert_close(results[1], results[0], 1e-5)
