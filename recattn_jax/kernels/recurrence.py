"""Recurrences over whole sequences: pure functions on arrays.

A cell is three functions without parameters of their own,

    projected = project(weights, x)                   parallel over time
    gates     = merge(projected, h @ U)               elementwise and linear; mostly `operator.add`
    carry     = advance(carry, gates, *step_weights)  elementwise, but for products with weights

and `scan_cell` brings the rest: the scan, resets, padding, blocks of time and one backward pass
that serves every cell. The first entry of a carry is the hidden state h, which is also the output.
The cells themselves stand in `kernels.cells`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recattn_jax.kernels import backends
from recattn_jax.kernels.precision import wide
from recattn_jax.kernels.products import kernel_gradient, recurrent_products, units_of
from recattn_jax.kernels.pullbacks import pullback, read, write
from recattn_jax.shapes import Array, Float, Mask

Carry = tuple[Array, ...]
Weights = Any

BLOCK = 16
"""Steps whose gates are projected in one product: few enough that they stay in a CPU's cache."""
CHAINS = 2
"""Chains that a CPU's batch is cut into: one a core of the two that this was measured on."""
OWN_CACHE = 2**20
"""Bytes of a recurrent kernel up to which the chains pay."""
LEAST_ROWS = 8
"""Rows of a chain."""


class Cell(NamedTuple):
    """What tells one recurrent cell from another; see the module's docstring.

    Its functions should be module-level ones, or come from a cached factory: compiled programs are
    found again by their identity. What `project` takes, and gates, may be any pytree of arrays.

    Attributes:
      project: from `(weights, x)` to what the inputs give to the gates, of all steps at once.
      merge: from `(projected, h U)` to the gates, elementwise and linear.
      advance: from `(carry, gates, *step_weights)` to the next carry.
      view: of the arguments of `advance`, the gates as they act, by name, for whoever looks inside;
        None of a cell without.

    >>> from recattn_jax.kernels.products import affine
    >>> cell = Cell(affine, jnp.add, lambda carry, gates: (jnp.tanh(gates[:, 0]),))
    """

    project: Callable[[Weights, Any], Any]
    merge: Callable[[Any, Array], Any]
    advance: Callable[..., Carry]
    view: Callable[..., dict[str, Array]] | None = None
    """Of the arguments of `advance`: its gates as they act, by name, for whoever looks inside."""


def scan_cell(
    cell: Cell,
    weights: Weights,
    recurrent_kernel: Float[Array, "*N _ G H"],
    x: Any,
    carry: Carry,
    starts: Mask | None = None,
    keep: Mask | None = None,
    block: int | None = None,
    *,
    step_weights: tuple[Any, ...] = (),
    drop: Float[Array, "B _ _"] | None = None,
    remat_every: int | None = None,
) -> tuple[Float[Array, "B T _"], Carry]:
    """Runs a cell over whole sequences.

    `gates_t = merge(project(weights, x_t), h_{t-1} U)`,
    `carry_t = advance(carry_{t-1}, gates_t, *step_weights)`.

    The backward scan carries only cotangents of the carry and the gates; gradients of weights and
    inputs are large products outside it. `jax.jvp` through it raises; `grad`, `vmap` and
    `checkpoint` work.

    Args:
      cell: the cell's three functions.
      weights: what `cell.project` takes; cast to x's dtype by the caller, as are the next.
      recurrent_kernel: `[P, G, H]`, P the width of h; or `[N, K, G, K]` for N heads of K units that
        do not see each other.
      x: inputs `[B, T, D]`, or a pytree of arrays `[B, T, ...]`, as `cell.project` takes them.
      carry: arrays `[B, ...]`, float32 or wider, the hidden state `[B, P]` first.
      starts: `[B, T]`, true where the carry is set to zeros before the step.
      keep: `[B, T]`, false where the step is padding: the carry stays as it is.
      block: steps projected at a time; None is `BLOCK`.
      step_weights: what `cell.advance` takes beside the carry and the gates.
      drop: `[B, T, P]`, or `[B, 1, P]` for all steps: what h is multiplied by before the product
        with the recurrent kernel; it gets no gradient.
      remat_every: None keeps all gates and carries for the backward pass; k keeps the carry of
        every k-th step, and computes the rest anew from there.

    Returns:
      The hidden states `[B, T, P]` in the dtype of the carry (unspecified at padding), and the last
      carry.

    >>> from recattn_jax.kernels.products import affine
    >>> cell = Cell(affine, jnp.add, lambda carry, gates: (jnp.tanh(gates[:, 0]),))
    >>> weights = jnp.ones((3, 1, 2)), jnp.zeros((1, 2))
    >>> x, carry = jnp.ones((5, 7, 3)), (jnp.zeros((5, 2)),)
    >>> scan_cell(cell, weights, jnp.ones((2, 1, 2)), x, carry)[0].shape
    (5, 7, 2)
    """
    block = BLOCK if block is None else block
    every_drop = None
    if drop is not None and drop.shape[1] == 1:
        every_drop, drop = drop[:, 0], None
    fixed = _Fixed(weights, recurrent_kernel, step_weights)
    inputs = (x, _Masks(starts, keep, drop))
    x_TB, masks = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), inputs)
    batch = carry[0].shape[0]
    chains = _cut_rows(
        _Rows(x_TB, carry, masks, every_drop), batch, _chains(batch, recurrent_kernel)
    )
    hidden, last = _compiled_scan(cell, block, remat_every, fixed, chains)
    hidden_BTP = jnp.concatenate([jnp.swapaxes(h_TBP, 0, 1) for h_TBP in hidden])
    return hidden_BTP, jax.tree.map(lambda *parts: jnp.concatenate(parts), *last)


