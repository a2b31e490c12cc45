"""The cell of the sLSTM, for `recurrence.scan_cell`: gates that are exponentials."""

import jax
import jax.numpy as jnp

from recattn_jax.kernels.products import split_gates
from recattn_jax.kernels.recurrence import Carry
from recattn_jax.shapes import Array, Float


def advance_slstm(carry: Carry, gates_BGH: Float[Array, "B 4 H"]) -> Carry:
    """One step of the sLSTM: exponential gates, made safe by a running maximum m.

    `m' = max(log sigmoid(f) + m, i)`, `i' = exp(i - m')`, `f' = exp(log sigmoid(f) + m - m')`,
    `c' = f' c + i' tanh(z)`, `n' = f' n + i'`, `h' = sigmoid(o) c' / n'`.

    A carry whose n is 0 is empty: then `m' = i` and `f' = 0`. c and n are in units of `e^m`, of
    which h is free: m' is a constant to the gradient, which is exact for h.

    Args:
      carry: `(h, c, n, m)`, each `[B, H]`.
      gates_BGH: i, f, z, o, `[B, 4, H]`.

    Returns:
      The next `(h, c, n, m)`.

    >>> advance_slstm((jnp.zeros((1, 2)),) * 4, jnp.zeros((1, 4, 2)))[2].tolist()
    [[1.0, 1.0]]

    Beck et al., xLSTM, 2024, arXiv:2405.04517.
    """
    _, cell, normalizer, _ = carry
    gates, new = _slstm_gates(carry, gates_BGH)
    cell = gates["forget"] * cell + gates["input"] * gates["candidate"]
    normalizer = gates["forget"] * normalizer + gates["input"]  # at least 1, after a step
    return gates["output"] * cell / normalizer, cell, normalizer, new


def view_slstm(carry: Carry, gates_BGH: Float[Array, "B 4 H"]) -> dict[str, Array]:
    """The gates of `advance_slstm` as they act.

    Args:
      carry: `(h, c, n, m)`, each `[B, H]`.
      gates_BGH: i, f, z, o, `[B, 4, H]`.

    Returns:
      `[B, H]` each: input, forget, candidate, output; i' and f' are in units of `e^m'`.

    >>> gates = view_slstm((jnp.zeros((1, 2)),) * 4, jnp.zeros((1, 4, 2)))
    >>> gates["output"].tolist()
    [[0.5, 0.5]]
    """
    return _slstm_gates(carry, gates_BGH)[0]


def _slstm_gates(carry: Carry, gates_BGH: Array) -> tuple[dict[str, Array], Array]:
    """The gates as they act, in units of the second, the next stabiliser."""
    _, _, normalizer, stabilizer = carry
    i, f, z, o = split_gates(gates_BGH)
    empty, kept = normalizer == 0, jax.nn.log_sigmoid(f) + stabilizer
    new = jax.lax.stop_gradient(jnp.where(empty, i, jnp.maximum(kept, i)))
    i, f = jnp.exp(i - new), jnp.exp(jnp.where(empty, -jnp.inf, kept - new))
    gates = {"input": i, "forget": f, "candidate": jnp.tanh(z), "output": jax.nn.sigmoid(o)}
    return gates, new
