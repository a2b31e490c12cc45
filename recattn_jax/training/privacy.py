"""Differential privacy: gradients of single rows, clipped and noised, and what that is worth."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from recattn_jax.data import Pipeline
from recattn_jax.errors import UserError
from recattn_jax.training.precision import master


@dataclass(frozen=True)
class Privacy:
    """Training that tells little about any one row (DP-SGD).

    The gradient of a step is `(sum_b clip(g_b) + noise) / B`, where `g_b` is the gradient of the
    mean loss of row b, `clip` shortens it to a norm of at most `clip`, and the noise is normal with
    standard deviation `clip * noise_multiplier`.

    What is protected is an example of the training split, which has a row to itself, from whoever
    sees the parameters, of all steps. Not protected are what else the split is used for
    (vocabularies, class weights, the logged training metrics) and the other splits; nor anything
    from one who knows the seed, which the noise is drawn from. Layers may not look at other rows of
    the batch, and sampling may not be balanced: then some examples are taken more often than the
    account says.

    Args:
      clip: the largest norm of one row's gradient.
      noise_multiplier: standard deviation of the noise in units of `clip`.
      delta: how probable a worse case than epsilon may be; well below one over the examples.

    >>> privacy = Privacy(clip=1.0, noise_multiplier=1.1, delta=1e-5)

    Abadi et al., Deep learning with differential privacy, 2016, arXiv:1607.00133.
    """

    clip: float
    noise_multiplier: float
    delta: float

    def __post_init__(self) -> None:
        if not self.clip > 0 or not self.noise_multiplier > 0 or not 0 < self.delta < 1:
            raise UserError(
                f"privacy: clip {self.clip} and noise_multiplier {self.noise_multiplier} must be"
                f" above 0, and delta {self.delta} between 0 and 1"
            )


def private_gradient(
    loss: Callable[..., Any], privacy: Privacy, parts: int
) -> Callable[..., tuple[Any, Any]]:
    """Like `jax.grad(loss, has_aux=True)`, but row by row, clipped and noised.

    Args:
      loss: `(params, batch, carry, key) -> (total, (metrics, carry))`, where `total` over
        `metrics["loss"].weight` is the mean loss; the carry must be empty.
      privacy: how much of it.
      parts: how many micro-batches make up a batch; each brings its share of the noise.

    Returns:
      A function of the same arguments to (gradient, (metrics, carry)): the sum over rows, to be
      divided by the number of rows of all micro-batches, and the metrics of the whole batch.

    Example:
      gradient = private_gradient(loss, Privacy(clip=1.0, noise_multiplier=1.1, delta=1e-5), 1)
    """

    def row_loss(params: Any, row: Any, key: jax.Array) -> Any:
        batch = jax.tree.map(lambda x: x[None], row)
        total, (metrics, _) = loss(params, batch, (), key)
        # A row that only fills the batch has neither loss nor weight.
        weight = metrics["loss"].weight
        return total / jnp.where(weight > 0, weight, 1.0), metrics

    def gradient(params: Any, batch: Any, carry: Any, key: jax.Array) -> tuple[Any, Any]:
        rows = jax.tree.leaves(batch)[0].shape[0]
        noise_key, rows_key = jax.random.split(key)
        per_row = jax.vmap(jax.grad(row_loss, has_aux=True), in_axes=(None, 0, 0))
        grads, metrics = per_row(params, batch, jax.random.split(rows_key, rows))
        # Independent noises add up in variance, so n shares of 1 / sqrt(n) make up the whole.
        aggregate = optax.contrib.differentially_private_aggregate(
            privacy.clip, privacy.noise_multiplier / math.sqrt(parts), key=noise_key
        )
        mean, _ = aggregate.update(master(grads), aggregate.init(params))
        total = jax.tree.map(lambda g: g * rows, mean)
        return total, (jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics), carry)

    return gradient


@dataclass(frozen=True)
class Epsilon:
    """How much a run can tell about one row, at the `delta` of its `Privacy`.

    Args:
      shuffled: for shuffled epochs, as `data.bucketed` makes them. Proven, and without
        amplification: an example is noised as often as it is taken, which is once an epoch, or
        twice where batches do not divide the split, since its last batch is then filled up.
      sampled: if every batch were drawn anew, each row with the same chance, by chance of its own
        (Poisson sampling). It is what papers quote, for batches that are shuffled as well; that
        these are no less private is not proven, and there are cases where they are.

    Chua et al., How private are DP-SGD implementations?, 2024, arXiv:2403.17673.
    """

    shuffled: float
    sampled: float


def epsilon(privacy: Privacy, steps: int, batch: int, examples: int) -> Epsilon:
    """Accounts for a run, by the privacy loss distributions of dp-accounting.

    Two data sets are neighbours where one example of the one is blank in the other.

    Args:
      privacy: clipping does not matter, noise and delta do.
      steps: how many are taken.
      batch: examples of each.
      examples: of the training split.

    Raises:
      UserError: dp-accounting is not installed, or a batch is larger than the split.

    >>> epsilon(Privacy(1.0, 1.1, 1e-5), steps=0, batch=256, examples=60_000)
    Epsilon(shuffled=0.0, sampled=0.0)
    """
    if not 0 < batch <= examples:
        raise UserError(f"privacy: a batch of {batch} cannot be taken from {examples} examples")
    if steps == 0:
        return Epsilon(0.0, 0.0)
    try:
        import dp_accounting  # noqa: PLC0415  (seconds, and only private runs need it)
        from dp_accounting import pld  # noqa: PLC0415
    except ImportError as error:
        raise UserError(
            "privacy: no epsilon can be stated without dp-accounting; install recattn_jax[privacy]"
        ) from error

    def spent(event: Any) -> float:
        accountant = pld.PLDAccountant()
        accountant.compose(event)
        return float(accountant.get_epsilon(privacy.delta))

    gaussian = dp_accounting.GaussianDpEvent(privacy.noise_multiplier)
    sampled = dp_accounting.PoissonSampledDpEvent(batch / examples, gaussian)
    epochs = -(-steps // -(-examples // batch))
    taken = epochs if examples % batch == 0 else 2 * epochs
    # n looks through normal noise tell as much as one through noise smaller by the root of n.
    whole = dp_accounting.GaussianDpEvent(privacy.noise_multiplier / math.sqrt(taken))
    return Epsilon(spent(whole), spent(dp_accounting.SelfComposedDpEvent(sampled, steps)))


def statement(privacy: Privacy, steps: int, train: Pipeline) -> str:
    """One line for the log: epsilon, and what it holds for.

    Args:
      privacy: as trained with.
      steps: how many.
      train: what is trained on.

    Raises:
      UserError: rows of the pipeline are no single examples, or see `epsilon`.
    """
    (batch, *_) = jax.tree.leaves(train.spec)[0].shape
    examples = 0 if train.records is None else len(train.records)
    if train.steps_per_epoch != -(-examples // batch):
        raise UserError(
            "privacy: the training pipeline does not give every example a row of its own; use"
            " bucketed rows, without packing"
        )
    found = epsilon(privacy, steps, batch, examples)
    return (
        f"privacy: after {steps} steps of {batch} of {examples} examples, noise"
        f" {privacy.noise_multiplier:g} x clip {privacy.clip:g}: epsilon {found.shuffled:.3g} at"
        f" delta {privacy.delta:g} for shuffled epochs; {found.sampled:.3g} if batches were Poisson"
        " samples, as papers count"
    )
