"""Every exported layer obeys every law; every law fails on a layer that breaks it."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import struct

from recattn_jax import layers
from recattn_jax.layers import Context, SequenceLayer
from recattn_jax.models import hybrids
from tests import laws
from tests.laws import TABLE, Row

ABSTRACT = {"SequenceLayer", "Combinator", "Recurrent", "Pointwise"}


def every_law() -> list:
    """All laws of all rows.

    A hybrid is made of layers that obey every law, by combinators that keep them, and a variant
    (`Name, what`) differs in what it computes from a layer that has a row of its own: both are in
    the slow run. Where all rows of a layer are variants, those are held by default to the laws that
    see how it goes through time.
    """
    return [
        pytest.param(name, law, marks=[] if by_default(name, law) else [pytest.mark.slow])
        for name, row in TABLE.items()
        for law in laws.laws(row)
    ]


def by_default(name: str, law: str) -> bool:
    if name.startswith("hybrids.") or name.partition(",")[0] in TABLE and "," in name:
        return False
    if law == "sum":  # combinators have no weights of their own, or next to none
        return "," not in name and not isinstance(TABLE[name].layer, layers.Combinator)
    if law == "seen":  # others only hand on what stands inside of them, or have nothing to show
        return "," not in name and isinstance(TABLE[name].layer, layers.Recurrent)
    return "," not in name or law in ("split", "segment", "refusal")


@pytest.mark.parametrize(("name", "law"), every_law())
def test_law(name: str, law: str) -> None:
    laws.laws(TABLE[name])[law](TABLE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.layer.streams])
def test_split_at_every_step(name: str) -> None:
    laws.check_every_cut(TABLE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_eager_is_jit(name: str) -> None:
    laws.check_eager(TABLE[name])


def test_every_exported_layer_is_in_the_table() -> None:
    exported = {
        name
        for name in layers.__all__
        if inspect.isclass(getattr(layers, name))
        and issubclass(getattr(layers, name), SequenceLayer)
    }
    named = {f"hybrids.{name}" for name in hybrids.__all__}
    assert {name.split(",")[0] for name in TABLE} == exported - ABSTRACT | named


@struct.dataclass
class SumState:
    total: jax.Array
    segment: jax.Array


class RunningSum(SequenceLayer):
    """`y_t` is the sum of the document's inputs so far: small, right, and broken in turn below."""

    leaks: bool = False
    looks_ahead: bool = False
    looks_away: bool = False
    forgets: bool = False
    starts_at: float = 0.0
    counts_padding: bool = False
    keeps_float32: bool = False
    divides_by_nothing: bool = False
    carries_in_x_dtype: bool = False
    rows_second: bool = False

    @property
    def streams(self) -> bool:
        return True

    @nn.compact
    def forward(self, x, state, context):
        batch, length, width = x.shape
        if self.rows_second and state is not None:
            state = state.replace(total=state.total.T)
        scale = self.param("scale", lambda _: jnp.ones((1, 1, 1)))
        if state is None:
            start = jnp.full((batch, width), self.starts_at)
            state = SumState(start, jnp.zeros((batch,), jnp.int32))
        segments = context.segments
        if segments is None:
            segments = jnp.ones((batch, length), jnp.int32)

        def step(state, at):
            x, now = at
            real = now > 0
            new = real & (now != state.segment) & (state.segment > 0)
            total = state.total
            if not self.leaks:
                total = jnp.where(new[:, None], 0.0, total)
            total = total + x + (1.0 if self.counts_padding else 0.0)
            total = total.astype(state.total.dtype)
            y = state.total if self.looks_away else total
            return SumState(total, jnp.where(real, now, state.segment)), y

        if self.carries_in_x_dtype:
            state = state.replace(total=state.total.astype(x.dtype))
        steps = (jnp.moveaxis(x.astype(jnp.float32), 1, 0), segments.T)
        state, y = jax.lax.scan(step, state, steps)
        y = jnp.moveaxis(y, 0, 1) * scale
        if self.looks_ahead:
            y = y + jnp.pad(x[:, 1:], ((0, 0), (0, 1), (0, 0))).astype(jnp.float32)
        if self.divides_by_nothing:
            y = y / jnp.sum(segments > 0, axis=1)[:, None, None]
        if self.forgets:
            state = state.replace(total=jnp.zeros_like(state.total))
        if self.rows_second:
            state = state.replace(total=state.total.T)
        return y if self.keeps_float32 else y.astype(x.dtype), state


def test_the_running_sum_obeys_the_laws() -> None:
    row = Row(RunningSum())
    for check in laws.laws(row).values():
        check(row)


@pytest.mark.parametrize(
    ("law", "broken", "says"),
    [
        ("zero", {"starts_at": 1.0}, "None is not zeros: y"),
        ("zero", {"rows_second": True}, "is not the batch"),
        ("split", {"forgets": True}, "cut at .*: y"),
        ("split", {"looks_ahead": True}, "cut at .*: y"),
        ("segment", {"leaks": True}, "document 2 of row 0 alone"),
        ("padding", {"counts_padding": True}, "padding changes the state"),
        ("causality", {"looks_ahead": True}, "depends on a later one"),
        ("causality", {"looks_away": True}, "does not depend on itself"),
        ("dtype", {"keeps_float32": True}, "bfloat16 became float32"),
        ("dtype", {"carries_in_x_dtype": True}, "bfloat16 is off"),
        ("dtype", {"divides_by_nothing": True}, "gives NaN"),
    ],
)
def test_a_broken_layer_fails(law: str, broken: dict, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        laws.STREAMING[law](Row(RunningSum(**broken)))


def test_a_layer_out_of_its_declared_reach_fails() -> None:
    for reach in (3, 5):
        row = Row(layers.SelfAttention(2, window=4), reach=reach)
        with pytest.raises(AssertionError, match="reach"):
            laws.check_causality(row)


class AcceptsState(SequenceLayer):
    """A layer that does not stream and hides the refusal of the base class."""

    @property
    def streams(self) -> bool:
        return False

    def __call__(self, x, state=None, context=Context()):  # what no layer may do
        return x, ()


def test_a_layer_that_accepts_what_it_cannot_use_fails() -> None:
    with pytest.raises(AssertionError, match="accepted"):
        laws.WHOLE["refusal"](Row(AcceptsState()))


@jax.custom_vjp
def mixed_up(x: jax.Array) -> jax.Array:
    """The identity; but in its gradient every step answers for all."""
    return x


mixed_up.defvjp(
    lambda x: (x, None), lambda _, d: (jnp.broadcast_to(d.sum(1, keepdims=True), d.shape),)
)


class WrongGradient(SequenceLayer):
    @property
    def streams(self) -> bool:
        return False

    @nn.compact
    def forward(self, x, state, context):
        scale = self.param("scale", lambda _: jnp.ones((1, 1, 1)))
        return mixed_up(x * scale.astype(x.dtype)), ()


def test_a_broken_gradient_fails() -> None:
    """Right outputs are not enough."""
    with pytest.raises(AssertionError, match="gradient"):
        laws.check_segment(Row(WrongGradient()))