class _Fixed(NamedTuple):
    """What is the same at every step and for every row."""

    weights: Weights
    kernel: Array
    step_weights: tuple[Any, ...]


class _Masks(NamedTuple):
    """What is told of each step: `[T, B]`, `[T, B]` and `[T, B, P]`, or without the T."""

    starts: Array | None
    keep: Array | None
    drop: Array | None


class _Rows(NamedTuple):
    """What a chain starts from, some rows of the batch; `drop` `[B, P]` serves all steps."""

    x: Any
    carry: Carry
    masks: _Masks
    drop: Array | None


class _Saved(NamedTuple):
    """What the backward pass needs of a chain, `[T, B, ...]`; `before` is the carry without h."""

    hidden: Array
    before: Carry
    gates: Any


Chains = tuple[_Rows, ...]


def _chains(batch: int, kernel: Array) -> int:
    """Into how many chains the batch is cut, that a CPU runs beside each other.

    Rows do not see each other, so halves of a batch are two chains of small operations, each of
    which is too small to be worth cutting. It pays where the kernel fits into every core's own
    cache, and where no mesh has cut the batch already.
    """
    small = kernel.size * kernel.dtype.itemsize <= OWN_CACHE
    # Gradients of weights are summed over the chains, in the dtype of the weights.
    sums = wide(kernel.dtype) == kernel.dtype
    if not (backends.one_cpu() and small and sums):
        return 1
    return CHAINS if batch % CHAINS == 0 and batch >= CHAINS * LEAST_ROWS else 1


def _cut_rows(rows: _Rows, batch: int, chains: int) -> Chains:
    """Cuts the batch; what is one for all rows stays one."""

    def part(n: int) -> _Rows:
        def cut(tree: Any, axis: int) -> Any:
            def one(a: Array) -> Array:
                if a.shape[axis] != batch:
                    return a
                size = batch // chains
                return jax.lax.slice_in_dim(a, n * size, (n + 1) * size, axis=axis)

            return jax.tree.map(one, tree)

        return _Rows(cut(rows.x, 1), cut(rows.carry, 0), cut(rows.masks, 1), cut(rows.drop, 0))

    return (rows,) if chains == 1 else tuple(part(n) for n in range(chains))


