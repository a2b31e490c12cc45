"""The recurrence kernel against autodiff through a plain loop."""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from recattn_jax.kernels import cells, products, recurrence, slstm, tracing
from recattn_jax.kernels.products import affine
from recattn_jax.kernels.recurrence import Cell
from tests.oracles import assert_close, assert_gradients_close

B, D, H, P = 3, 5, 4, 2


def keep_apart(projected: jax.Array, recurrent: jax.Array) -> jax.Array:
    """Gates of a cell that does not add its two products."""
    return jnp.concatenate([projected + 2.0 * recurrent, projected], axis=-2)


def advance_apart(carry: tuple, gates: jax.Array) -> tuple:
    (hidden,) = carry
    return (0.5 * hidden + jnp.tanh(gates[:, 0]) * jax.nn.sigmoid(gates[:, 1]),)


class Case(NamedTuple):
    """A cell, and the shapes of what it takes."""

    cell: Cell
    weights: tuple[tuple[int, ...], ...]
    kernel: tuple[int, ...]
    carry: tuple[int, ...]
    step_weights: Any = ()
    drop: Callable[[int], int] | None = None  # from T to how long the mask on h is

    @property
    def projection(self) -> tuple[tuple[int, ...], ...]:
        return tuple((D, *shape) if k == 0 else shape for k, shape in enumerate(self.weights))


def plain(cell: Cell, gates: int, leaves: int) -> Case:
    return Case(cell, ((gates, H), (gates, H)), (H, gates, H), (H,) * leaves)


