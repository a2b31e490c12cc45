"""The recurrent cells: how one step advances, and what goes with it, for `recurrence.scan_cell`.

Gates and carries are float32, or wider where the inputs are. Cells are constants, or come from
cached factories, so that compiled programs are found again.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recattn_jax.kernels.norms import normalize, normalize_gates, normed_affine
from recattn_jax.kernels.products import affine, product, split_gates
from recattn_jax.kernels.recurrence import Carry, Cell
from recattn_jax.shapes import Array, Float


@functools.cache
def elman(activation: Callable[[Array], Array] = jnp.tanh) -> Cell:
    """The cell of the simple recurrent network: `h' = activation(gate)`.

    Args:
      activation: an elementwise function; a module-level one is compiled once.

    Returns:
      A cell of one gate, whose carry is `(h,)`.

    >>> elman(jax.nn.relu).advance((jnp.zeros((1, 2)),), jnp.zeros((1, 1, 2)))[0].shape
    (1, 2)

    Elman, Finding structure in time, 1990.
    """

    def advance(carry: Carry, gates_BGH: Float[Array, "B 1 H"]) -> Carry:
        del carry
        return (activation(gates_BGH[:, 0]),)

    return Cell(affine, operator.add, advance)


class LSTMWeights(NamedTuple):
    """What `advance_lstm` takes beside carry and gates; None for what a cell does without.

    Attributes:
      peepholes: `[3, H]`, what i, f and o see of c.
      recurrent_scale: `[4, H]`, scale of the normalised recurrent product.
      cell_scale: `[H]`, scale of the normalised c.
      cell_shift: `[H]`, its shift.
      projection: `[H, P]`, from `sigmoid(o) tanh(c)` to h.

    >>> weights = LSTMWeights(peepholes=jnp.zeros((3, 2)))
    """

    peepholes: Float[Array, "3 H"] | None = None
    recurrent_scale: Float[Array, "4 H"] | None = None
    cell_scale: Float[Array, " H"] | None = None
    cell_shift: Float[Array, " H"] | None = None
    projection: Float[Array, "H P"] | None = None


class _LSTMStep(NamedTuple):
    """A step of the LSTM: its next carry, and its gates as they act."""

    carry: Carry
    gates: dict[str, Array]


def advance_lstm(carry: Carry, gates: Any, weights: LSTMWeights = LSTMWeights()) -> Carry:
    """One LSTM step from its gates, in the order i, f, g, o.

    `c' = sigmoid(f) c + sigmoid(i) tanh(g)`, `h' = sigmoid(o) tanh(c')`.

    Args:
      carry: `(h, c)`, `[B, P]` and `[B, H]`.
      gates: before their nonlinearity, `[B, 4, H]`; with `recurrent_scale` a pair, what the inputs
        gave and the recurrent product.
      weights: peepholes (`i + p_i c`, `f + p_f c`, `o + p_o c'`), layer norm (of the recurrent
        product, and of c' inside the last tanh) and the projection of h'.

    Returns:
      The next `(h, c)`.

    >>> advance_lstm((jnp.zeros((1, 2)), jnp.zeros((1, 2))), jnp.zeros((1, 4, 2)))[0].shape
    (1, 2)

    Hochreiter and Schmidhuber, Long short-term memory, 1997; forget gate: Gers et al., 2000;
    peepholes: Gers and Schmidhuber, 2000; projection: Sak et al., 2014, arXiv:1402.1128;
    layer norm: Ba et al., 2016, arXiv:1607.06450.
    """
    return _lstm_step(carry, gates, weights).carry


def view_lstm(carry: Carry, gates: Any, weights: LSTMWeights = LSTMWeights()) -> dict[str, Array]:
    """The gates of `advance_lstm` as they act.

    Args:
      carry: as for `advance_lstm`, like all that follow.
      gates: `[B, 4, H]`, or a pair.
      weights: peepholes, layer norm and projection.

    Returns:
      `[B, H]` each: input, forget, candidate, output.

    >>> gates = view_lstm((jnp.zeros((1, 2)), jnp.zeros((1, 2))), jnp.zeros((1, 4, 2)))
    >>> gates["forget"].tolist()
    [[0.5, 0.5]]
    """
    return _lstm_step(carry, gates, weights).gates


def _lstm_step(carry: Carry, gates: Any, weights: LSTMWeights) -> _LSTMStep:
    _, cell = carry
    if weights.recurrent_scale is not None:
        projected, recurrent = gates
        gates = projected + normalize_gates(recurrent, weights.recurrent_scale)
    i, f, g, o = split_gates(gates)
    if weights.peepholes is not None:
        i = i + weights.peepholes[None, 0] * cell
        f = f + weights.peepholes[None, 1] * cell
    i, f, g = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g)
    cell = f * cell + i * g
    if weights.peepholes is not None:
        o = o + weights.peepholes[None, 2] * cell
    o = jax.nn.sigmoid(o)
    seen = cell
    if weights.cell_scale is not None and weights.cell_shift is not None:
        seen = normalize(cell, -1) * weights.cell_scale[None] + weights.cell_shift[None]
    hidden = o * jnp.tanh(seen)
    if weights.projection is not None:
        hidden = product(hidden, weights.projection)
    return _LSTMStep((hidden, cell), {"input": i, "forget": f, "candidate": g, "output": o})


def advance_gru(carry: Carry, gates_BGH: Float[Array, "B 4 H"]) -> Carry:
    """One step of the GRU that resets after the product, as torch and cuDNN do.

    `n = tanh(n_x + sigmoid(r) n_h)`, `h' = (1 - sigmoid(z)) n + sigmoid(z) h`.

    Args:
      carry: `(h,)`, `[B, H]`.
      gates_BGH: r, z, n of the inputs and n of the recurrent product, `[B, 4, H]`.

    Returns:
      The next `(h,)`.

    >>> advance_gru((jnp.zeros((1, 2)),), jnp.zeros((1, 4, 2)))[0].shape
    (1, 2)

    Cho et al., Learning phrase representations, 2014, arXiv:1406.1078.
    """
    return _blend(carry, view_gru(carry, gates_BGH))


def view_gru(carry: Carry, gates_BGH: Float[Array, "B 4 H"]) -> dict[str, Array]:
    """The gates of `advance_gru` as they act.

    Args:
      carry: `(h,)`, `[B, H]`.
      gates_BGH: r, z, n of the inputs and n of the recurrent product, `[B, 4, H]`.

    Returns:
      `[B, H]` each: reset, update, candidate.

    >>> view_gru((jnp.zeros((1, 2)),), jnp.zeros((1, 4, 2)))["update"].tolist()
    [[0.5, 0.5]]
    """
    del carry
    r, z, n, recurrent = split_gates(gates_BGH)
    r = jax.nn.sigmoid(r)
    return {"reset": r, "update": jax.nn.sigmoid(z), "candidate": jnp.tanh(n + r * recurrent)}


def advance_gru_normed(
    carry: Carry, gates: tuple[Array, Array], scale_GH: Float[Array, "3 H"]
) -> Carry:
    """`advance_gru` with the recurrent product normalised: r and z together, n by itself.

    Args:
      carry: `(h,)`, `[B, H]`.
      gates: what the inputs gave `[B, 4, H]`, and the recurrent product `[B, 3, H]`.
      scale_GH: `[3, H]`, scale of the normalised product.

    Returns:
      The next `(h,)`.

    >>> gates = jnp.zeros((1, 4, 2)), jnp.zeros((1, 3, 2))
    >>> advance_gru_normed((jnp.zeros((1, 2)),), gates, jnp.ones((3, 2)))[0].shape
    (1, 2)

    Ba et al., Layer normalization, 2016, arXiv:1607.06450.
    """
    return _blend(carry, view_gru_normed(carry, gates, scale_GH))


def view_gru_normed(
    carry: Carry, gates: tuple[Array, Array], scale_GH: Float[Array, "3 H"]
) -> dict[str, Array]:
    """The gates of `advance_gru_normed` as they act.

    Args:
      carry: `(h,)`, `[B, H]`.
      gates: what the inputs gave `[B, 4, H]`, and the recurrent product `[B, 3, H]`.
      scale_GH: `[3, H]`, scale of the normalised product.

    Returns:
      `[B, H]` each: reset, update, candidate.

    >>> gates = jnp.zeros((1, 4, 2)), jnp.zeros((1, 3, 2))
    >>> view_gru_normed((jnp.zeros((1, 2)),), gates, jnp.ones((3, 2)))["reset"].tolist()
    [[0.5, 0.5]]
    """
    projected, recurrent = gates
    recurrent = normalize_gates(recurrent, scale_GH, groups=(2, 1))
    return view_gru(carry, _merge_gru(projected, recurrent))


def advance_gru_reset_before(
    carry: Carry,
    gates: tuple[Any, Array | None],
    candidate_kernel: Float[Array, "H H"],
    scale_GH: Float[Array, "3 H"] | None = None,
) -> Carry:
    """One step of the GRU that resets before the product, as it was published.

    `n = tanh(n_x + (sigmoid(r) h) U_n)`, `h' = (1 - sigmoid(z)) n + sigmoid(z) h`.

    Args:
      carry: `(h,)`, `[B, H]`.
      gates: r, z and n_x `[B, 3, H]`, with a scale a pair of what the inputs gave and the recurrent
        product of r and z `[B, 2, H]`; then what h is multiplied by before each product, or None.
      candidate_kernel: U_n, `[H, H]`.
      scale_GH: `[3, H]`, scales of layer norm, of both products with h.

    Returns:
      The next `(h,)`.

    >>> gates = (jnp.zeros((1, 3, 2)), None)
    >>> advance_gru_reset_before((jnp.zeros((1, 2)),), gates, jnp.ones((2, 2)))[0].shape
    (1, 2)

    Cho et al., Learning phrase representations, 2014, arXiv:1406.1078.
    """
    return _blend(carry, view_gru_reset_before(carry, gates, candidate_kernel, scale_GH))


def view_gru_reset_before(
    carry: Carry,
    gates: tuple[Any, Array | None],
    candidate_kernel: Float[Array, "H H"],
    scale_GH: Float[Array, "3 H"] | None = None,
) -> dict[str, Array]:
    """The gates of `advance_gru_reset_before` as they act.

    Args:
      carry: `(h,)`, `[B, H]`.
      gates: as for `advance_gru_reset_before`, `[B, 3, H]` and what h is multiplied by, or None.
      candidate_kernel: U_n, `[H, H]`.
      scale_GH: `[3, H]`, scales of layer norm; None for none.

    Returns:
      `[B, H]` each: reset, update, candidate.

    >>> gates = (jnp.zeros((1, 3, 2)), None)
    >>> view_gru_reset_before((jnp.zeros((1, 2)),), gates, jnp.ones((2, 2)))["reset"].tolist()
    [[0.5, 0.5]]
    """
    merged, drop = gates
    if scale_GH is not None:
        projected, recurrent = merged
        merged = _merge_reset_before(projected, normalize_gates(recurrent, scale_GH[:2]))
    r, z, n = split_gates(merged)
    r = jax.nn.sigmoid(r)
    seen = r * carry[0]
    if drop is not None:
        seen = seen * jax.lax.stop_gradient(drop.astype(seen.dtype))
    recurrent_BGH = product(seen, candidate_kernel)[:, None]
    if scale_GH is not None:
        recurrent_BGH = normalize_gates(recurrent_BGH, scale_GH[2:])
    candidate = jnp.tanh(n + recurrent_BGH[:, 0])
    return {"reset": r, "update": jax.nn.sigmoid(z), "candidate": candidate}


@functools.cache
def lstm(layer_norm: bool = False) -> Cell:
    """The cell of the LSTM; see `advance_lstm`.

    Args:
      layer_norm: whether both products are normalised; then a `recurrent_scale` is needed.

    Returns:
      A cell of the gates i, f, g, o, whose carry is `(h, c)`.

    >>> lstm().advance is advance_lstm
    True
    """
    if layer_norm:
        return Cell(normed_affine(), _keep_both, advance_lstm, view_lstm)
    return Cell(affine, operator.add, advance_lstm, view_lstm)


@functools.cache
def gru(reset_after: bool = True, layer_norm: bool = False) -> Cell:
    """The cell of the GRU; see `advance_gru` and `advance_gru_reset_before`.

    Args:
      reset_after: whether h is reset after its product with U_n, which then has a bias of its own.
      layer_norm: whether the products are normalised.

    Returns:
      A cell of the gates r, z, n, whose carry is `(h,)`. The one that resets before the product
      takes `(x, drop)` for x.

    >>> gru().advance is advance_gru
    True
    """
    project = normed_affine((2, 1)) if layer_norm else affine
    if reset_after and layer_norm:
        return Cell(project, _keep_both, advance_gru_normed, view_gru_normed)
    if reset_after:
        return Cell(project, _merge_gru, advance_gru, view_gru)
    merge = _keep_both if layer_norm else _merge_reset_before
    return with_masks(Cell(project, merge, advance_gru_reset_before, view_gru_reset_before))


def with_masks(cell: Cell) -> Cell:
    """Hands something of each step on to `advance`, past the projection and the merge.

    Args:
      cell: a cell whose `advance` takes a pair, the gates and the masks.

    Returns:
      A cell whose x is a pair, the inputs and the masks, any pytree of arrays `[B, T, ...]`.

    >>> cell = with_masks(elman())
    >>> cell.project((jnp.ones((3, 1, 2)), jnp.ones((1, 2))), (jnp.ones((4, 3)), None))[0].shape
    (4, 1, 2)
    """

    def project(weights: Any, x: tuple[Any, Any]) -> tuple[Any, Any]:
        inputs, masks = x
        return cell.project(weights, inputs), masks

    def merge(projected: tuple[Any, Any], recurrent: Array) -> tuple[Any, Any]:
        gates, masks = projected
        return cell.merge(gates, recurrent), masks

    return cell._replace(project=project, merge=merge)


@functools.cache
def zoneout(cell: Cell) -> Cell:
    """Lets parts of the carry stay as they were: `carry = mask * before + (1 - mask) * after`.

    Args:
      cell: any cell.

    Returns:
      A cell whose x is a pair, the inputs and a mask for each array of the carry, `[B, T, H]` or
      `[1, T, 1]`, or None; a mask is 1 where the carry stays, or the chance of that.

    >>> carry, gates = (jnp.full((1, 2), 0.5),), jnp.ones((1, 1, 2))
    >>> zoneout(elman()).advance(carry, (gates, (jnp.ones((1, 1)),)))[0].tolist()
    [[0.5, 0.5]]

    Krueger et al., Zoneout, 2016, arXiv:1606.01305.
    """

    def advance(carry: Carry, gates: tuple[Any, Any], *step_weights: Any) -> Carry:
        merged, masks = gates
        after = cell.advance(carry, merged, *step_weights)
        return tuple(
            new if mask is None else _mix(jax.lax.stop_gradient(mask.astype(new.dtype)), old, new)
            for mask, old, new in zip(masks, carry, after, strict=True)
        )

    def view(carry: Carry, gates: tuple[Any, Any], *step_weights: Any) -> dict[str, Array]:
        assert cell.view is not None
        return cell.view(carry, gates[0], *step_weights)

    return with_masks(cell._replace(advance=advance, view=cell.view and view))


def _mix(mask: Array, old: Array, new: Array) -> Array:
    return mask * old + (1 - mask) * new


def _blend(carry: Carry, gates: dict[str, Array]) -> Carry:
    update = gates["update"]
    return ((1 - update) * gates["candidate"] + update * carry[0],)


def _keep_both(projected: Array, recurrent: Array) -> tuple[Array, Array]:
    """For cells that treat the two products apart."""
    return projected, recurrent


def _merge_gru(projected: Array, recurrent: Array) -> Array:
    """Sums both products for r and z; n of the inputs and n of the recurrence stay apart."""
    both = projected[..., :2, :] + recurrent[..., :2, :]
    last = projected[..., 3:, :] + recurrent[..., 2:, :]
    return jnp.concatenate([both, projected[..., 2:3, :], last], axis=-2)


def _merge_reset_before(projected: Array, recurrent: Array) -> Array:
    """Sums both products for r and z; n gets its recurrent one later."""
    both = projected[..., :2, :] + recurrent
    return jnp.concatenate([both, projected[..., 2:, :]], axis=-2)