def _beside(
    steps: Sequence[Callable[[Any, Any], tuple[Any, Any]]],
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """One step of several chains."""

    def step(carries: Any, inputs: Any) -> tuple[Any, Any]:
        done = [one(*each) for one, *each in zip(steps, carries, inputs, strict=True)]
        return tuple(carry for carry, _ in done), tuple(out for _, out in done)

    return step


def _run(
    cell: Cell, block: int, remat_every: int | None, fixed: _Fixed, chains: Chains
) -> tuple[tuple[Array, ...], tuple[Carry, ...]]:
    if remat_every is None:
        return _scan(cell, block, fixed, chains)
    # Weights enter the chunks wide, so that the sum of the chunks' gradients is wide too.
    widened = jax.tree.map(lambda a: a.astype(wide(a.dtype)), fixed)

    @jax.checkpoint
    def chunk(carries: tuple[Carry, ...], inputs: Any) -> tuple[Any, Any]:
        narrow = jax.tree.map(lambda a, like: a.astype(like.dtype), widened, fixed)
        parts = zip(chains, carries, inputs, strict=True)
        here = tuple(rows._replace(x=x, carry=c, masks=m) for rows, c, (x, m) in parts)
        hidden, last = _scan(cell, block, narrow, here)
        return last, hidden

    last, hidden = _scan_blocks(chunk, remat_every, *_starts_and_inputs(chains))
    return hidden, last


# The bodies of the scans are closures: without a cache of its own every eager call would compile.
_compiled_scan = jax.jit(_run, static_argnums=(0, 1, 2))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(
    cell: Cell, block: int, fixed: _Fixed, chains: Chains
) -> tuple[tuple[Array, ...], tuple[Carry, ...]]:
    return _scan_forward(cell, block, fixed, chains)[0]


def _scan_forward(
    cell: Cell, block: int, fixed: _Fixed, chains: Chains
) -> tuple[tuple[Any, Any], Any]:
    recur = recurrent_products(fixed.kernel, _length(chains[0].x)).forward

    def step(every: Array | None, carry: Carry, inputs: Any) -> tuple[Carry, _Saved]:
        projected, now = inputs
        before = _reset(carry, now.starts)
        gates = cell.merge(projected, recur(_drop(before[0], every, now.drop)))
        after = _select(now.keep, cell.advance(before, gates, *fixed.step_weights), carry)
        return after, _Saved(after[0], before[1:], gates)

    def run_block(carries: tuple[Carry, ...], inputs: Any) -> tuple[tuple[Carry, ...], Any]:
        projected = tuple((cell.project(fixed.weights, x), masks) for x, masks in inputs)
        steps = _beside([partial(step, rows.drop) for rows in chains])
        return jax.lax.scan(steps, carries, projected, unroll=_length(inputs))

    last, saved = _scan_blocks(run_block, block, *_starts_and_inputs(chains))
    return (tuple(chain.hidden for chain in saved), last), (fixed, chains, saved)


def _starts_and_inputs(chains: Chains) -> tuple[tuple[Carry, ...], Any]:
    return tuple(rows.carry for rows in chains), tuple((rows.x, rows.masks) for rows in chains)


def _scan_backward(cell: Cell, block: int, residuals: Any, cotangents: Any) -> tuple[Any, Any]:
    fixed, chains, saved = residuals
    d_hidden, d_last = cotangents
    recur_transposed = recurrent_products(fixed.kernel, _length(d_hidden)).transposed
    # What each step saw: the carry of the step before, zeros where a document starts.
    befores = tuple(
        _reset((jnp.concatenate([rows.carry[0][None], kept.hidden[:-1]]),), rows.masks.starts)
        + kept.before
        for rows, kept in zip(chains, saved, strict=True)
    )
    merged = [  # what `merge` takes, for all steps
        (
            jax.eval_shape(cell.project, fixed.weights, rows.x),
            jax.ShapeDtypeStruct((*d.shape[:2], *units_of(fixed.kernel)), d.dtype),
        )
        for rows, d in zip(chains, d_hidden, strict=True)
    ]

    def step(
        every: Array | None, shapes: Any, carried: tuple[Carry, Any], inputs: Any
    ) -> tuple[tuple[Carry, Any], Any]:
        # The cotangents of the gates take their place, so that there is one array of that size.
        d_carry, gates_TB = carried
        d_hidden, ready, now, at = inputs
        pull = pullback(advance, *ready) if fixed.step_weights else ready
        d_carry = (d_carry[0] + d_hidden, *d_carry[1:])
        d_after = _select(now.keep, d_carry, _zeros(d_carry))
        d_before, d_gates = pull(d_after)
        d_gates_TB = jax.tree.map(partial(write, at), gates_TB, d_gates)
        # Read back from where they were written: there they stand side by side.
        d_seen = recur_transposed(_merge_back(cell, shapes, read(at, d_gates_TB), 1)[1])
        d_before = (d_before[0] + _drop(d_seen, every, now.drop), *d_before[1:])
        d_carry = _select(now.keep, _reset(d_before, now.starts), d_carry)
        return (d_carry, d_gates_TB), d_after if fixed.step_weights else None

    def advance(before: Carry, gates: Any) -> Carry:
        return cell.advance(before, gates, *fixed.step_weights)

    def run_block(carried: Any, inputs: Any) -> tuple[Any, Any]:
        blocks, at = inputs
        steps = [partial(step, rows.drop, s) for rows, s in zip(chains, merged, strict=True)]
        ready_blocks = []
        for (_, gates_TB), (d_hidden, before, masks) in zip(carried, blocks, strict=True):
            ready = (before, read(at, gates_TB))
            if not fixed.step_weights:  # else every step would have a copy of them
                ready = jax.vmap(partial(pullback, advance))(*ready)
            ready_blocks.append((d_hidden, ready, masks, at))
        return jax.lax.scan(_beside(steps), carried, tuple(ready_blocks), reverse=True)

    masks = tuple(rows.masks for rows in chains)
    inputs = tuple(zip(d_hidden, befores, masks, strict=True))
    starts = tuple((d, kept.gates) for d, kept in zip(d_last, saved, strict=True))
    times = jnp.arange(_length(inputs))
    ends, d_afters = _scan_blocks(run_block, block, starts, (inputs, times), reverse=True)

    d_fixed, d_chains = [], []
    for rows, before, shapes, kept, (d_carry, d_gates_TB), d_after_TB in zip(
        chains, befores, merged, saved, ends, d_afters, strict=True
    ):
        d_projected, d_recurrent = _merge_back(cell, shapes, d_gates_TB, 0)
        d_weights, d_x = jax.vjp(cell.project, fixed.weights, rows.x)[1](d_projected)
        seen = _drop(before[0], rows.drop, rows.masks.drop)
        d_kernel = kernel_gradient(seen, d_recurrent, fixed.kernel)
        d_step_weights = _step_weights_gradient(
            cell, fixed.step_weights, before, kept.gates, d_after_TB
        )
        d_fixed.append(_Fixed(d_weights, d_kernel, d_step_weights))
        d_chains.append(_Rows(d_x, d_carry, _Masks(None, None, None), None))
    return jax.tree.map(lambda *parts: sum(parts), *d_fixed), tuple(d_chains)


_scan.defvjp(_scan_forward, _scan_backward)


def _merge_back(cell: Cell, shapes: Any, d_gates: Any, start: int) -> tuple[Any, Array]:
    """The cotangents of what `merge` takes, `(d_projected, d_recurrent)`, from those of the gates.

    It is linear, so that any inputs give the same. Of all steps at once (start 0), or of one (1).
    """
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape[start:], a.dtype), shapes)
    return jax.vjp(cell.merge, *zeros)[1](d_gates)


