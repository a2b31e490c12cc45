"""Optimizers and schedules that know the shapes of our kernels; all else is optax itself."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers

from recattn_jax import partition
from recattn_jax.training.precision import path_name
from recattn_jax.training.sharding import layer_axes

Schedule = Callable[[Any], Any]


def _warm(warmup: int, peak: float, then: Schedule) -> Schedule:
    if warmup == 0:
        return then
    # One more than the step, so that the first step moves too.
    rise = optax.linear_schedule(peak / warmup, peak, warmup - 1) if warmup > 1 else then
    return optax.join_schedules([rise, then], [warmup])


def constant(peak: float, warmup: int) -> Schedule:
    """Linear rise over `warmup` steps, then `peak`."""
    return _warm(warmup, peak, optax.constant_schedule(peak))


def cosine(peak: float, warmup: int, steps: int, end: float) -> Schedule:
    """Linear rise, then half a cosine from `peak` down to `end` at step `steps`."""
    fall = optax.cosine_decay_schedule(peak, max(1, steps - warmup), alpha=end / peak)
    return _warm(warmup, peak, fall)


def linear(peak: float, warmup: int, steps: int, end: float) -> Schedule:
    """Linear rise, then a straight line from `peak` down to `end` at step `steps`."""
    return _warm(warmup, peak, optax.linear_schedule(peak, end, max(1, steps - warmup)))


def exponential(peak: float, warmup: int, every: int, factor: float) -> Schedule:
    """Linear rise, then smoothly times `factor` each `every` steps."""
    return _warm(warmup, peak, optax.exponential_decay(peak, every, factor))


def step(peak: float, warmup: int, every: int, factor: float) -> Schedule:
    """Linear rise, then times `factor` at once after each `every` steps."""
    return _warm(warmup, peak, optax.exponential_decay(peak, every, factor, staircase=True))


def decay_mask(params: Any) -> Any:
    """True for what weight decay pulls on: kernels, never biases, scales or embeddings.

    A vector is no kernel whatever its name; the layer axis of stacked parameters does not count.
    """

    def decays(path: tuple[Any, ...], leaf: Any) -> bool:
        name = path_name(path)
        ndim = leaf.ndim - layer_axes(name)
        return ndim > 1 and not re.search(r"(bias|scale|embedding)$", name)

    return jax.tree_util.tree_map_with_path(decays, params)


def _clipped(clip: float | None, optimizer: optax.GradientTransformation) -> Any:
    return optimizer if clip is None else optax.chain(optax.clip_by_global_norm(clip), optimizer)


def sgd(learning_rate: Schedule, clip: float | None) -> optax.GradientTransformation:
    """Plain gradient descent; `clip` bounds the global norm of the gradient, None does not."""
    return _clipped(clip, optax.sgd(learning_rate))


def momentum(
    learning_rate: Schedule, decay: float, nesterov: bool, clip: float | None
) -> optax.GradientTransformation:
    """Gradient descent with momentum."""
    return _clipped(clip, optax.sgd(learning_rate, momentum=decay, nesterov=nesterov))


def rmsprop(
    learning_rate: Schedule, decay: float, eps: float, clip: float | None
) -> optax.GradientTransformation:
    """RMSprop."""
    return _clipped(clip, optax.rmsprop(learning_rate, decay=decay, eps=eps))


def adam(
    learning_rate: Schedule, b1: float, b2: float, eps: float, clip: float | None
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, 2015)."""
    return _clipped(clip, optax.adam(learning_rate, b1=b1, b2=b2, eps=eps))


def adamw(
    learning_rate: Schedule,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    clip: float | None,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay on kernels only (Loshchilov and Hutter, 2019)."""
    return _clipped(
        clip,
        optax.adamw(
            learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask
        ),
    )


# Axes of the matrix in each kernel, counted from the end; axes not named (gates, layers, heads of a
# score) count matrices that have nothing to do with each other.
MATRICES = (
    (r"(^|/)(input|recurrent)_kernel$", MuonDimensionNumbers(-3, -1)),  # [D, G, H]
    (r"(^|/)(query|key|value)/kernel$", MuonDimensionNumbers(-3, (-2, -1))),  # [D, H, K]
    (r"(^|/)out/kernel$", MuonDimensionNumbers((-3, -2), -1)),  # [H, K, D]
    (r"(^|/)(query|key|score)_kernel$", MuonDimensionNumbers(-2, -1)),  # [H, K, N]
    (r"(^|/)(readout|frontend)/", None),
    (r"(^|/)kernel$", MuonDimensionNumbers(-2, -1)),  # [D, E]
)


def muon_axes(params: Any) -> Any:
    """Which axes of each parameter make a matrix; None leaves it to Adam.

    Readouts, embeddings, biases and scales are left to Adam.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: _matrix(path), params)


def _matrix(path: tuple[Any, ...]) -> MuonDimensionNumbers | None:
    found = (axes for pattern, axes in MATRICES if re.search(pattern, path_name(path)))
    return next(found, None)


def muon(
    learning_rate: Schedule,
    beta: float,
    adam_b1: float,
    adam_b2: float,
    weight_decay: float,
    clip: float | None,
) -> optax.GradientTransformation:
    """Muon on the kernels of the body, Adam on the rest, one learning rate for both.

    Updates are scaled to Adam's usual size (0.2 root mean square), so that a learning rate for
    Adam is a fair first guess. Jordan et al., 2024; Liu et al., 2025.
    """
    momentum = optax.contrib.scale_by_muon(beta=beta, weight_dimension_numbers=muon_axes)
    matrices = optax.chain(
        _on_whole_arrays(momentum),
        optax.stateless(lambda updates, _: _as_large_as_adams(updates)),
        optax.add_decayed_weights(weight_decay, decay_mask),
        optax.scale_by_learning_rate(learning_rate),
    )
    rest = optax.adamw(learning_rate, b1=adam_b1, b2=adam_b2, weight_decay=0.0, nesterov=True)

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "adam" if _matrix(path) is None else "muon", params
        )

    return _clipped(clip, optax.partition({"muon": matrices, "adam": rest}, labels))


def _on_whole_arrays(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Every device computes all of it, once it has gathered what the others keep.

    Muon takes fifteen products of each matrix: of one in parts, each would gather its parts again.
    """

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        given = jax.tree.map(partition.whole, (updates, state))
        # Said of the results too, or what keeps them in parts would split the products.
        return jax.tree.map(partition.whole, inner.update(*given, params))

    return optax.GradientTransformation(inner.init, update)


def _as_large_as_adams(updates: Any) -> Any:
    def scaled(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        axes = _matrix(path)
        assert axes is not None
        fans = [np.prod(np.take(update.shape, axis)) for axis in axes]
        return jnp.sqrt(max(fans)) * 0.2 * update

    return jax.tree_util.tree_map_with_path(scaled, updates)
