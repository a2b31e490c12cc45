"""The laws of `SequenceLayer`, as checks, and the table of everything that must obey them.

A check takes a `Row` and raises AssertionError where its law is broken, for outputs or gradients.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recattn_jax import layers
from recattn_jax.layers import Context, SequenceLayer, map_batch, zero_state
from recattn_jax.models import hybrids

BATCH, LENGTH, WIDTH, VOCABULARY = 3, 19, 8, 11
# Documents with padding before, between and after them; a row without padding; a row of one.
SEGMENTS = np.array(
    [
        [0, 1, 1, 1, 1, 1, 0, 2, 2, 2, 2, 2, 2, 2, 0, 0, 3, 3, 0],
        [4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 7, 8, 8, 8, 8, 8, 8],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0],
    ],
    np.int32,
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A layer under the laws.

    Attributes:
      layer: the layer.
      reach: how many steps back an output depends on, itself included; None for all.
      tokens: whether inputs are token ids.
    """

    layer: SequenceLayer
    reach: int | None = None
    tokens: bool = False


def mixer() -> SequenceLayer:
    return layers.Parallel(
        (layers.LSTM(WIDTH), layers.SelfAttention(2, window=4)), combine=layers.add
    )


# Every exported layer and combinator has a row, named after it (`Name` or `Name, what`).
TABLE = {
    "RNN": Row(layers.RNN(6)),
    "RNN, relu": Row(layers.RNN(12, activation=jax.nn.relu)),
    "LSTM": Row(layers.LSTM(6)),
    # Narrow LSTMs with layer norm are chaotic: rounding the weights alone changes all that follows.
    "LSTM, all options": Row(layers.LSTM(24, projection=12, peepholes=True, layer_norm=True)),
    "LSTM, remat and zoneout": Row(layers.LSTM(6, noise=layers.Noise(zoneout=0.2), remat_every=4)),
    "GRU": Row(layers.GRU(6)),
    "GRU, reset before": Row(layers.GRU(6, reset_after=False)),
    "GRU, layer norm": Row(layers.GRU(6, layer_norm=True)),
    "SLSTM": Row(layers.SLSTM(6, heads=2)),
    "SelfAttention, full": Row(layers.SelfAttention(2, causal=False)),
    "SelfAttention, causal": Row(layers.SelfAttention(2)),
    "SelfAttention, causal window": Row(layers.SelfAttention(2, window=4), reach=4),
    "SelfAttention, window of one": Row(layers.SelfAttention(2, window=1), reach=1),
    "SelfAttention, long window": Row(layers.SelfAttention(4, window=40)),
    "SelfAttention, window both ways": Row(layers.SelfAttention(2, causal=False, window=4)),
    "SelfAttention, no positions": Row(layers.SelfAttention(1, window=7, rotary=None), reach=7),
    "Identity": Row(layers.Identity(), reach=1),
    "Dense": Row(layers.Dense(5), reach=1),
    "GatedMLP": Row(layers.GatedMLP(12), reach=1),
    "RMSNorm": Row(layers.RMSNorm(), reach=1),
    "LayerNorm": Row(layers.LayerNorm(), reach=1),
    "Dropout": Row(layers.Dropout(0.5), reach=1),
    "Embed": Row(layers.Embed(VOCABULARY, 6), reach=1, tokens=True),
    "Serial": Row(layers.Serial((layers.RMSNorm(), layers.LSTM(6), layers.Dense(5)))),
    "Serial, windows": Row(
        layers.Serial((layers.SelfAttention(2, window=3), layers.SelfAttention(2, window=4))),
        reach=6,
    ),
    "Serial, not streaming": Row(
        layers.Serial((layers.LSTM(8), layers.SelfAttention(2, causal=False)))
    ),
    "Parallel": Row(mixer()),
    "Parallel, concat": Row(
        layers.Parallel((layers.Identity(), layers.RNN(5)), combine=layers.concat)
    ),
    "Residual": Row(layers.Residual(layers.LSTM(WIDTH))),
    "Repeat": Row(layers.Repeat(layers.Residual(mixer()), depth=2)),
    "Repeat, not streaming": Row(
        layers.Repeat(layers.Residual(layers.SelfAttention(2, causal=False)), depth=2)
    ),
    "hybrids.recurrence_beside_attention": Row(hybrids.recurrence_beside_attention(WIDTH, 2, 4)),
    "hybrids.pre_norm_block": Row(hybrids.pre_norm_block(layers.RNN(WIDTH), 12, 0.1)),
    "Repeat, nested": Row(
        layers.Repeat(layers.Repeat(layers.Residual(layers.RNN(WIDTH)), depth=2), depth=2)
    ),
}


