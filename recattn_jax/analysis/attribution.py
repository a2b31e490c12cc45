"""Attribution: how much the embedding of each input token moves what a model says."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from recattn_jax.layers import Embed, EmbedBag
from recattn_jax.shapes import Array, Float

Scores = Callable[[Any], Float[Array, " O"]]
"""What is explained: of a model's predictions for one row, a number for each output."""
Say = Callable[[int, int], None]
"""Is told how much of the work is done, of how much."""

PATH_STEPS = 128
"""Points of the path that gradients are integrated over."""
TOLERANCE = 0.01
"""How far attributions may sum to another number than the score moved by, as a share of the larger
of that and 1 nat."""
_EMBEDDINGS = (Embed, EmbedBag, nn.Embed)
_BLOCK = 16  # passes at a time
_ROOM = 1 << 24  # numbers that their predictions may be


class NotEmbedded(Exception):
    """The model does not embed each of its inputs once; says how often.

    >>> from recattn_jax.layers import Identity
    >>> try:
    ...     x = jnp.ones((1, 5, 3))
    ...     attribute(Identity(), {}, [x], [x], lambda y: y[0, :, 0])
    ... except NotEmbedded as reason:
    ...     print(reason)
    the model embeds tokens 0 times where it has 1 inputs
    """


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """What the outputs of a model owe to its input tokens; positive where a token raises a score.

    Attributes:
      gradients: for each input, gradient times embedding, `[O, T]`: what the score of each output
        would lose at first if the embedding began to shrink. Through a norm, which takes vectors of
        any length for the same, that is nothing.
      norms: for each input, the norm of that gradient, `[O, T]`, which says that too.
      integrated: for each input, integrated gradients `[T]` of one output, from the baseline.
      of: that output.
      change: by how much its score moves on that path.
      error: by how much all of `integrated` sums to more than that.

    >>> one = np.ones((1, 3), np.float32)
    >>> Attribution((one,), (one,), (np.ones(3),), of=0, change=3.0, error=0.5).complete
    False
    """

    gradients: tuple[Float[np.ndarray, "O _"], ...]
    norms: tuple[Float[np.ndarray, "O _"], ...]
    integrated: tuple[Float[np.ndarray, " _"], ...]
    of: int
    change: float
    error: float

    @property
    def complete(self) -> bool:
        """Whether the integral is as exact as `TOLERANCE` asks."""
        return abs(self.error) <= TOLERANCE * max(1.0, abs(self.change))

    @property
    def exactness(self) -> str:
        """Words on how exact the integral is, which go on after what it is of."""
        far = "" if self.complete else ": too far to rely on them"
        return (
            f"all of them sum to {self.change + self.error:+.3f} nats, {abs(self.error):.1e} off"
            f" what it gains over separators alone{far}"
        )


