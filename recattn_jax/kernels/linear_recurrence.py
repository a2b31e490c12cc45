"""Linear recurrences over whole sequences, elementwise: pure functions on arrays."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from recattn_jax.kernels import backends
from recattn_jax.kernels.precision import wide
from recattn_jax.shapes import Array, Float, Mask

Pair = tuple[Array, Array]

UNROLL = 8
"""Steps of the sequential form in one turn of its loop; more only compile for longer."""


def linear_recurrence(
    decay: Float[Array, "B T H"],
    inputs: Float[Array, "B T H"],
    carry: Float[Array, "B H"],
    starts: Mask | None = None,
    keep: Mask | None = None,
    implementation: str | None = None,
) -> tuple[Float[Array, "B T H"], Float[Array, "B H"]]:
    """Runs a linear recurrence over whole sequences.

    `h_t = a_t h_{t-1} + b_t`, with `a_t = 0` where a document starts, and `a_t = 1`, `b_t = 0` at
    padding. Products of decays are taken as they are, never as sums of logarithms: a document
    leaves no rounding error in the next, and a decay of 0 is no special case.

    All forms keep `a` and `h`, two arrays `[B, T, H]`, for the backward pass, which is the same
    recurrence run back in time. `jax.jvp` through it raises; `grad`, `vmap` and `checkpoint` work.

    Args:
      decay: `a`, `[B, T, H]`, usually from 0 to 1; what stands at starts and padding is not used.
      inputs: `b`, `[B, T, H]`, finite.
      carry: `[B, H]`, h before the first step.
      starts: `[B, T]`, true where the carry is set to zeros before the step.
      keep: `[B, T]`, false where the step is padding: h stays as it is.
      implementation: "associative" is a parallel scan, of about `2 log2(T)` passes that are each
        parallel over time and some three times the memory while it runs; "sequential" is a loop
        over time, of the least work and memory; "pallas" is that loop as one kernel, for a GPU or a
        TPU, which reads and writes each step once. None is sequential on a CPU, which has no use
        for more parallelism than B H, and associative elsewhere: "pallas" was not measured yet.

    Returns:
      `h` `[B, T, H]` (at padding, that of the step before) and its last step `[B, H]`, in the dtype
      of the arguments, but float32 at least.

    Raises:
      ValueError: if there is no such implementation, or "pallas" is asked for on a CPU, or on a TPU
        for float64.

    >>> decay, inputs = jnp.full((1, 4, 1), 0.5), jnp.ones((1, 4, 1))
    >>> linear_recurrence(decay, inputs, jnp.zeros((1, 1)))[0].ravel().tolist()
    [1.0, 1.5, 1.75, 1.875]

    Blelloch, Prefix sums and their applications, 1990; Martin and Cundy, Parallelizing linear
    recurrent neural nets over sequence length, 2018, arXiv:1709.04057.
    """
    backends.check_implementation(
        "linear_recurrence", implementation, tuple(_FORMS), {"pallas": ("gpu", "tpu")}
    )
    if implementation is None:
        implementation = "sequential" if backends.backend() == "cpu" else "associative"
    dtype = wide(jnp.result_type(decay, inputs))
    decay, inputs, carry = (x.astype(dtype) for x in (decay, inputs, carry))
    if starts is not None:
        decay = jnp.where(starts[:, :, None], 0, decay)
    if keep is not None:
        decay = jnp.where(keep[:, :, None], decay, 1)
        inputs = jnp.where(keep[:, :, None], inputs, 0)
    # The carry enters as if it were part of the first input: the rest starts from nothing.
    inputs = inputs.at[:, 0].add(decay[:, 0] * carry)
    if inputs.shape[1] == 1:
        return inputs, inputs[:, 0]
    hidden_BTH = _solve(implementation, False, decay, inputs)
    return hidden_BTH, hidden_BTH[:, -1]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _solve(implementation: str, reverse: bool, decay: Array, inputs: Array) -> Array:
    """`h_t = a_t h_{t-1} + b_t` from zeros, or `h_t = a_t h_{t+1} + b_t`; the first a is unused."""
    return _FORMS[implementation](reverse, decay, inputs)


def _solve_forward(
    implementation: str, reverse: bool, decay: Array, inputs: Array
) -> tuple[Array, Pair]:
    hidden = _solve(implementation, reverse, decay, inputs)
    return hidden, (decay, hidden)


def _solve_backward(
    implementation: str,
    reverse: bool,
    residuals: Pair,
    d_hidden: Array,
) -> Pair:
    """The cotangents obey the recurrence with the decays of the steps that they come back from."""
    decay, hidden = residuals
    d_inputs = _solve(implementation, not reverse, _shift(decay, not reverse), d_hidden)
    return d_inputs * _shift(hidden, reverse), d_inputs


_solve.defvjp(_solve_forward, _solve_backward)


def _shift(x: Array, reverse: bool) -> Array:
    """What each step of a scan had before it, `x_{t-1}`, or `x_{t+1}`; zeros at the first."""
    zeros = jnp.zeros_like(x[:, :1])
    pair = (x[:, 1:], zeros) if reverse else (zeros, x[:, :-1])
    return jnp.concatenate(pair, axis=1)


def _associative(reverse: bool, decay: Array, inputs: Array) -> Array:
    return jax.lax.associative_scan(_compose, (decay, inputs), reverse=reverse, axis=1)[1]


def _compose(first: Pair, second: Pair) -> Pair:
    """Two steps `h -> a h + b` as one: a start in the second, a = 0, wipes out all of the first."""
    return first[0] * second[0], second[0] * first[1] + second[1]


def _sequential(reverse: bool, decay: Array, inputs: Array) -> Array:
    steps = jnp.swapaxes(decay, 0, 1), jnp.swapaxes(inputs, 0, 1)
    zeros_BH = jnp.zeros_like(inputs[:, 0])
    _, hidden_TBH = jax.lax.scan(_step, zeros_BH, steps, reverse=reverse, unroll=UNROLL)
    return jnp.swapaxes(hidden_TBH, 0, 1)


def _step(hidden: Array, step: Pair) -> Pair:
    hidden = step[0] * hidden + step[1]
    return hidden, hidden


def _pallas(reverse: bool, decay: Array, inputs: Array) -> Array:
    # Imported where they are asked for: who does without them need not wait for Pallas.
    if backends.backend() == "tpu":
        from recattn_jax.kernels.tpu.linear_recurrence import solve
    else:
        from recattn_jax.kernels.gpu.linear_recurrence import solve
    return solve(reverse, decay, inputs)


_FORMS: dict[str, Callable[[bool, Array, Array], Array]] = {
    "associative": _associative,
    "sequential": _sequential,
    "pallas": _pallas,
}