def inputs(row: Row, dtype: Any = jnp.float32) -> jax.Array:
    key = jax.random.key(7)
    if row.tokens:
        return jax.random.randint(key, (BATCH, LENGTH), 0, VOCABULARY)
    return jax.random.normal(key, (BATCH, LENGTH, WIDTH)).astype(dtype)


@functools.cache
def variables(row: Row) -> Any:
    """Fresh variables, moved a little, so that biases and scales are not at round numbers."""
    fresh = jax.jit(row.layer.init)(jax.random.key(3), inputs(row)[:, :1])
    leaves, tree = jax.tree.flatten(fresh)
    noise = np.random.default_rng(5)
    return jax.tree.unflatten(tree, [a + 0.1 * noise.normal(size=a.shape) for a in leaves])


def packed() -> Context:
    return Context(segments=jnp.asarray(SEGMENTS))


@dataclasses.dataclass(frozen=True)
class Result:
    """Outputs, and the gradients of a fixed random projection of them."""

    y: jax.Array
    d_x: jax.Array | None
    d_variables: Any


Program = Callable[[Any, jax.Array, Context], jax.Array]


def differentiated(row: Row, program: Program) -> Callable[..., Result]:
    """`(x, context, weigh) -> Result`, compiled once; `weigh` weighs outputs in the loss."""

    def loss(weights: Any, x: jax.Array, context: Context, weigh: Any) -> Any:
        y = program(weights, x, context)
        toward = jax.random.normal(jax.random.key(11), y.shape)
        return jnp.sum(y.astype(jnp.float32) * toward * weigh), y

    argnums = (0,) if row.tokens else (0, 1)
    gradient = jax.jit(jax.value_and_grad(loss, argnums=argnums, has_aux=True))

    def run(x: jax.Array, context: Context, weigh: Any = 1.0) -> Result:
        (_, y), d = gradient(variables(row), x, context, weigh)
        return Result(y, None if row.tokens else d[1], d[0])

    return run


@functools.cache
def whole(row: Row) -> Callable[..., Result]:
    """The layer over all steps at once: what every law compares with."""
    return differentiated(
        row, lambda weights, x, context: row.layer.apply(weights, x, None, context)[0]
    )


@functools.cache
def applied(row: Row) -> Callable[..., Any]:
    """`(x, state, context) -> (y, state)`, compiled."""
    return functools.partial(jax.jit(row.layer.apply), variables(row))


