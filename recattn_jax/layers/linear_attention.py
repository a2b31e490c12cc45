"""Linear attention: recurrent layers whose state is a matrix for every head.

A new layer says how it maps queries and keys, how fast it forgets and what it divides by; the
template brings the projections, the chunks, resets between documents, padding and streaming.
"""

from functools import partial
from typing import final

import flax.linen as nn
import jax
import jax.numpy as jnp

from recattn_jax.kernels.linear_attention import Answers, Carry, linear_attention, trace_norms
from recattn_jax.kernels.precision import wide
from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.layers.dense import dense, dense_general
from recattn_jax.layers.recurrent_state import RecurrentState, resume
from recattn_jax.shapes import Activations, Array, DTypeLike, Float, Heads, State

Gate = Float[Array, "B T H"]


class MatrixRecurrent(SequenceLayer):
    """The template of linear attention (abstract).

    `S_t = f_t S_{t-1} + i_t k_t v_t^T`, `n_t = f_t n_{t-1} + i_t k_t`, and the output is made of
    `q_t^T S_t` and `q_t^T n_t` for every head.

    Parameters: `query/kernel`, `key/kernel`, `value/kernel` `[D, H, K]` and `out/kernel [H, K, D]`,
    with K = D / H. The state, gates and sums are float32, or float64 where x is.

    With `mutable=["intermediates"]` the `gates` come out too, `forget`, f, and `input`, i, of a
    layer that has them, and the `norms` of S and of n after each step: arrays `[B, T, H]`.

    Attributes:
      heads: H; the width of x must divide by it.
      chunk: steps that are worked on as one, in products of matrices; it changes no result.
    """

    heads: int
    chunk: int = 64

    def map_features(self, queries: Heads, keys: Heads) -> tuple[Heads, Heads]:
        """What queries and keys are mapped to."""
        raise NotImplementedError

    def log_gates(self, x: Activations) -> tuple[Gate | None, Gate | None]:
        """Logarithms of f, at most 0, and of i; None for 0 everywhere."""
        raise NotImplementedError

    def combine(self, answers: Answers, x: Activations) -> Heads:
        """The output of every head, from the answers of its state."""
        raise NotImplementedError

    @final
    @property
    def streams(self) -> bool:
        """Always."""
        return True

    @final
    @nn.compact
    def forward(
        self, x: Activations, state: State | None, context: Context
    ) -> tuple[Activations, RecurrentState]:
        """Runs the heads over x; see the template."""
        batch, _, width = x.shape
        name = type(self).__name__
        if self.heads < 1 or width % self.heads:
            raise ValueError(
                f"{name}: heads={self.heads} must divide the width of x, which is {width}"
            )
        if self.chunk < 1:
            raise ValueError(f"{name}: chunk={self.chunk} must be at least 1")
        size = width // self.heads
        dtype = wide(x.dtype)
        fresh = Carry(
            jnp.zeros((batch, self.heads, size, size), dtype),
            jnp.zeros((batch, self.heads, size), dtype),
            jnp.zeros((batch, self.heads), dtype),
        )
        carry, steps = resume(self, fresh, state, context)

        linear = partial(dense_general, use_bias=False, dtype=x.dtype)
        queries, keys, values = (
            linear((self.heads, size), name=part)(x) for part in ("query", "key", "value")
        )
        queries, keys = self.map_features(queries, keys)
        log_decay, log_input = self.log_gates(x)
        told = (keys, values, log_decay, log_input, Carry(*carry), steps.starts, steps.keep)
        answers, carry = linear_attention(queries, *told, self.chunk)
        if self.is_mutable_collection("intermediates"):
            self.sow("intermediates", "norms", trace_norms(*told))
            named = {"forget": log_decay, "input": log_input}
            gates = {name: jnp.exp(log) for name, log in named.items() if log is not None}
            self.sow("intermediates", "gates", gates)
        y = linear(width, axis=(-2, -1), name="out")(self.combine(answers, x).astype(x.dtype))
        return y, RecurrentState(carry, steps.segment)


