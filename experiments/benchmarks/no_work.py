"""The training loop around a step that computes nothing, on the bytes of your own text.

    python -m launch.train --config=experiments/benchmarks/no_work.py --config.text=FILE

What is left is the loop's own work for a step: take a batch, place it, dispatch, read the numbers
of the step before, log.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import text
from recattn_jax.tasks.base import Mean, Metrics
from recattn_jax.training import Experiment, Optimization, optimizers
from recattn_jax.training.state import abstract_state


class Numbers(nn.Module):
    """Some numbers, whatever the input; a model without work."""

    count: int
    streams = True

    @nn.compact
    def __call__(self) -> jax.Array:
        zeros = nn.initializers.zeros
        return sum((self.param(f"p{i}", zeros, ()) for i in range(self.count)), jnp.zeros(()))


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A task without work: the loss is the sum of the model's numbers."""

    headline: str = "loss"
    maximise: bool = False

    def __call__(self, apply: Any, batch: Any, state: Any) -> tuple[Metrics, Any]:
        targets = jnp.float32(batch["targets"].size)
        loss = Mean(apply() * targets, targets)
        return {"loss": loss, "accuracy": loss, "bits_per_byte": loss}, state


def without_work(real: Experiment) -> Experiment:
    """The same loop around a step that computes nothing."""
    arrays = len(jax.tree.leaves(abstract_state(real).params))
    rate = optimizers.constant(1e-3, warmup=0)
    adam = optimizers.adam(rate, b1=0.9, b2=0.999, eps=1e-8, clip=None)
    how = Optimization(adam, rate, accumulate=1, ema_decay=None, carry_state=False)
    return dataclasses.replace(real, model=Numbers(arrays), task=Nothing(), optimization=how)


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return text.get_config()


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    return without_work(text.build(c))