def close(got: Any, wanted: Any, what: str, tolerance: float = 1e-5) -> None:
    """Every entry within `tolerance` of the largest entry of all the arrays."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted), what
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)
    ]
    scale = max((float(np.max(np.abs(b), initial=0.0)) for _, b in pairs), default=0.0)
    for a, b in pairs:
        assert a.shape == b.shape, f"{what}: {a.shape} is not {b.shape}"
        error = float(np.max(np.abs(a - b), initial=0.0))
        assert error <= tolerance * scale, f"{what}: off by {error:.2e} at scale {scale:.2e}"


def identical(got: Any, wanted: Any, what: str) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=what)


def same(got: Result, wanted: Result, what: str) -> None:
    for field in ("y", "d_x", "d_variables"):
        close(getattr(got, field), getattr(wanted, field), f"{what}: {field}")


def fresh_state(row: Row) -> Any:
    return zero_state(row.layer, variables(row), inputs(row)[:, :1])


def first_row(leaf: jax.Array) -> jax.Array:
    assert leaf.shape[0] == BATCH, f"axis 0 of {leaf.shape} is not the batch"
    return leaf[:1]


def cut(context: Context, start: int, stop: int) -> Context:
    if context.segments is None:
        return context
    return context.replace(segments=context.segments[:, start:stop])


def check_zero(row: Row) -> None:
    """A fresh state is zeros, of a structure that does not depend on T."""
    zeros = fresh_state(row)
    longer = zero_state(row.layer, variables(row), inputs(row))
    assert jax.tree.structure(zeros) == jax.tree.structure(longer), "structure depends on T"
    for one, other in zip(jax.tree.leaves(zeros), jax.tree.leaves(longer), strict=True):
        assert one.shape == other.shape, "size depends on T"
        assert one.dtype == other.dtype, "dtype depends on T"
    first_rows = map_batch(first_row, zeros)  # axis 0 is B
    applied(row)(inputs(row)[:1], first_rows, Context())
    x = inputs(row)
    given = differentiated(
        row, lambda weights, x, context: row.layer.apply(weights, x, zeros, context)[0]
    )
    for context in (Context(), packed()):
        same(given(x, context), whole(row)(x, context), "None is not zeros")


def check_split(row: Row, cuts: tuple[int, ...] | None = None) -> None:
    """Cutting time anywhere changes nothing, down to single steps."""
    x = inputs(row)
    if cuts is None:  # a place drawn by the layer, so that rows do not all cut at one
        cuts = (1 + sum(map(ord, repr(row.layer))) % (LENGTH - 1),)
    for k in cuts:

        def in_two(weights: Any, x: jax.Array, context: Context, k: int = k) -> jax.Array:
            y, state = row.layer.apply(weights, x[:, :k], None, cut(context, 0, k))
            z, _ = row.layer.apply(weights, x[:, k:], state, cut(context, k, LENGTH))
            return jnp.concatenate([y, z], axis=1)

        split = differentiated(row, in_two)
        for context in (Context(), packed()):
            same(split(x, context), whole(row)(x, context), f"cut at {k}")

    def by_steps(weights: Any, x: jax.Array, context: Context) -> jax.Array:
        def step(state: Any, at: Any) -> tuple[Any, jax.Array]:
            y, state = row.layer.apply(weights, at[0], state, Context(segments=at[1]))
            return state, y[:, 0]

        steps = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0)[:, :, None], (x, context.segments))
        return jnp.moveaxis(jax.lax.scan(step, fresh_state(row), steps)[1], 0, 1)

    same(differentiated(row, by_steps)(x, packed()), whole(row)(x, packed()), "single steps")


def check_segment(row: Row) -> None:
    """A packed document equals itself alone; the others do not notice what is in it."""
    x = inputs(row)
    among = whole(row)(x, packed()).y
    for b, number in ((0, 2), (1, 5)):
        at = np.flatnonzero(SEGMENTS[b] == number)
        alone = applied(row)(x[b : b + 1, at])[0]
        close(among[b : b + 1, at], alone, f"document {number} of row {b} alone")
    for b, number in ((0, 1), (0, 3), (1, 5)):
        inside = np.zeros((BATCH, LENGTH, 1), bool)
        inside[b] = (SEGMENTS[b] == number)[:, None]
        if row.tokens:
            other = jnp.where(inside[..., 0], (x + 1) % VOCABULARY, x)
        else:
            other = jnp.where(inside, -3.0 * x + 1.0, x)
        weigh = np.where(inside, 0.0, 1.0).astype(np.float32)
        before = whole(row)(x, packed(), weigh)
        after = whole(row)(other, packed(), weigh)
        what = f"altering document {number} of row {b} changes another's"
        identical(before.y * weigh, after.y * weigh, f"{what} output")
        identical(before.d_variables, after.d_variables, f"{what} parameter gradient")
        if not row.tokens:
            identical(before.d_x, after.d_x, f"{what} gradient")


def check_padding(row: Row) -> None:
    """A padded step is no step, whatever is written there."""
    x, pad = inputs(row), SEGMENTS == 0
    clean = whole(row)(x, packed())
    assert not np.any(np.asarray(clean.y)[pad]), "output at padding"
    if row.tokens:
        dirty = whole(row)(jnp.where(pad, -1, x), packed())
    else:
        dirty = whole(row)(jnp.where(pad[..., None], jnp.nan, x), packed())
        assert not np.any(np.asarray(dirty.d_x)[pad]), "gradient at padding"
    identical(dirty.y, clean.y, "what is written at padding changes outputs")
    identical(dirty.d_variables, clean.d_variables, "what is written at padding changes gradients")

    if not row.layer.streams:
        return
    # A document, cut; a call of nothing but padding; the rest, with padding in front of it.
    k, apply = 6, applied(row)
    ones, none = jnp.ones((BATCH, LENGTH), jnp.int32), jnp.zeros((BATCH, 4), jnp.int32)
    wanted = whole(row)(x, Context()).y
    y, state = apply(x[:, :k], None, Context(segments=ones[:, :k]))
    _, after = apply(x[:, :4], state, Context(segments=none))
    identical(after, state, "padding changes the state")
    z, _ = apply(
        jnp.concatenate([x[:, :4], x[:, k:]], axis=1),
        after,
        Context(segments=jnp.concatenate([none, ones[:, k:]], axis=1)),
    )
    close(jnp.concatenate([y, z[:, 4:]], axis=1), wanted, "padding before the rest of a document")


def check_causality(row: Row) -> None:
    """An output depends on its own step, on those within reach, and on no others."""
    if not row.layer.streams:
        return
    weights, x = variables(row), inputs(row)[:1]
    if row.tokens:
        y = np.asarray(applied(row)(x)[0])
        depends = np.zeros((LENGTH, LENGTH), bool)
        for s in range(LENGTH):
            other = applied(row)(x.at[0, s].set((x[0, s] + 1) % VOCABULARY))[0]
            depends[:, s] = np.any(np.asarray(other) != y, axis=(0, 2))
    else:
        y, pull = jax.vjp(lambda x: row.layer.apply(weights, x)[0], x)
        toward = jax.random.normal(jax.random.key(2), y.shape)
        at = jnp.eye(LENGTH)[:, None, :, None] * toward[None]
        depends = np.any(np.asarray(jax.jit(jax.vmap(pull))(at)[0]) != 0, axis=(1, 3))
    reach = LENGTH if row.reach is None else row.reach
    for t in range(LENGTH):
        first = max(0, t - reach + 1)
        assert not depends[t, t + 1 :].any(), f"step {t} depends on a later one"
        assert not depends[t, :first].any(), f"step {t} depends on one out of reach"
        assert depends[t, t], f"step {t} does not depend on itself"
        assert depends[t, first], f"step {t} does not depend on step {first}, within its reach"


def check_dtype(row: Row) -> None:
    """The dtype of x is the dtype of y, jit changes nothing, and nothing seen gives zeros."""
    x = inputs(row)
    y = whole(row)(x, packed()).y
    close(row.layer.apply(variables(row), x, None, packed())[0], y, "eager is not jit")
    if not row.tokens:
        assert y.dtype == x.dtype, f"float32 became {y.dtype}"
        # Long enough for a carry kept in bfloat16 to go astray.
        long = jnp.tile(x, (1, 16, 1)).astype(jnp.bfloat16)
        half = applied(row)(long)[0]
        assert half.dtype == jnp.bfloat16, f"bfloat16 became {half.dtype}"
        wanted = np.asarray(applied(row)(long.astype(jnp.float32))[0])
        error = np.max(np.abs(np.asarray(half, np.float32) - wanted))
        assert error <= 3e-2 * np.max(np.abs(wanted)), f"bfloat16 is off by {error:.2e}"
    nothing = Context(segments=jnp.asarray(SEGMENTS).at[0].set(0))
    result = whole(row)(x, nothing)
    assert not np.any(np.asarray(result.y[0])), "a row that sees nothing gives something"
    for leaf in jax.tree.leaves((result.y, result.d_x, result.d_variables)):
        assert np.all(np.isfinite(leaf)), "a row that sees nothing gives NaN"


def check_refusal(row: Row) -> None:
    """A layer that does not stream takes no state, gives none, and says why."""
    weights, x = variables(row), inputs(row)
    assert row.layer.apply(weights, x)[1] == (), "a state is returned"
    try:
        row.layer.apply(weights, x, jnp.zeros((BATCH, 1)))
    except ValueError as error:
        assert "later steps" in str(error), f"the refusal does not say why: {error}"
    else:
        raise AssertionError("a state is accepted")


ANY: dict[str, Callable[[Row], None]] = {
    "segment": check_segment,
    "padding": check_padding,
    "dtype": check_dtype,
}
STREAMING = ANY | {"zero": check_zero, "split": check_split, "causality": check_causality}
WHOLE = ANY | {"refusal": check_refusal}


def laws(row: Row) -> dict[str, Callable[[Row], None]]:
    """The laws that bind a row."""
    return STREAMING if row.layer.streams else WHOLE


def every_cut(row: Row) -> None:
    """The law of Split at every place; slow."""
    functools.partial(check_split, cuts=tuple(range(1, LENGTH)))(row)