NORMED = ((4, H), (4, H), (4, H))
CASES = {
    "lstm": plain(cells.lstm(), 4, 2),
    "elman": plain(cells.elman(), 1, 1),
    "apart": plain(Cell(affine, keep_apart, advance_apart), 1, 1),
    "lstm, all": Case(
        cells.lstm(layer_norm=True),
        NORMED,
        (P, 4, H),
        (P, H),
        (cells.LSTMWeights((3, H), (4, H), (H,), (H,), (H, P)),),
        lambda length: length,
    ),
    "gru": Case(cells.gru(), ((3, H), (4, H)), (H, 3, H), (H,), (), lambda _: 1),
    "gru, normed": Case(
        cells.gru(layer_norm=True), ((3, H), (4, H), (3, H)), (H, 3, H), (H,), ((3, H),)
    ),
    "gru, reset before": Case(
        cells.gru(reset_after=False),
        ((3, H), (3, H)),
        (H, 2, H),
        (H,),
        ((H, H),),
        lambda length: length,
    ),
    "slstm": Case(
        Cell(affine, operator.add, slstm.advance_slstm, slstm.view_slstm),
        ((4, H), (4, H)),
        (2, H // 2, 4, H // 2),
        (H,) * 4,
        (),
        lambda _: 1,
    ),
    "lstm, zoneout": Case(
        cells.zoneout(cells.lstm()),
        ((4, H), (4, H)),
        (H, 4, H),
        (H, H),
    ),
}
SHORT = [
    (name, *rest)
    for name in ("lstm", "elman", "apart")
    for rest in ((1, 4, False, None), (4, 4, False, None), (8, 4, True, None))
]
RAGGED = [(name, 7, 4, True, None) for name in CASES]
REMAT = [(name, 7, 2, True, 3) for name in ("lstm", "lstm, all", "gru, reset before")]


def is_shape(node: Any) -> bool:
    return type(node) is tuple and node != () and all(isinstance(size, int) for size in node)


def fill(draw: Callable, shapes: Any) -> Any:
    return jax.tree.map(lambda shape: jnp.asarray(draw(size=shape)), shapes, is_leaf=is_shape)


def heads_apart(hidden: jax.Array, kernel: jax.Array) -> jax.Array:
    """The recurrent product, head by head."""
    if kernel.ndim == 3:
        return jnp.einsum("bk,kgh->bgh", hidden, kernel)
    parts = jnp.split(hidden, kernel.shape[0], axis=-1)
    return jnp.concatenate(
        [jnp.einsum("bk,kgh->bgh", h, u) for h, u in zip(parts, kernel, strict=True)], axis=-1
    )


def plain_loop(cell, weights, kernel, x, carry, starts, keep, step_weights, drop):
    hidden = []
    for t in range(jax.tree.leaves(x)[0].shape[1]):
        before = carry
        if starts is not None:
            before = tuple(jnp.where(starts[:, t, None], 0.0, leaf) for leaf in carry)
        seen = before[0] if drop is None else before[0] * drop[:, min(t, drop.shape[1] - 1)]
        projected = cell.project(weights, jax.tree.map(lambda a, t=t: a[:, t], x))
        after = cell.advance(
            before, cell.merge(projected, heads_apart(seen, kernel)), *step_weights
        )
        if keep is not None:
            after = tuple(
                jnp.where(keep[:, t, None], n, o) for n, o in zip(after, carry, strict=True)
            )
        carry = after
        hidden.append(carry[0])
    return jnp.stack(hidden, axis=1), carry


class Given(NamedTuple):
    """What a case runs on."""

    weights: Any
    kernel: jax.Array
    step_weights: Any
    x: jax.Array
    carry: tuple
    see: Callable
    starts: jax.Array | None
    keep: jax.Array | None
    drop: jax.Array | None


def give(name: str, length: int, masked: bool) -> Given:
    """Random arrays for a case; with documents and padding where it is masked."""
    case, draw = CASES[name], np.random.default_rng(0).normal
    x, weights, kernel, step_weights, carry = fill(
        draw,
        (
            (B, length, D),
            case.projection,
            case.kernel,
            case.step_weights,
            tuple((B, width) for width in case.carry),
        ),
    )
    # n of the sLSTM is positive; for others it makes no difference.
    carry = (*carry[:2], *(1.5 + jnp.tanh(leaf) for leaf in carry[2:]))
    drop = starts = keep = None
    if case.drop is not None:
        drop = jnp.asarray(draw(size=(B, case.drop(length), case.carry[0])))
    if masked:
        segments = np.random.default_rng(1).integers(0, 3, size=(B, length))
        keep, starts = jnp.asarray(segments > 0), jnp.asarray(segments == 2)

    def see(x):
        """x, and what goes past the projection."""
        if name == "gru, reset before":
            return x, drop
        if name == "lstm, zoneout":
            return x, (jnp.linspace(0.0, 1.0, x[..., :H].size).reshape(x[..., :H].shape), None)
        return x

    return Given(weights, kernel, step_weights, x, carry, see, starts, keep, drop)


def compare(name, length, block, masked, remat_every, tolerance):
    """Outputs, last carry and all gradients of one case, in the present precision."""
    case = CASES[name]
    weights, kernel, step_weights, x, carry, see, starts, keep, drop = give(name, length, masked)

    def loss(run, weights, kernel, step_weights, x, carry):
        out = run(
            case.cell,
            weights,
            kernel,
            see(x),
            carry,
            starts,
            keep,
            step_weights=step_weights,
            drop=drop,
        )
        terms = [
            jnp.sum(jnp.sin(a + jnp.arange(a.shape[-1]).reshape((1,) * (a.ndim - 1) + (-1,))))
            for a in jax.tree.leaves(out)
        ]
        return sum(terms), out

    def run(how):
        gradient = jax.value_and_grad(functools.partial(loss, how), range(5), has_aux=True)
        (_, out), grads = jax.jit(gradient)(weights, kernel, step_weights, x, carry)
        return out, grads

    out, grads = run(functools.partial(recurrence.scan_cell, block=block, remat_every=remat_every))
    wanted_out, wanted = run(plain_loop)
    dtypes = [
        [leaf.dtype for leaf in jax.tree.leaves(tree)]
        for tree in ((out, grads), (wanted_out, wanted))
    ]
    assert dtypes[0] == dtypes[1]
    assert_close(out, wanted_out, tolerance)
    assert_gradients_close(grads, wanted, tolerance)


@pytest.mark.parametrize(
    ("name", "length", "block", "masked", "remat_every"), SHORT + RAGGED + REMAT
)
def test_equals_autodiff_of_a_plain_loop(
    name: str, length: int, block: int, masked: bool, remat_every: int | None
) -> None:
    """In float64, with resets, padding, initial carry, masks on h, and ragged blocks."""
    with jax.enable_x64(True):
        compare(name, length, block, masked, remat_every, 1e-12)


@pytest.fixture
def recompiled():
    """Programs are found again by their arguments, which do not tell how a test has them made."""
    recurrence._compiled_scan.clear_cache()
    yield
    recurrence._compiled_scan.clear_cache()


@pytest.mark.usefixtures("recompiled")
@pytest.mark.parametrize(
    ("name", "remat_every"),
    [("lstm", 3), ("lstm, all", None), ("gru, reset before", None), ("lstm, zoneout", None)],
)
def test_chains_of_rows_equal_the_plain_loop(
    monkeypatch: Any, name: str, remat_every: int | None
) -> None:
    monkeypatch.setattr(recurrence, "CHAINS", B)
    monkeypatch.setattr(recurrence, "LEAST_ROWS", 1)
    assert recurrence._chains(B, jnp.zeros(CASES[name].kernel)) == B
    with jax.enable_x64(True):
        compare(name, 7, 4, True, remat_every, 1e-12)


@pytest.mark.usefixtures("recompiled")
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_large_kernel_comes_first_in_its_products(monkeypatch: Any, name: str) -> None:
    monkeypatch.setattr(products, "LARGE", 0)
    monkeypatch.setattr(products, "MANY", 0)
    assert products.recurrent_products(jnp.ones((H, 4, H)), 1).forward.func is products._recur_first
    with jax.enable_x64(True):
        compare(name, 7, 4, True, None, 1e-12)


def test_a_batch_is_cut_where_it_pays() -> None:
    """A small kernel and enough rows; not on a mesh, whose devices have their rows already."""
    small, large = jnp.zeros((128, 4, 128)), jnp.zeros((512, 4, 512))
    assert recurrence._chains(32, small) == 2
    assert [recurrence._chains(batch, small) for batch in (1, 8, 33)] == [1, 1, 1]
    assert recurrence._chains(32, large) == 1
    automatic = (jax.sharding.AxisType.Auto,)
    with jax.set_mesh(jax.make_mesh((2,), ("data",), axis_types=automatic)):
        assert recurrence._chains(32, small) == 1


@pytest.mark.parametrize("name", ["lstm", "lstm, all"])
def test_float32_stays_float32(name: str) -> None:
    compare(name, 7, 4, True, None, 2e-6)


def test_vmap_and_checkpoint_agree_and_jvp_is_refused() -> None:
    cell = CASES["elman"].cell
    x, carry = jnp.ones((B, 3, D)), (jnp.zeros((B, H)),)
    weights, kernel = (jnp.full((D, 1, H), 0.1), jnp.zeros((1, H))), jnp.eye(H)[:, None]

    def total(x):
        return recurrence.scan_cell(cell, weights, kernel, x, carry)[0].sum()

    wanted = jax.grad(total)(x)
    np.testing.assert_allclose(jax.grad(jax.checkpoint(total))(x), wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(total))(x[None])[0], wanted, rtol=1e-6)
    with pytest.raises(TypeError, match="jvp"):
        jax.jvp(total, (x,), (x,))