def _step_weights_gradient(
    cell: Cell, step_weights: tuple[Any, ...], before: Carry, gates_TB: Any, d_after_TB: Any
) -> tuple[Any, ...]:
    """All steps advance at once, so that each gradient is one product over time and batch."""
    if not step_weights:
        return ()

    def advance(step_weights: tuple[Any, ...]) -> Carry:
        return jax.vmap(lambda *a: cell.advance(*a, *step_weights))(before, gates_TB)

    return jax.vjp(advance, step_weights)[1](d_after_TB)[0]


def _drop(hidden: Array, every: Array | None, now: Array | None) -> Array:
    """Multiplies by the mask of every step, `[B, P]`, or by that of the steps at hand."""
    if every is not None:
        now = every.reshape((1,) * (hidden.ndim - 2) + every.shape)
    return hidden if now is None else hidden * now.astype(hidden.dtype)


def _reset(carry: Carry, start: Array | None) -> Carry:
    if start is None:
        return carry
    return tuple(jnp.where(start[..., None], 0, leaf) for leaf in carry)


def _select(keep: Array | None, new: Carry, old: Carry) -> Carry:
    if keep is None:
        return new
    return tuple(jnp.where(keep[..., None], n, o) for n, o in zip(new, old, strict=True))


def _zeros(carry: Carry) -> Carry:
    return tuple(jnp.zeros_like(leaf) for leaf in carry)


def _length(inputs: Any) -> int:
    return jax.tree.leaves(inputs)[0].shape[0]


def _scan_blocks(
    run_block: Callable[[Any, Any], tuple[Any, Any]],
    block: int,
    carry: Any,
    inputs: Any,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Scans over blocks of time; what does not fill a block at the end is a block of its own."""
    blocks, rest = divmod(_length(inputs), block)
    whole = blocks * block
    outputs = []

    def run_whole(carry: Any) -> Any:
        if not blocks:
            return carry
        blocked = jax.tree.map(lambda a: a[:whole].reshape((blocks, block, *a.shape[1:])), inputs)
        carry, out = jax.lax.scan(run_block, carry, blocked, reverse=reverse)
        outputs.append(jax.tree.map(lambda a: a.reshape((whole, *a.shape[2:])), out))
        return carry

    def run_rest(carry: Any) -> Any:
        if not rest:
            return carry
        carry, out = run_block(carry, jax.tree.map(lambda a: a[whole:], inputs))
        outputs.append(out)
        return carry

    if reverse:
        carry = run_whole(run_rest(carry))
        outputs.reverse()
    else:
        carry = run_rest(run_whole(carry))
    if len(outputs) == 1:
        return carry, outputs[0]
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)