class LinearAttention(MatrixRecurrent):
    """Causal attention with a kernel for a softmax: a state of fixed size, nothing forgotten.

    `y_t = concat_h(sum_s phi(q_t) . phi(k_s) v_s / sum_s phi(q_t) . phi(k_s)) W_o`, over the steps
    s of the document up to t, with `phi(x) = elu(x) + 1`.

    Attributes:
      heads: H; the width of x must divide by it.
      chunk: steps that are worked on as one, in products of matrices; it changes no result.

    Call: `[B, T, D] -> [B, T, D]`; state: `RecurrentState(carry=(S, n, m), segment)`, see
    `kernels.linear_attention.Carry`.

    Raises:
      ValueError: if D does not divide by `heads`, or `chunk` is less than 1.

    >>> layer = LinearAttention(heads=2)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 8)))[0]

    Katharopoulos et al., Transformers are RNNs, 2020, arXiv:2006.16236.
    """

    def map_features(self, queries: Heads, keys: Heads) -> tuple[Heads, Heads]:
        return jax.nn.elu(queries) + 1, jax.nn.elu(keys) + 1

    def log_gates(self, x: Activations) -> tuple[None, None]:
        del x
        return None, None

    def combine(self, answers: Answers, x: Activations) -> Heads:
        del x
        # All terms are positive: only saturated features, or none seen, come near the bound.
        total = jnp.maximum(answers.denominator, 1e-6)
        return answers.numerator / total[..., None]


class MLSTM(MatrixRecurrent):
    """The LSTM with a matrix for a cell and exponential input gates, of xLSTM.

    `S_t = f_t S_{t-1} + i_t k_t v_t^T`, `n_t = f_t n_{t-1} + i_t k_t`, with
    `f = sigmoid(x_t w_f + b_f)`, `i = exp(x_t w_i + b_i)` for every head and keys divided by
    `sqrt(K)`; `h_t = q_t^T S_t / max(|q_t^T n_t|, 1)`,
    `y_t = concat_h(sigmoid(x_t W_g + b_g) * norm(h_t)) W_o`. The norm is a layer norm of each head.

    Parameters beside the template's: `input_gate` and `forget_gate`, `kernel [D, H]` and
    `bias [H]`; `output_gate`, `kernel [D, H, K]` and `bias [H, K]`; `norm/scale [H, K]`.
    Input and forget gates start without looking at x; forget biases are spread from 3 to 6.

    Attributes:
      heads: H; the width of x must divide by it.
      chunk: steps that are worked on as one, in products of matrices; it changes no result.

    Call: `[B, T, D] -> [B, T, D]`; state: `RecurrentState(carry=(S, n, m), segment)`, see
    `kernels.linear_attention.Carry`.

    Raises:
      ValueError: if D does not divide by `heads`, or `chunk` is less than 1.

    >>> layer = MLSTM(heads=2)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 8)))[0]

    Beck et al., xLSTM, 2024, arXiv:2405.04517.
    """

    def map_features(self, queries: Heads, keys: Heads) -> tuple[Heads, Heads]:
        return queries, keys / keys.shape[-1] ** 0.5

    def log_gates(self, x: Activations) -> tuple[Gate, Gate]:
        def gate(name: str, bias_init: nn.initializers.Initializer) -> Gate:
            return dense(
                self.heads,
                dtype=wide(x.dtype),
                kernel_init=nn.initializers.zeros,
                bias_init=bias_init,
                name=name,
            )(x)

        log_input = gate("input_gate", nn.initializers.normal(0.1))
        return jax.nn.log_sigmoid(gate("forget_gate", _spread_biases)), log_input

    def combine(self, answers: Answers, x: Activations) -> Heads:
        # Numerator and denominator are scaled by exp(-m), and so is the bound of 1. Beyond m = 30
        # it only keeps a quotient of zeros from being NaN, and its square within float32.
        bound = jnp.exp(-jnp.minimum(answers.stabilizer, 30.0))
        hidden = answers.numerator / jnp.maximum(jnp.abs(answers.denominator), bound)[..., None]
        norm = nn.LayerNorm(
            reduction_axes=-1,
            feature_axes=(-2, -1),
            use_bias=False,
            use_fast_variance=False,
            dtype=hidden.dtype,
            name="norm",
        )
        shape = hidden.shape[-2:]
        gate = dense_general(shape, dtype=x.dtype, name="output_gate")(x)
        return norm(hidden) * jax.nn.sigmoid(gate.astype(hidden.dtype))


def _spread_biases(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """From 3 to 6: heads that forget within some 20 steps, and heads that take 400."""
    del key
    return jnp.linspace(3.0, 6.0, shape[0], dtype=dtype)
