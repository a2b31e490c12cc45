"""The formulas of the recurrent cells, one step at a time; nothing is shared with the kernels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recattn_jax.layers import GRU, LSTM, RNN, SLSTM, Recurrent
from tests.oracles import assert_close, assert_gradients_close


def perturbed(layer: Recurrent, x: jax.Array) -> dict[str, jax.Array]:
    """Parameters that are not at round numbers, in the dtype of x."""
    params = jax.jit(layer.init)(jax.random.key(1), x)["params"]
    noise = np.random.default_rng(2)
    return {
        name: jnp.asarray(w + 0.3 * noise.normal(size=w.shape), x.dtype)
        for name, w in sorted(params.items())
    }


def sigmoid(x: jax.Array) -> jax.Array:
    return 1 / (1 + jnp.exp(-x))


def norm(x: jax.Array, axes: tuple[int, ...] = (1, 2)) -> jax.Array:
    """Layer norm of `[B, gates, H]` over all of its gates and units."""
    return (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True) + 1e-6)


def lstm_step(layer: LSTM, params: Any, x: jax.Array, carry: Any, recur: Any) -> Any:
    h, c = carry
    gates, recurrent = jnp.einsum("bd,dgh->bgh", x, params["input_kernel"]), recur(h)
    if layer.layer_norm:
        gates = norm(gates) * params["input_scale"][None]
        recurrent = norm(recurrent) * params["recurrent_scale"][None]
    i, f, g, o = jnp.moveaxis(gates + recurrent + params["bias"][None], 1, 0)
    p = params.get("peepholes", jnp.zeros((3, 1)))[:, None]
    i, f = sigmoid(i + p[0] * c), sigmoid(f + p[1] * c)
    c = f * c + i * jnp.tanh(g)
    o, seen = sigmoid(o + p[2] * c), c
    if layer.layer_norm:
        seen = norm(c, (1,)) * params["cell_scale"][None] + params["cell_shift"][None]
    h = o * jnp.tanh(seen)
    return (h @ params["projection_kernel"] if layer.projection else h), c


def gru_step(layer: GRU, params: Any, x: jax.Array, carry: Any, recur: Any) -> Any:
    (h,) = carry
    gates = jnp.einsum("bd,dgh->bgh", x, params["input_kernel"])
    scales = [jnp.ones((3, 1))] * 2
    normed = norm if layer.layer_norm else lambda a: a
    if layer.layer_norm:
        scales = [params["input_scale"], params["recurrent_scale"]]
    bias = params["bias"][:, None]
    rz = normed(gates[:, :2]) * scales[0][None, :2] + normed(recur(h)[:, :2]) * scales[1][None, :2]
    r, z = sigmoid(rz[:, 0] + bias[0]), sigmoid(rz[:, 1] + bias[1])
    n = normed(gates[:, 2:])[:, 0] * scales[0][2:] + bias[2]
    if layer.reset_after:
        n = n + r * (normed(recur(h)[:, 2:])[:, 0] * scales[1][2:] + bias[3])
    else:
        n = n + normed(recur(r * h)[:, 2:])[:, 0] * scales[1][2:]
    return ((1 - z) * jnp.tanh(n) + z * h,)


def slstm_step(layer: SLSTM, params: Any, x: jax.Array, carry: Any, recur: Any) -> Any:
    """Without a stabiliser, which changes no output."""
    _, c, n = carry
    gates = jnp.einsum("bd,dgh->bgh", x, params["input_kernel"]) + params["bias"][None]
    i, f, z, o = jnp.moveaxis(gates + recur(carry[0]), 1, 0)
    c, n = sigmoid(f) * c + jnp.exp(i) * jnp.tanh(z), sigmoid(f) * n + jnp.exp(i)
    return sigmoid(o) * c / n, c, n


def rnn_step(layer: RNN, params: Any, x: jax.Array, carry: Any, recur: Any) -> Any:
    gates = jnp.einsum("bd,dgh->bgh", x, params["input_kernel"]) + params["bias"][None]
    return (layer.activation((gates + recur(carry[0]))[:, 0]),)


STEPS = {RNN: rnn_step, LSTM: lstm_step, GRU: gru_step, SLSTM: slstm_step}


def formula(layer: Recurrent, params: Any, x: jax.Array, masks: Any = None) -> jax.Array:
    """The layer from a fresh state, step by step; masks: of U, h, and each array of the carry."""
    drop_weights, drop, zoned = masks or (1.0, jnp.ones((1, 1, 1)), None)
    kernel = params["recurrent_kernel"] * drop_weights
    if kernel.ndim == 4:
        kernel = jnp.stack(
            [jax.scipy.linalg.block_diag(*kernel[:, :, gate]) for gate in range(kernel.shape[2])],
            axis=1,
        )
    leaves = 3 if isinstance(layer, SLSTM) else layer.leaves
    carry = tuple(jnp.zeros((x.shape[0], width), x.dtype) for width in layer.widths[:leaves])
    hidden = []
    for t in range(x.shape[1]):
        now = drop[:, min(t, drop.shape[1] - 1)]

        def recur(h: jax.Array, now: jax.Array = now) -> jax.Array:
            return jnp.einsum("bk,kgh->bgh", h * now, kernel)

        after = STEPS[type(layer)](layer, params, x[:, t], carry, recur)
        if zoned is not None:
            after = tuple(
                m[:, t] * old + (1 - m[:, t]) * new
                for m, old, new in zip(zoned, carry, after, strict=True)
            )
        carry = after
        hidden.append(carry[0])
    return jnp.stack(hidden, axis=1)


def assert_same_function(ours: Any, wanted: Any, params: Any, x: jax.Array) -> None:
    """Outputs and all gradients, in float64."""
    for run in (ours, wanted):
        assert jax.eval_shape(run, params, x).dtype == jnp.float64

    def both(run: Any) -> Any:
        gradient = jax.grad(lambda *a: jnp.sum(jnp.sin(3.0 * run(*a))), (0, 1))
        return jax.jit(lambda *a: (run(*a), gradient(*a)))(params, x)

    (y, grads), (wanted_y, wanted_grads) = both(ours), both(wanted)
    assert_close(y, wanted_y, 1e-10)
    assert_gradients_close(grads, wanted_grads, 1e-10)
