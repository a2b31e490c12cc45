"""What is compared, of Flax's own layers."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks.peers import ModelShape, Shape


class Recurrence(nn.Module):
    """`nn.RNN` with a carry of the cell's dtype: its own is float32, which scan refuses."""

    cell: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        carry = self.cell.initialize_carry(jax.random.key(0), x[:, 0].shape)
        carry = jax.tree.map(lambda part: part.astype(self.cell.dtype), carry)
        return nn.RNN(self.cell)(x, initial_carry=carry)


class FullAttention(nn.Module):
    """Causal self-attention, of all steps before or of a window of them, by a mask."""

    heads: int
    window: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        attention = nn.MultiHeadDotProductAttention(
            self.heads, use_bias=False, dtype=self.dtype, name="attention"
        )
        return attention(x, mask=band(x.shape[1], self.window))


class ChunkedAttention(nn.Module):
    """Causal self-attention inside chunks, which become rows of the batch."""

    heads: int
    size: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        chunks = x.reshape((-1, min(self.size, x.shape[1]), x.shape[-1]))
        return FullAttention(self.heads, 0, self.dtype)(chunks).reshape(x.shape)


def band(steps: int, window: int) -> jax.Array:
    """Whether t sees s: not later, and less than a window before; `[1, 1, T, S]`."""
    before = jnp.arange(steps)[:, None] - jnp.arange(steps)[None]
    seen = (before >= 0) & ((before < window) if window else True)
    return seen[None, None]


class RGLRU(nn.Module):
    """The linear recurrence of Griffin, by `jax.lax.associative_scan`."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        size = width // self.heads
        init = nn.initializers.lecun_normal(in_axis=1, out_axis=3, batch_axis=(0, 2))
        kernel = self.param("gate_kernel", init, (self.heads, size, 2, size))
        bias = self.param("gate_bias", nn.initializers.zeros, (2, self.heads, size))
        decay = self.param("decay", nn.initializers.constant(-5.0), (width,))
        gates: jax.Array = jnp.einsum(
            "bthk,hkgj->gbthj",
            x.reshape((*x.shape[:2], self.heads, size)),
            kernel.astype(self.dtype),
            preferred_element_type=jnp.float32,
        )
        r, i = nn.sigmoid(gates + bias[:, None, None]).reshape((2, *x.shape))
        log_decay = -8.0 * nn.softplus(decay)[None, None] * r
        room = jnp.maximum(-jnp.expm1(2.0 * log_decay), 1e-12)

        def join(a: Any, b: Any) -> Any:
            return a[0] * b[0], a[1] * b[0] + b[1]

        terms = (jnp.exp(log_decay), jnp.sqrt(room) * i * x)
        return jax.lax.associative_scan(join, terms, axis=1)[1].astype(x.dtype)


def layers(shape: Shape, dtype: Any) -> dict[str, Callable[[], nn.Module]]:
    """By the names that `layers` compares."""
    return {
        "LSTM": lambda: Recurrence(nn.OptimizedLSTMCell(shape.units, dtype=dtype)),
        "GRU": lambda: Recurrence(nn.GRUCell(shape.units, dtype=dtype)),
        "RNN": lambda: Recurrence(nn.SimpleCell(shape.units, dtype=dtype)),
        "RG-LRU": lambda: RGLRU(shape.units, dtype),
        "attention": lambda: FullAttention(shape.units, 0, dtype),
        "windowed attention": lambda: FullAttention(shape.units, shape.window, dtype),
        "chunked attention": lambda: ChunkedAttention(shape.units, shape.window, dtype),
    }


class S3(nn.Module):
    """An LSTM beside self-attention between an embedding and a readout."""

    shape: ModelShape

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        shape = self.shape
        x = nn.Embed(shape.vocabulary, shape.width)(tokens)
        hidden: Any = nn.RNN(nn.OptimizedLSTMCell(shape.width))(x)
        found = FullAttention(shape.heads, shape.window, jnp.float32)(x)
        return nn.Dense(shape.vocabulary)(hidden + found)


class LocalAttention(nn.Module):
    """Attention to a window with rotary positions and one head of keys and values."""

    heads: int
    window: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = x.shape[-1] // self.heads

        def project(heads: int) -> jax.Array:
            return nn.DenseGeneral((heads, size), use_bias=False)(x)

        queries, keys, values = rotate(project(self.heads)), rotate(project(1)), project(1)
        keys, values = (jnp.repeat(part, self.heads, axis=2) for part in (keys, values))
        mask = band(x.shape[1], self.window)
        mixed = nn.dot_product_attention(queries, keys, values, mask=mask)
        return nn.DenseGeneral(x.shape[-1], axis=(-2, -1), use_bias=False)(mixed)


def rotate(x: jax.Array) -> jax.Array:
    """Rotary positions, `[B, T, H, K]`."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] * 10_000.0 ** (-jnp.arange(half) / half)[None]
    cos, sin = jnp.cos(angles)[None, :, None], jnp.sin(angles)[None, :, None]
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


class GriffinBlock(nn.Module):
    """A mixer and a gated MLP, each residual behind a norm."""

    shape: ModelShape
    attends: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = self.shape
        normed = nn.RMSNorm()(x)
        if self.attends:
            x = x + LocalAttention(shape.heads, shape.window)(normed)
        else:
            x = x + self.recurrence(normed)
        normed = nn.RMSNorm()(x)
        hidden = nn.silu(nn.Dense(shape.hidden, use_bias=False)(normed))
        hidden = hidden * nn.Dense(shape.hidden, use_bias=False)(normed)
        return x + nn.Dense(shape.width, use_bias=False)(hidden)

    def recurrence(self, x: jax.Array) -> jax.Array:
        """A gate beside a short convolution and the linear recurrence."""
        width = self.shape.width
        gate = nn.gelu(nn.Dense(width)(x))
        convolution = nn.Conv(width, (4,), padding="CAUSAL", feature_group_count=width)
        hidden = RGLRU(self.shape.heads, jnp.float32)(convolution(nn.Dense(width)(x)))
        return nn.Dense(width)(gate * hidden)


class Griffin(nn.Module):
    """Two blocks of recurrence, one of local attention, over and over."""

    shape: ModelShape

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        shape = self.shape
        x = nn.Embed(shape.vocabulary, shape.width)(tokens)
        for block in range(shape.depth):
            x = GriffinBlock(shape, attends=block % 3 == 2)(x)
        return nn.Dense(shape.vocabulary)(nn.RMSNorm()(x))


MODELS: dict[str, Callable[[ModelShape], nn.Module]] = {"S3": S3, "Griffin": Griffin}


def train_step(
    model: nn.Module, tokens: jax.Array, targets: jax.Array, rate: float
) -> tuple[Callable[[], jax.Array], int]:
    """A step of Adam, which goes on from the last one's parameters and gives the loss.

    Args:
      model: from tokens to logits.
      tokens: `[B, T]`.
      targets: `[B, T]`.
      rate: learning rate.

    Returns:
      The step, and the number of parameters.
    """
    params = jax.jit(model.init)(jax.random.key(0), tokens[:1])
    optimizer = optax.adam(rate)

    def loss(params: Any) -> jax.Array:
        logits = model.apply(params, tokens)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    def update(params: Any, state: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    compiled = jax.jit(update, donate_argnums=(0, 1))
    now = [params, optimizer.init(params)]

    def step() -> jax.Array:
        now[0], now[1], value = compiled(*now)
        return value

    return step, sum(leaf.size for leaf in jax.tree.leaves(params))
