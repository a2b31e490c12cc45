"""Losses of classes in nats: pure functions of logits, one number for every label."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recattn_jax.shapes import Array, Bool, Float, Int
from recattn_jax.tasks.base import Mean

Loss = Callable[..., Array]
"""`(logits [..., V], labels [...]) -> nats [...]`, such as
`functools.partial(cross_entropy, smoothing=0.1, weights=None)`."""


def cross_entropy(
    logits: Float[Array, "*batch V"],
    labels: Int[Array, "*batch"],
    *,
    smoothing: float,
    weights: Sequence[float] | None,
) -> Float[Array, "*batch"]:
    """Cross-entropy with a softened target, `w_y ((1 - s) (-log p_y) + s mean_v(-log p_v))`.

    Args:
      logits: `[..., V]`, unnormalised log probabilities, in float32.
      labels: `[...]`, y, the right classes.
      smoothing: s, how much of the target is spread evenly over all V classes; 0 for none.
      weights: w, one number a class (see `inverse_frequency`); None for ones. They scale the loss
        and not what it is divided by, so that the mean over a batch is unbiased for the mean over
        the data whatever classes the batch holds.

    Returns:
      Nats, `[...]`.

    Raises:
      ValueError: not one weight a class, or smoothing outside [0, 1].

    >>> loss = cross_entropy(jnp.zeros((1, 4)), jnp.array([2]), smoothing=0.1, weights=None)
    >>> bool(jnp.allclose(loss, jnp.log(4.0)))
    True

    Szegedy et al., Rethinking the Inception architecture for computer vision, 2015,
    arXiv:1512.00567.
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"cross_entropy: smoothing is {smoothing}, must be in [0, 1]")
    log_p = jax.nn.log_softmax(logits)
    nats = (1.0 - smoothing) * -_of(log_p, labels)
    if smoothing:
        nats = nats - smoothing * jnp.mean(log_p, axis=-1)
    return nats * _weights(weights, logits.shape[-1], labels)


def focal(
    logits: Float[Array, "*batch V"],
    labels: Int[Array, "*batch"],
    *,
    gamma: float,
    weights: Sequence[float] | None,
) -> Float[Array, "*batch"]:
    """The focal loss, `-w_y (1 - p_y)^gamma log p_y`: what is already right counts less.

    Args:
      logits: `[..., V]`, unnormalised log probabilities, in float32.
      labels: `[...]`, y, the right classes.
      gamma: 0 is cross-entropy; 2 is usual.
      weights: w, one number a class, as for `cross_entropy`; None for ones.

    Returns:
      Nats, `[...]`.

    Raises:
      ValueError: not one weight a class, or gamma below 0.

    >>> loss = focal(jnp.zeros((1, 2)), jnp.array([1]), gamma=1.0, weights=None)
    >>> bool(jnp.allclose(loss, 0.5 * jnp.log(2.0)))
    True

    Lin et al., Focal loss for dense object detection, 2017, arXiv:1708.02002.
    """
    if gamma < 0:
        raise ValueError(f"focal: gamma is {gamma}, must be 0 or more")
    log_p = _of(jax.nn.log_softmax(logits), labels)
    nats = -log_p
    if gamma:
        # 1 - p without cancellation; floored, since the power of an exact 0 has no derivative.
        wrong = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(log_p.dtype).tiny)
        nats = nats * wrong**gamma
    return nats * _weights(weights, logits.shape[-1], labels)


def inverse_frequency(labels: Sequence[int] | np.ndarray, classes: int) -> tuple[float, ...]:
    """Weights that let every class count alike, `w_c = N / (C n_c)`; their mean over labels is 1.

    Args:
      labels: `[N]`, class numbers, of the training split.
      classes: how many there are.

    Returns:
      One weight a class; 0 for a class without a label, and C then counts only those with one.

    >>> inverse_frequency([0, 0, 0, 1], 2)
    (0.6666666666666666, 2.0)
    """
    counts_C = np.bincount(np.asarray(labels, np.int64), minlength=classes)
    total, present = counts_C.sum(), np.count_nonzero(counts_C)
    return tuple(float(total / (present * n)) if n else 0.0 for n in counts_C)