def gradient_jaxpr(name: str, length: int, remat_every: int | None = None) -> Any:
    case = CASES[name]
    weights, kernel, step_weights = fill(
        lambda size: np.ones(size, np.float32), (case.projection, case.kernel, case.step_weights)
    )

    def total(weights, kernel, step_weights):
        x, carry = jnp.ones((B, length, D)), tuple(jnp.zeros((B, width)) for width in case.carry)
        inputs = (x, None) if name == "gru, reset before" else x
        return recurrence.scan_cell(
            case.cell,
            weights,
            kernel,
            inputs,
            carry,
            step_weights=step_weights,
            remat_every=remat_every,
        )[0].sum()

    return jax.make_jaxpr(jax.grad(total, (0, 1, 2)))(weights, kernel, step_weights).jaxpr


@pytest.mark.parametrize("name", ["elman", "lstm, all", "gru, reset before", "slstm"])
def test_gradient_scans_carry_no_weight(name: str) -> None:
    """The backward loop must not accumulate weight gradients: they are products outside it.

    It carries the cotangents of the carry, and those of the gates of all steps.
    """
    length = 33
    allowed = {(B, width) for width in CASES[name].carry}
    loops = [e for e in _equations(gradient_jaxpr(name, length)) if e.primitive.name == "scan"]
    assert loops
    for loop in loops:
        first = loop.params["num_consts"]
        carried = loop.invars[first : first + loop.params["num_carry"]]
        a_step = {v.aval.shape for v in carried if v.aval.shape[:2] != (length, B)}
        assert a_step <= allowed, [v.aval for v in carried]
        # Nor does any step get a copy of the weights that it multiplies by.
        weights = set(jax.tree.leaves(CASES[name].step_weights, is_leaf=is_shape))
        of_steps = loop.invars[first + loop.params["num_carry"] :]
        weights -= {(B, width) for width in CASES[name].carry}  # peepholes look like c
        floats = [v.aval for v in of_steps if jnp.issubdtype(v.aval.dtype, jnp.floating)]
        assert not [aval for aval in floats if aval.shape[1:] in weights]


