"""A toy to train in milliseconds: a tanh recurrence that names the next token, on made-up text."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from recattn_jax.data import ByteTokenizer, Data, Pipeline, token_batch
from recattn_jax.layers import (
    LSTM,
    Embed,
    Parallel,
    Repeat,
    Residual,
    RMSNorm,
    SelfAttention,
    Serial,
    add,
)
from recattn_jax.models import PerStep, SequenceModel
from recattn_jax.tasks.base import Mean
from recattn_jax.training import (
    DEFAULT_RULES,
    Cadence,
    Experiment,
    Layout,
    MeshShape,
    Optimization,
    Outcome,
    RunFolder,
    fit,
    optimizers,
    sharding,
)
from recattn_jax.training.checks import check
from recattn_jax.training.state import abstract_state, create_state, state_shardings
from recattn_jax.training.step import compile_train_step


class Recurrence(nn.Module):
    """tokens_BT -> logits_BTV; the state is (last segment, hidden)."""

    vocabulary: int
    width: int
    dropout: float
    streams = True

    @nn.compact
    def __call__(self, tokens_BT: Any, state: Any, segments_BT: Any) -> Any:
        x_BTD = nn.Embed(self.vocabulary, self.width, name="embed")(tokens_BT)
        deterministic = not self.has_rng("dropout")
        x_BTD = nn.Dropout(self.dropout, deterministic=deterministic)(x_BTD)
        kernel = self.param(
            "recurrent_kernel", nn.initializers.lecun_normal(), (self.width, self.width)
        )
        if state is None:
            rows = tokens_BT.shape[0]
            state = jnp.zeros((rows,), jnp.int32), jnp.zeros((rows, self.width))

        def step(carry: Any, x: Any) -> Any:
            segment_B, h_BD = carry
            x_BD, new_B = x
            h_BD = jnp.where((segment_B == new_B)[:, None], h_BD, 0.0)
            h_BD = jnp.tanh(x_BD + h_BD @ kernel)
            return (new_B, h_BD), h_BD

        state, h_TBD = jax.lax.scan(step, state, (x_BTD.swapaxes(0, 1), segments_BT.T))
        return nn.Dense(self.vocabulary, name="readout")(h_TBD.swapaxes(0, 1)), state


@dataclasses.dataclass(frozen=True)
class NextToken:
    """Cross-entropy over the steps whose segment is not 0."""

    headline: str = "loss"
    maximise: bool = False

    def __call__(self, apply: Any, batch: Any, state: Any) -> Any:
        logits_BTV, state = apply(batch["inputs"], state, batch["segments"])
        nats_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, batch["targets"])
        real_BT = (batch["segments"] > 0).astype(jnp.float32)
        return {"loss": Mean((nats_BT * real_BT).sum(), real_BT.sum())}, state


class Batches(Iterator[dict[str, np.ndarray]]):
    """Batches from a step on."""

    def __init__(self, pipeline: "Counting", start: int):
        self.pipeline, self.next = pipeline, start

    def __next__(self) -> dict[str, np.ndarray]:
        self.next += 1
        return self.pipeline.batch(self.next - 1)

    def close(self) -> None:
        pass


class Counting(Pipeline):
    """Rows that count upwards in steps of 1 or 2, with documents and padding of odd lengths."""

    def __init__(self, rows: int, length: int, vocabulary: int, seed: int, poison: int = -1):
        self.shape = rows, length
        self.vocabulary = vocabulary
        self.seed = seed
        self.poison = poison  # a batch without a single target, so that its loss is nan

    @property
    def fingerprint(self) -> str:
        return f"counting {self.shape} {self.vocabulary} {self.seed}"

    @property
    def specs(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        return (token_batch(*self.shape),)

    @property
    def records(self) -> None:
        return None

    @property
    def steps_per_epoch(self) -> int:
        return 10

    def batch(self, index: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng([self.seed, index])
        rows, length = self.shape
        stride = random.integers(1, 3, (rows, 1))
        text = (random.integers(0, 99, (rows, 1)) + stride * np.arange(length + 1)[None]).astype(
            np.int32
        ) % self.vocabulary
        segments = 1 + (np.arange(length)[None] >= random.integers(1, length, (rows, 1)))
        segments *= np.arange(length)[None] < random.integers(length // 4, length + 1, (rows, 1))
        if index == self.poison:
            segments *= 0
        return {
            "inputs": text[:, :-1],
            "targets": text[:, 1:],
            "segments": segments.astype(np.int32),
        }

    def batches(self, start: int) -> Any:
        return Batches(self, start)

    def epoch(self) -> Iterator[dict[str, np.ndarray]]:
        return (self.batch(10**6 + index) for index in range(2))


def toy(**changes: Any) -> tuple[Experiment, Data]:
    """An experiment and its data; `changes` replace fields of any of its parts."""
    parts = {
        "model": Recurrence(vocabulary=16, width=64, dropout=0.1),
        "task": NextToken(),
        "seed": 0,
    }
    optimization = {
        "optimizer": optimizers.adam(optimizers.constant(1e-2, 0), 0.9, 0.999, 1e-8, 1.0),
        "learning_rate": optimizers.constant(1e-2, 0),
        "accumulate": 1,
        "ema_decay": None,
        "carry_state": False,
        "privacy": None,
        "skip_nonfinite": 0,
    }
    cadence = {
        "steps": 12,
        "log_every": 1,
        "evaluate_every": 4,
        "save_every": 3,
        "keep": 2,
        "patience": None,
        "score_every": None,
    }
    layout = {"mesh": MeshShape(data=1), "rules": DEFAULT_RULES, "storage": ()}
    train = changes.pop("train", Counting(8, 12, 16, seed=0))
    validation = changes.pop("validation", Counting(8, 12, 16, seed=1))
    for group in (parts, optimization, cadence, layout):
        group.update({name: changes.pop(name) for name in list(changes) if name in group})
    assert not changes, changes
    data = Data({"text": ByteTokenizer()}, train, {"validation": validation}, "a toy")
    experiment = Experiment(
        data=lambda: data,
        batch=train.spec,
        optimization=Optimization(**optimization),
        cadence=Cadence(**cadence),
        layout=Layout(**layout),
        **parts,
    )
    return experiment, data


@functools.cache
def prepared(**changes: Any) -> tuple[Any, Any, Any]:
    """(maker of initial states, compiled step, placer of batches) of a toy, on its mesh."""
    experiment, data = toy(**changes)
    mesh = check(experiment, data)
    with jax.set_mesh(mesh):
        abstract = abstract_state(experiment)
        shardings = state_shardings(experiment, abstract, mesh)
        state = jax.device_get(create_state(experiment, shardings))
        step = compile_train_step(experiment, abstract, shardings, mesh, experiment.batch)
    where = sharding.batch_shardings(experiment.batch, mesh)
    return (
        lambda: jax.device_put(state, shardings),
        step,
        lambda batch: sharding.place(batch, experiment.batch, where),
    )


def hybrid(width: int, depth: int = 2) -> SequenceModel:
    """A recurrence beside attention, then a stack of recurrences."""
    mixer = Parallel((LSTM(width), SelfAttention(heads=4, window=12)), add)
    stack = (Repeat(Residual(Serial((RMSNorm(), LSTM(width)))), depth),) if depth else ()
    return SequenceModel(Embed(16, width), Serial((Residual(mixer), *stack)), PerStep(16))


def run_folder(path: Any, **config: Any) -> RunFolder:
    return RunFolder.open(path, config=config, config_file="toy.py", argv=["train"])


def train(path: Any, **changes: Any) -> tuple[Outcome, list[str]]:
    """Trains a toy; gives the outcome and the lines that were said."""
    lines: list[str] = []
    return fit(*toy(**changes), run_folder(path), say=lines.append), lines