class Compared(NamedTuple):
    """What metrics of labels are made of.

    Attributes:
      nats: `[...]`, the loss of each label.
      right: `[...]`, whether it is the most likely one.

    >>> loss, accuracy = means(Compared(jnp.array([2.0]), jnp.array([True])), jnp.ones(1))
    >>> float(loss.total)
    2.0
    """

    nats: Float[Array, "*batch"]
    right: Bool[Array, "*batch"]


def compare(loss: Loss, logits: Float[Array, "*batch V"], labels: Int[Array, "*batch"]) -> Compared:
    """Compares logits with labels, each by itself, for the `compare` of models.

    Args:
      loss: nats from logits and labels.
      logits: `[..., V]`, predictions.
      labels: `[...]`, what is right.

    Returns:
      The loss of each label, and whether it is the most likely one.

    >>> compare(NATS, jnp.zeros((1, 4)), jnp.array([0])).right.tolist()
    [True]
    """
    return Compared(loss(logits, labels), jnp.argmax(logits, axis=-1) == labels)


NATS: Loss = functools.partial(cross_entropy, smoothing=0.0, weights=None)
"""Plain cross-entropy, `-log p_y`."""


def known(labels: Int[Array, "*batch"], weight: Float[Array, "*batch"]) -> Int[Array, "*batch"]:
    """The labels that count, and 0 in the place of others.

    Args:
      labels: `[...]`, what is right; anything where the weight is 0.
      weight: `[...]`, how much each counts.

    Returns:
      `[...]`, labels that all exist.

    >>> known(jnp.array([3, -1]), jnp.array([1.0, 0.0])).tolist()
    [3, 0]
    """
    return jnp.where(weight > 0, labels, 0)


def means(compared: Compared, weight: Float[Array, "*batch"]) -> tuple[Mean, Mean]:
    """Loss and accuracy of labels, each counted as its weight says.

    Args:
      compared: of each label; anything where the weight is 0.
      weight: `[...]`, how much each counts.

    Returns:
      The loss and the accuracy.

    >>> compared = Compared(jnp.array([2.0, jnp.nan]), jnp.array([True, True]))
    >>> loss, _ = means(compared, jnp.array([1.0, 0.0]))
    >>> float(loss.total), float(loss.weight)
    (2.0, 1.0)
    """
    nats = jnp.where(weight > 0, compared.nats, 0.0)
    total = jnp.sum(weight)
    return Mean(jnp.sum(nats * weight), total), Mean(jnp.sum(compared.right * weight), total)


def label_means(
    loss: Loss,
    logits: Float[Array, "*batch V"],
    labels: Int[Array, "*batch"],
    weight: Float[Array, "*batch"],
) -> tuple[Mean, Mean]:
    """Loss and accuracy of labels, each counted as its weight says.

    Args:
      loss: nats from logits and labels.
      logits: `[..., V]`, predictions.
      labels: `[...]`, what is right; anything where the weight is 0.
      weight: `[...]`, how much each counts; 0 for not at all, whatever stands there.

    Returns:
      The loss and the accuracy.

    >>> labels, weight = jnp.array([0, -1]), jnp.array([1.0, 0.0])
    >>> _, accuracy = label_means(NATS, jnp.zeros((2, 4)), labels, weight)
    >>> float(accuracy.total), float(accuracy.weight)
    (1.0, 1.0)
    """
    return means(compare(loss, logits, known(labels, weight)), weight)


def _of(log_p: Float[Array, "*batch V"], labels: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    return jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]


def _weights(
    weights: Sequence[float] | None, classes: int, labels: Int[Array, "*batch"]
) -> Float[Array, "*batch"]:
    if weights is None:
        return jnp.ones(labels.shape, jnp.float32)
    if len(weights) != classes:
        raise ValueError(f"class weights: expected one a class, {classes}, found {len(weights)}")
    return jnp.asarray(weights, jnp.float32)[labels]