def test_remat_keeps_nothing_but_the_carries_between_chunks() -> None:
    """The forward loop over chunks leaves hidden states and carries, and no gates."""
    length, every = 64, 16

    def keeps_gates(remat_every):
        loops = [
            e
            for e in _equations(gradient_jaxpr("lstm", length, remat_every))
            if e.primitive.name == "scan" and not e.params["reverse"]
        ]
        return any(v.aval.shape[-2:] == (4, H) for v in loops[0].outvars)

    assert keeps_gates(None)
    assert not keeps_gates(every)


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)


def again(name: str, gates: dict[str, jax.Array], before: tuple, step_weights: Any) -> Any:
    """The part of the next carry that gates and the last carry make by themselves."""
    if name.startswith("gru"):
        return (1 - gates["update"]) * gates["candidate"] + gates["update"] * before[0]
    return gates["forget"] * before[1] + gates["input"] * gates["candidate"]


@pytest.mark.parametrize("name", CASES)
def test_what_is_traced_is_what_is_scanned(name: str) -> None:
    """Outputs and carries to 1e-6, each step's too; and the gates that are shown are those."""
    case, given = CASES[name], give(name, 7, masked=True)

    def arrays(length: int) -> tuple:
        def cut(a: jax.Array | None) -> jax.Array | None:
            return a if a is None or a.shape[1] == 1 else a[:, :length]

        x = jax.tree.map(cut, given.see(given.x))
        return (
            case.cell,
            given.weights,
            given.kernel,
            x,
            given.carry,
            cut(given.starts),
            cut(given.keep),
            given.step_weights,
            cut(given.drop),
        )

    def run(how: Callable, length: int) -> Any:
        *arguments, step_weights, drop = arrays(length)
        cell, *arguments = arguments
        call = functools.partial(how, cell, step_weights=step_weights, drop=drop)
        return jax.jit(call)(*arguments)

    traced = run(tracing.trace_cell, 7)
    assert_close((traced.hidden, traced.carry), run(recurrence.scan_cell, 7), 1e-6)
    at_3 = jax.tree.map(lambda a: a[:, 3], traced.carries)
    assert_close(at_3, run(recurrence.scan_cell, 4)[1], 1e-6)
    if not traced.gates:
        assert name in ("elman", "apart")
        return
    if name == "lstm, zoneout":  # its carry is what the gates make, mixed with the one before
        return
    leaf = 0 if name.startswith("gru") else 1
    for t in range(1, 7):
        start, keep = (given.starts[:, t, None], given.keep[:, t, None])
        before = tuple(jnp.where(start, 0.0, a[:, t - 1]) for a in traced.carries)
        now = {gate: a[:, t] for gate, a in traced.gates.items()}
        made = again(name, now, before, given.step_weights)
        wanted = jnp.where(keep, made, traced.carries[leaf][:, t - 1])
        assert_close(traced.carries[leaf][:, t], wanted, 1e-6)