def attribute(
    model: nn.Module,
    variables: Any,
    inputs: Sequence[Array],
    baseline: Sequence[Array],
    scores: Scores,
    of: int = -1,
    say: Say | None = None,
) -> Attribution:
    """Explains scores by the embeddings of input tokens.

    `gradients_os = e_s . df_o / de_s`, and for one output, along a straight path from the
    embeddings b of the baseline, `integrated_s = w_s . int_0^1 df / de_s (b + a w) da` with
    `w = e - b`, which sums to `f(e) - f(b)`. The integral is a sum of
    `PATH_STEPS` terms. Embeddings are what `Embed`, `EmbedBag` and `flax.linen.Embed` return; what
    a model adds to that, positions for example, stays as it is.

    Args:
      model: an unbound model that embeds each of its inputs once, in their order.
      variables: its variables.
      inputs: of its call, each one row, `[1, T]` or `[1, T, K]`.
      baseline: inputs that say nothing, separators for example, `[1, T]` or `[1, T, K]` as those
        are. Embeddings of zeros would be none: before a norm all vectors are as long, so that near
        zeros the score moves too wildly to be integrated.
      scores: of its predictions, `[O]`.
      of: the output whose gradients are integrated; negative ones count from the last.
      say: is told of progress.

    Returns:
      Attributions, on the host, of `O + PATH_STEPS + 1` passes, a few at a time.

    Raises:
      NotEmbedded: it embeds them more often, or never.

    >>> from recattn_jax.models import PerStep, SequenceModel
    >>> from recattn_jax.layers import MinGRU
    >>> model, row = SequenceModel(Embed(10, 8), MinGRU(8), PerStep(10)), jnp.ones((1, 5), int)
    >>> variables = model.init(jax.random.key(0), row)
    >>> found = attribute(model, variables, [row], [0 * row], lambda logits: logits[0, :, 3])
    >>> found.gradients[0].shape, found.integrated[0].shape, found.complete
    ((5, 5), (5,), True)

    Simonyan et al., Deep inside convolutional networks, 2013, arXiv:1312.6034; Sundararajan et al.,
    Axiomatic attribution for deep networks, 2017, arXiv:1703.01365.
    """
    embedded, start = (_embeddings(model, variables, rows) for rows in (inputs, baseline))
    way = jax.tree.map(jnp.subtract, embedded, start)

    def score(variables: Any, embedded: tuple[Array, ...]) -> Float[Array, " O"]:
        return scores(_run(model, variables, inputs, embedded)[0])

    @jax.jit
    def slopes(variables: Any, shares: Array, rows: Array) -> Any:
        def at(share: Array, row: Array) -> Any:
            there = jax.tree.map(lambda b, w: b + share.astype(b.dtype) * w, start, way)
            value, slope = jax.value_and_grad(lambda e: score(variables, e)[row])(there)
            return value, _products(slope, embedded), _products(slope, way), _norms(slope)

        return jax.vmap(at)(shares, rows)

    shapes = jax.eval_shape(lambda v: _run(model, v, inputs, embedded)[0], variables)
    block = max(1, min(_BLOCK, _ROOM // max(leaf.size for leaf in jax.tree.leaves(shapes))))
    outputs = jax.eval_shape(score, variables, embedded).shape[0]
    of = range(outputs)[of]
    path, weights = _path()
    # Every output where the embeddings are, then one of them along the path and at its start.
    shares = np.concatenate([np.ones(outputs), path, [0.0]])
    rows = np.concatenate([np.arange(outputs), np.full(PATH_STEPS + 1, of)])
    parts = []
    for first in range(0, len(rows), block):
        # The last block is as long as the others: one program does for all.
        some = np.resize(np.arange(first, min(first + block, len(rows))), block)
        parts.append(jax.device_get(slopes(variables, shares[some], rows[some])))
        if say is not None:
            say(min(first + block, len(rows)), len(rows))
    values, products, moves, norms = jax.tree.map(lambda *a: np.concatenate(a)[: len(rows)], *parts)
    integrated = tuple(weights @ each[outputs:-1].astype(np.float64) for each in moves)
    change = float(values[of]) - float(values[-1])
    error = float(sum(each.sum() for each in integrated)) - change
    gradients, norms = (tuple(each[:outputs] for each in some) for some in (products, norms))
    return Attribution(gradients, norms, integrated, of, change, error)


def _products(slopes: tuple[Array, ...], vectors: tuple[Array, ...]) -> tuple[Array, ...]:
    """Each step's slope times a vector, summed over the channels, `[T]`."""
    return tuple(
        jnp.einsum(
            "td,td->t",
            slope[0],
            e[0],
            preferred_element_type=jnp.promote_types(e.dtype, jnp.float32),
        )
        for slope, e in zip(slopes, vectors, strict=True)
    )


def _norms(slopes: tuple[Array, ...]) -> tuple[Array, ...]:
    """The norm of each step's slope, `[T]`."""
    wide = (slope[0].astype(jnp.promote_types(slope.dtype, jnp.float32)) for slope in slopes)
    return tuple(jnp.sqrt(jnp.sum(jnp.square(slope_TD), axis=-1)) for slope_TD in wide)


def _path() -> tuple[np.ndarray, np.ndarray]:
    """Shares of the way, and weights that integrate over it."""
    nodes, weights = np.polynomial.legendre.leggauss(PATH_STEPS)
    return (nodes + 1) / 2, weights / 2


def _embeddings(model: nn.Module, variables: Any, inputs: Sequence[Array]) -> tuple[Array, ...]:
    found = jax.jit(lambda v: tuple(_run(model, v, inputs, None)[1]))(variables)
    lengths = [each.shape[:2] for each in inputs]
    if [each.shape[:2] for each in found] != lengths:
        raise NotEmbedded(
            f"the model embeds tokens {len(found)} times where it has {len(lengths)} inputs"
        )
    return found


def _run(
    model: nn.Module,
    variables: Any,
    inputs: Sequence[Array],
    embedded: tuple[Array, ...] | None,
) -> tuple[Any, list[Array]]:
    """Predictions from these embeddings, or from the model's own, and what it made itself."""
    own: list[Array] = []

    def replace(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        returned = call(*args, **kwargs)
        if context.method_name != "__call__" or not isinstance(context.module, _EMBEDDINGS):
            return returned
        of_layer = isinstance(returned, tuple)
        own.append(returned[0] if of_layer else returned)
        if embedded is None or len(own) > len(embedded):
            return returned
        given = embedded[len(own) - 1]
        return (given, *returned[1:]) if of_layer else given

    with nn.intercept_methods(replace):
        predictions, _ = model.apply(variables, *inputs)
    return predictions, own
