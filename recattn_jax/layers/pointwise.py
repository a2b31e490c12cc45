"""Layers that treat every step by itself; they stream and keep no state."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, final

import flax.linen as nn
import jax
import jax.numpy as jnp

from recattn_jax import partition
from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.layers.dense import dense
from recattn_jax.shapes import Activations, Array, DTypeLike, Float, Int, State, Tokens


class Pointwise(SequenceLayer):
    """The template of layers without a state (abstract): `y_t = f(x_t)`.

    >>> class Double(Pointwise):
    ...     def map(self, x):
    ...         return 2 * x
    >>> Double().apply({}, jnp.ones((1, 1, 2)))[0].tolist()
    [[[2.0, 2.0]]]
    """

    def map(self, x: Array) -> Array:
        """The function of every step, `[B, T, D] -> [B, T, E]`."""
        raise NotImplementedError

    @final
    @property
    def streams(self) -> bool:
        """Always."""
        return True

    @final
    @nn.compact
    def forward(self, x: Array, state: State | None, context: Context) -> tuple[Array, State]:
        """Maps every step; there is no state."""
        del state, context
        return self.map(x), ()


class Identity(Pointwise):
    """`y = x`.

    Call: `[B, T, D] -> [B, T, D]`.

    >>> y, state = Identity().apply({}, jnp.ones((2, 5, 3)))
    >>> y.shape
    (2, 5, 3)
    """

    def map(self, x: Activations) -> Activations:
        return x


class Slice(Pointwise):
    """Some of the channels, `y = x[start:stop]`, as Python counts them.

    Attributes:
      start: the first channel; None for the first of all.
      stop: the channel after the last; None for the end. Negative ones count from the end.

    Call: `[B, T, D] -> [B, T, E]`.

    Raises:
      ValueError: if no channel is left.

    >>> y, state = Slice(-2).apply({}, jnp.ones((2, 5, 3)))
    >>> y.shape
    (2, 5, 2)
    """

    start: int | None = None
    stop: int | None = None

    def map(self, x: Activations) -> Float[Array, "B T E"]:
        y = x[..., self.start : self.stop]
        if not y.shape[-1]:
            raise ValueError(
                f"Slice: nothing of {x.shape[-1]} channels lies in start={self.start}, "
                f"stop={self.stop}"
            )
        return y


class Activation(Pointwise):
    """A function of every entry, `y = f(x)`.

    Attributes:
      function: f, such as `jnp.tanh` or `nn.gelu`, of `[B, T, D]`.

    Call: `[B, T, D] -> [B, T, D]`.

    >>> y, state = Activation(jnp.tanh).apply({}, jnp.ones((2, 5, 3)))
    >>> y.shape
    (2, 5, 3)
    """

    function: Callable[[Array], Array]

    def map(self, x: Activations) -> Activations:
        return self.function(x)


class Dense(Pointwise):
    """A linear map of every step, `y = x W + b`.

    Attributes:
      features: output width E.
      use_bias: whether there is a b.

    Call: `[B, T, D] -> [B, T, E]`.

    >>> y, state = Dense(4).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]
    >>> y.shape
    (2, 5, 4)
    """

    features: int
    use_bias: bool = True

    def map(self, x: Activations) -> Float[Array, "B T E"]:
        return dense(self.features, use_bias=self.use_bias, dtype=x.dtype, name="dense")(x)


class GatedMLP(Pointwise):
    """A gated feed-forward block (SwiGLU), `y = (silu(x W_g) * (x W_u)) W_o`.

    Attributes:
      hidden: width of the hidden layer.

    Call: `[B, T, D] -> [B, T, D]`.

    >>> y, state = GatedMLP(8).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]
    >>> y.shape
    (2, 5, 3)

    Shazeer, GLU variants improve transformer, 2020, arXiv:2002.05202.
    """

    hidden: int

    def map(self, x: Activations) -> Activations:
        linear = partial(dense, use_bias=False, dtype=x.dtype)
        gate, up = (linear(self.hidden, name=name)(x) for name in ("gate", "up"))
        return linear(x.shape[-1], name="down")(nn.silu(gate) * up)


class Boom(Pointwise):
    """A feed-forward layer without a matrix on the way back, `y = sum_i gelu(x W_i + b_i)`.

    It widens each step to `hidden = n D` and adds up the n pieces of width D.

    Attributes:
      hidden: width of the hidden layer, a multiple of D.

    Call: `[B, T, D] -> [B, T, D]`.

    Raises:
      ValueError: if D does not divide `hidden`.

    >>> y, state = Boom(6).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]
    >>> y.shape
    (2, 5, 3)

    Merity, Single headed attention RNN: stop thinking with your head, 2019, arXiv:1911.11423.
    """

    hidden: int

    def map(self, x: Activations) -> Activations:
        width = x.shape[-1]
        if self.hidden < width or self.hidden % width:
            raise ValueError(
                f"Boom: hidden={self.hidden} must be a multiple of the width of x, which is {width}"
            )
        hidden = nn.gelu(dense(self.hidden, dtype=x.dtype, name="up")(x))
        return jnp.sum(hidden.reshape((*x.shape[:-1], self.hidden // width, width)), axis=-2)


class RMSNorm(Pointwise):
    """Normalises every step by its root mean square, `y = g x / sqrt(mean(x^2) + epsilon)`.

    Attributes:
      epsilon: added to the mean square; statistics are float32.

    Call: `[B, T, D] -> [B, T, D]`.

    >>> y, state = RMSNorm().init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]
    >>> y.shape
    (2, 5, 3)

    Zhang and Sennrich, Root mean square layer normalization, 2019, arXiv:1910.07467.
    """

    epsilon: float = 1e-6

    def map(self, x: Activations) -> Activations:
        return nn.RMSNorm(epsilon=self.epsilon, dtype=x.dtype, name="norm")(x)


class LayerNorm(Pointwise):
    """Normalises every step to mean 0 and variance 1, `y = g (x - mean) / std + b`.

    Attributes:
      epsilon: added to the variance; statistics are float32.

    Call: `[B, T, D] -> [B, T, D]`.

    >>> y, state = LayerNorm().init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]
    >>> y.shape
    (2, 5, 3)

    Ba et al., Layer normalization, 2016, arXiv:1607.06450.
    """

    epsilon: float = 1e-6

    def map(self, x: Activations) -> Activations:
        # The fast variance, E[x^2] - E[x]^2, cancels where the mean is large.
        norm = nn.LayerNorm(
            epsilon=self.epsilon, dtype=x.dtype, use_fast_variance=False, name="norm"
        )
        return norm(x)


class Dropout(Pointwise):
    """Zeroes entries with probability `rate` and scales the others by `1 / (1 - rate)`.

    Drawn anew for every entry where the rng stream `dropout` is given; the identity without it.

    Attributes:
      rate: probability, from 0 up to but not including 1.

    Call: `[B, T, D] -> [B, T, D]`.

    Raises:
      ValueError: if the rate is out of range.

    >>> y, _ = Dropout(0.5).apply({}, jnp.ones((2, 5, 3)), rngs={"dropout": jax.random.key(0)})
    >>> y.shape
    (2, 5, 3)

    Srivastava et al., Dropout, 2014.
    """

    rate: float

    def map(self, x: Activations) -> Activations:
        if not 0.0 <= self.rate < 1.0:
            raise ValueError(f"Dropout: rate={self.rate} must be at least 0 and less than 1")
        if self.rate == 0.0 or not self.has_rng("dropout"):
            return x
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, x.shape)
        return jnp.where(kept, x / (1.0 - self.rate), jnp.zeros((), x.dtype)).astype(x.dtype)


class Embed(Pointwise):
    """Looks up a vector for every token, `y_t = E[x_t]`.

    Attributes:
      vocabulary: number of tokens V.
      features: width D.
      dtype: the dtype of the activations from here on.
      stddev: of the entries at first; optimizers whose steps have one size turn small vectors
        faster, as rare words want it.

    Call: tokens `[B, T] -> [B, T, D]`.

    >>> y, _ = Embed(10, 4).init_with_output(jax.random.key(0), jnp.ones((2, 5), int))[0]
    >>> y.shape
    (2, 5, 4)
    """

    accepts: ClassVar[tuple[Any, ...]] = (jnp.integer,)

    vocabulary: int
    features: int
    dtype: DTypeLike = jnp.float32
    stddev: float = 1.0

    def setup(self) -> None:
        self.embed = nn.Embed(
            self.vocabulary,
            self.features,
            embedding_init=nn.initializers.normal(self.stddev),
        )

    def map(self, x: Tokens) -> Float[Array, "B T D"]:
        # Narrow only after the look-up: the gradient of a vector is a sum over all steps that
        # looked it up, one after the other, and in bfloat16 it would stop growing.
        return jnp.take(self.table(), x, axis=0).astype(self.dtype)

    def table(self) -> Float[Array, "V D"]:
        """The vectors of all tokens, float32, for tied readouts too."""
        # Rows looked up in parts of their vectors would travel, which are more than the table.
        table_VD: Array = self.embed.embedding
        return partition.gather(table_VD, split=-2)


class EmbedBag(Pointwise):
    """Sums the vectors of several symbols a step, `y_t = sum_k E[x_tk]`; an id below 0 is nothing.

    So a word that training never showed has a vector from its parts and its shape. It is a linear
    map of which symbols are there, and its table a `kernel`, on which weight decay pulls.

    Attributes:
      vocabulary: number of symbols V.
      features: width D.
      stddev: of the entries at first.
      unknown: probability that a step loses all symbols but its first `kept`, drawn anew for each
        step where the rng stream `dropout` is given: what unknown words look like.
      kept: how many symbols of a step are never lost that way.

    Call: ids `[B, T, K] -> [B, T, D]`.

    Raises:
      ValueError: if the probability is out of range.

    >>> ids = jnp.array([[[0, 3, -1], [2, -1, -1]]])
    >>> EmbedBag(10, 4, stddev=0.1).init_with_output(jax.random.key(0), ids)[0][0].shape
    (1, 2, 4)

    Bojanowski et al., Enriching word vectors with subword information, 2016, arXiv:1607.04606.
    """

    accepts: ClassVar[tuple[Any, ...]] = (jnp.integer,)
    token_ranks: ClassVar[tuple[int, ...]] = (3,)

    vocabulary: int
    features: int
    stddev: float
    unknown: float = 0.0
    kept: int = 0

    def map(self, x: Int[Array, "B T K"]) -> Float[Array, "B T D"]:
        if not 0.0 <= self.unknown < 1.0:
            raise ValueError(f"EmbedBag: unknown={self.unknown} must be at least 0, less than 1")
        there_BTK = x >= 0
        if self.unknown and self.has_rng("dropout"):
            known_BT = jax.random.bernoulli(
                self.make_rng("dropout"), 1.0 - self.unknown, x.shape[:2]
            )
            there_BTK &= known_BT[..., None] | (jnp.arange(x.shape[2]) < self.kept)[None, None]
        table_VD = self.param(
            "kernel",
            nn.initializers.normal(self.stddev),
            (self.vocabulary, self.features),
            jnp.float32,
        )
        vectors_BTKD = table_VD[jnp.maximum(x, 0)]
        return jnp.sum(jnp.where(there_BTK[..., None], vectors_BTKD, 0.0), axis=2)
