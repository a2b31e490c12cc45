"""Scores: how an attention layer compares a query and a key."""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from recattn_jax import partition
from recattn_jax.kernels.precision import wide
from recattn_jax.kernels.scores import additive_scores, dot_scores
from recattn_jax.shapes import Array, Float, Heads

Declare = Callable[[str, nn.initializers.Initializer, tuple[int, ...]], Array]
"""Declares a parameter of the attention layer: `(name, initializer, shape) -> float32 array`."""

Queries = Float[Array, "B T H N"]
Keys = Float[Array, "B S G N"]
"""Transformed queries and keys, of one head size."""

Compare = Callable[[Array, Array], Array]
"""From queries `[B, T, H, K]` and keys `[B, S, G, K]` to scores `[B, H, T, S]`."""


@dataclasses.dataclass(frozen=True)
class Score:
    """How attention compares queries and keys (abstract).

    Each side is transformed on its own, so that a cache and a prepared memory hold keys whose
    transformation is done; then they are compared. A score is a frozen value: its parameters are
    declared by the attention layer and belong to it, so one instance may stand in many layers.

    >>> class Negative(Score):
    ...     def comparison(self, declare, heads):
    ...         return lambda queries, keys: -dot_scores(queries, keys)
    """

    def queries(self, declare: Declare, queries: Heads, size: int) -> Queries:
        """Transforms queries.

        Args:
          declare: declares parameters.
          queries: `[B, T, H, K]`.
          size: of one head of the transformed keys.

        Returns:
          `[B, T, H, size]`.
        """
        del declare, size
        return queries

    def keys(self, declare: Declare, keys: Float[Array, "B S G K"]) -> Keys:
        """Transforms keys.

        Args:
          declare: declares parameters.
          keys: `[B, S, G, K]`.

        Returns:
          `[B, S, G, size]`.
        """
        del declare
        return keys

    def comparison(self, declare: Declare, heads: int) -> Compare:
        """What compares transformed queries and keys.

        Args:
          declare: declares parameters.
          heads: H.

        Returns:
          A function of queries `[B, T, H, K]` and keys `[B, S, G, K]` to scores `[B, H, T, S]`.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Dot(Score):
    """The product of query and key, `e = q . k`.

    >>> Dot()
    Dot()

    Luong et al., Effective approaches to attention-based neural machine translation, 2015,
    arXiv:1508.04025.
    """

    def comparison(self, declare: Declare, heads: int) -> Compare:
        del declare, heads
        return dot_scores


@dataclasses.dataclass(frozen=True)
class ScaledDot(Score):
    """The product over the root of its length, `e = q . k / sqrt(K)`.

    Attributes:
      cap: scores are squeezed smoothly into (-cap, cap), `cap tanh(e / cap)`; None for not at all.
      normalize: whether every head of queries and keys is first divided by its root mean square
        (epsilon 1e-6) and multiplied by a learned scale, `query_scale [H, K]` and
        `key_scale [G, K]`.

    >>> ScaledDot(cap=50.0)
    ScaledDot(cap=50.0, normalize=False)

    Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762; cap: Gemma 2, 2024,
    arXiv:2408.00118; norm: Henry et al., Query-key normalization for
    transformers, 2020, arXiv:2010.04245, and Dehghani et al., 2023, arXiv:2302.05442, who take a
    layer norm.
    """

    cap: float | None = None
    normalize: bool = False

    def queries(self, declare: Declare, queries: Heads, size: int) -> Queries:
        del size
        return _rms_norm(declare, "query_scale", queries) if self.normalize else queries

    def keys(self, declare: Declare, keys: Float[Array, "B S G K"]) -> Keys:
        return _rms_norm(declare, "key_scale", keys) if self.normalize else keys

    def comparison(self, declare: Declare, heads: int) -> Compare:
        del declare, heads

        def compare(queries: Array, keys: Array) -> Array:
            return dot_scores(queries, keys, queries.shape[-1] ** -0.5, self.cap)

        return compare


@dataclasses.dataclass(frozen=True)
class General(Score):
    """A bilinear form, `e = q W k`, with a matrix for each head, `score_kernel [H, K, K']`.

    Queries and keys may differ in size. Scores start with variance 1.

    >>> General()
    General()

    Luong et al., Effective approaches to attention-based neural machine translation, 2015,
    arXiv:1508.04025.
    """

    def queries(self, declare: Declare, queries: Heads, size: int) -> Queries:
        own = queries.shape[-1]
        kernel_HKN = declare(
            "score_kernel",
            nn.initializers.normal((own * size) ** -0.5),
            (queries.shape[2], own, size),
        )
        return jnp.einsum("bthk,hkn->bthn", queries, kernel_HKN.astype(queries.dtype))

    def comparison(self, declare: Declare, heads: int) -> Compare:
        del declare, heads
        return dot_scores


@dataclasses.dataclass(frozen=True)
class Cosine(Score):
    """The cosine of the angle over a learned temperature, `e = q . k / (|q| |k| tau)`.

    Every head learns the logarithm of 1 / tau, `score_log_scale [H]`.

    Attributes:
      temperature: what tau starts at.

    >>> Cosine()
    Cosine(temperature=0.1)

    Henry et al., Query-key normalization for transformers, 2020, arXiv:2010.04245.
    """

    temperature: float = 0.1

    def queries(self, declare: Declare, queries: Heads, size: int) -> Queries:
        del size
        start = nn.initializers.constant(-math.log(self.temperature))
        log_scale_H = declare("score_log_scale", start, (queries.shape[2],))
        return (_unit(queries) * jnp.exp(log_scale_H)[None, None, :, None]).astype(queries.dtype)

    def keys(self, declare: Declare, keys: Float[Array, "B S G K"]) -> Keys:
        del declare
        return _unit(keys).astype(keys.dtype)

    def comparison(self, declare: Declare, heads: int) -> Compare:
        del declare, heads
        return dot_scores


@dataclasses.dataclass(frozen=True)
class Additive(Score):
    """A layer of tanh units over both sides, `e = v . tanh(W q + U k + b)`.

    W is `query_kernel [H, K, N]`, U is `key_kernel [G, K', N]`, b is `score_bias [H, N]` and v is
    `score_vector [H, N]`. They map what the layer's own projections give; `project=False` is the
    paper's form. Queries are compared in blocks: memory for the units does not grow with T S.

    Attributes:
      features: units N of each head.

    >>> Additive(16)
    Additive(features=16)

    Bahdanau et al., Neural machine translation by jointly learning to align and translate, 2014,
    arXiv:1409.0473.
    """

    features: int

    def queries(self, declare: Declare, queries: Heads, size: int) -> Queries:
        del size
        bias_HN = declare("score_bias", nn.initializers.zeros, (queries.shape[2], self.features))
        return (
            self._map(declare, "query_kernel", queries) + bias_HN.astype(queries.dtype)[None, None]
        )

    def keys(self, declare: Declare, keys: Float[Array, "B S G K"]) -> Keys:
        return self._map(declare, "key_kernel", keys)

    def comparison(self, declare: Declare, heads: int) -> Compare:
        start = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
        vector_HN = partition.gather(declare("score_vector", start, (heads, self.features)))

        def compare(queries: Array, keys: Array) -> Array:
            return additive_scores(queries, keys, vector_HN)

        return compare

    def _map(self, declare: Declare, name: str, x: Array) -> Array:
        start = nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=0)
        kernel_HKN = declare(name, start, (*x.shape[2:], self.features))
        return jnp.einsum("bthk,hkn->bthn", x, kernel_HKN.astype(x.dtype))


def _rms_norm(declare: Declare, name: str, x: Array) -> Array:
    """Divides every head by its root mean square; statistics are float32 or wider."""
    scale_HK = declare(name, nn.initializers.ones, x.shape[2:])
    y = x.astype(wide(x.dtype))
    y = y * jax.lax.rsqrt(jnp.mean(y**2, axis=-1, keepdims=True) + 1e-6)
    return (y * scale_HK[None, None]).astype(x.dtype)


def _unit(x: Array) -> Array:
    """Every head at length 1, float32 or wider; zeros stay zeros, with a finite gradient."""
    y = x.astype(wide(x.dtype))
    return y * jax.lax.rsqrt(jnp.sum(y**2, axis=-1, keepdims=True) + 1e-12)
