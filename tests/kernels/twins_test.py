"""Each twin for one backend against its reference: values and gradients, on a CPU.

Pallas kernels are interpreted, which fills what lies past the ends of an array with NaN; what only
a GPU has is replaced by a stand-in that its library brings for the same arguments.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental import rnn
from jax.experimental.pallas import triton as plgpu

from recattn_jax.kernels import attention, backends
from recattn_jax.kernels.attention import Marks, Reach, document_attention
from recattn_jax.kernels.gpu import attention as gpu_attention
from recattn_jax.kernels.gpu import linear_recurrence as gpu_linear
from recattn_jax.kernels.gpu import lstm as gpu_lstm
from recattn_jax.kernels.gpu import recurrence as gpu_recurrence
from recattn_jax.kernels.linear_recurrence import linear_recurrence
from recattn_jax.kernels.tpu import attention as tpu_attention
from recattn_jax.kernels.tpu import linear_recurrence as tpu_linear
from recattn_jax.layers import (
    GRU,
    LSTM,
    ALiBi,
    Context,
    Dot,
    MinGRU,
    Noise,
    ScaledDot,
    SelfAttention,
)
from recattn_jax.layers.recurrent_state import RecurrentState
from tests.oracles import assert_close, assert_gradients_close, plainly

PLATFORM = {"gpu": "cuda", "tpu": "tpu"}
# Documents that start anywhere, the first step included; padding before, between and after them.
SEGMENTS = np.array(
    [
        [1, 1, 2, 2, 2, 2, 0, 3, 4, 4, 0],
        [5] * 11,
        [0, 0, 1, 0, 2, 2, 2, 2, 2, 0, 0],
        [0] * 11,
        [1] * 8 + [0] * 3,
    ]
)
B, T = SEGMENTS.shape


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes programs for another backend, whose Pallas kernels are interpreted, in small tiles."""

    def set_backend(name: str) -> None:
        monkeypatch.setattr(backends, "backend", lambda: name)
        real, attend = pl.pallas_call, jax.nn.dot_product_attention
        monkeypatch.setattr(pl, "pallas_call", lambda *a, **k: real(*a, **k | {"interpret": True}))
        monkeypatch.setattr(
            jax.nn,
            "dot_product_attention",
            lambda *a, implementation, **k: attend(*a, implementation="xla", **k),
        )
        monkeypatch.setattr(plgpu, "debug_barrier", lambda: None)
        monkeypatch.setattr(rnn, "lstm", lstm_stand_in)
        for module, tiles in TILES.items():
            for tile, size in tiles.items():
                monkeypatch.setattr(module, tile, size)

    return set_backend


def lstm_stand_in(x, h, c, weights, lengths, width, units, layers, dropout, bidirectional):
    parts = rnn.unpack_lstm_weights(weights, width, units, layers, bidirectional)
    shape = (width, units, layers, dropout, bidirectional)
    return plainly(rnn.lstm_ref)(x, h, c, *parts, lengths, *shape)


# Sizes of tiles that do not divide what they cut.
TILES: dict[Any, dict[str, int]] = {
    tpu_linear: {"ROWS": 2, "LANES": 4, "STEPS": 4, "UNROLL": 2},
    gpu_linear: {"LANES": 4, "UNROLL": 4},
    gpu_recurrence: {"ROWS": 2, "LEAST": 2, "PART": 4},
}


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def differentiated(how: Callable[..., Any], *arrays: Any) -> tuple[Any, Any]:
    """Values, and the gradients of the sum of their sines."""

    def loss(arrays: Any) -> Any:
        out = how(*arrays)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(out)), out

    (_, out), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays)
    return out, gradients


def assert_twins(got: tuple[Any, Any], wanted: tuple[Any, Any], tolerance: float = 1e-6) -> None:
    assert_close(got[0], wanted[0], tolerance)
    assert_gradients_close(got[1], wanted[1], tolerance)


@pytest.mark.parametrize("length", [1, 3, 8, T])
@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_linear_recurrence(backend: str, length: int, pretend: Callable[[str], None]) -> None:
    pretend(backend)
    arrays = jax.nn.sigmoid(draw(B, length, 6)), draw(B, length, 6, seed=1), draw(B, 6, seed=2)
    numbers = jnp.asarray(SEGMENTS[:, :length])
    starts = jnp.zeros_like(numbers, bool).at[:, 1:].set(numbers[:, 1:] != numbers[:, :-1])

    def run(implementation: str) -> tuple[Any, Any]:
        return differentiated(
            lambda *arrays: linear_recurrence(*arrays, starts, numbers > 0, implementation), *arrays
        )

    assert_twins(run("pallas"), run("sequential"))


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_a_linear_recurrent_layer(backend: str, pretend: Callable[[str], None]) -> None:
    layer, x, context = MinGRU(6), draw(B, T, 3), Context(segments=jnp.asarray(SEGMENTS))
    params = layer.init(jax.random.key(0), x)
    wanted = differentiated(lambda p, x: layer.apply(p, x, None, context), params, x)
    pretend(backend)
    twin = layer.clone(implementation="pallas")
    assert_twins(differentiated(lambda p, x: twin.apply(p, x, None, context), params, x), wanted)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("module", [gpu_linear, tpu_linear])
def test_linear_recurrence_lowers(module: Any, reverse: bool) -> None:
    """With tiles of their true size, for devices that need not be here."""
    x = jax.ShapeDtypeStruct((3, 37, 130), jnp.float32)
    platform = PLATFORM[module.__name__.split(".")[-2]]
    traced = jax.jit(partial(module.solve, reverse)).trace(x, x)
    assert "custom_call" in traced.lower(lowering_platforms=(platform,)).as_text()


ATTENTION = {"gpu": gpu_attention.attend, "tpu": tpu_attention.attend}


@pytest.mark.parametrize(
    ("reach", "packed"),
    [
        (Reach(True, None), True),
        (Reach(False, None), True),
        (Reach(True, 3), True),
        (Reach(False, 3), True),
        (Reach(True, 99), False),
        (Reach(True, 3), False),
        (Reach(False, 3), False),
    ],
)
@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_attention(
    backend: str, reach: Reach, packed: bool, pretend: Callable[[str], None]
) -> None:
    """Also: padding gives zeros, and everything is finite, in rows of nothing else too."""
    pretend(backend)
    arrays = draw(B, T, 4, 8), draw(B, T, 2, 8, seed=1), draw(B, T, 2, 8, seed=2)
    numbers = jnp.asarray(SEGMENTS) if packed else jnp.ones((B, T), jnp.int32)
    marks = Marks(numbers, jnp.broadcast_to(jnp.arange(T)[None], (B, T)))
    got = differentiated(
        lambda *a: ATTENTION[backend](*a, numbers if packed else None, reach), *arrays
    )
    wanted = differentiated(lambda *a: document_attention(*a, marks, marks, reach).mixed, *arrays)
    assert_twins(got, wanted)
    assert not got[0][numbers == 0].any()


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_an_attention_layer(
    backend: str, pretend: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stream carries on, and the weights, are those of the reference too."""
    layer = SelfAttention(2, window=4, score=ScaledDot(normalize=True))
    x, context = draw(B, T, 16).astype(jnp.bfloat16), Context(segments=jnp.asarray(SEGMENTS))
    params = layer.init(jax.random.key(0), x)

    def run(layer: SelfAttention, state: Any = None, **options: Any) -> Any:
        return jax.jit(lambda p, x: layer.apply(p, x, state, context, **options))(params, x)

    y, state = run(layer)
    weights, later = run(layer, mutable=["intermediates"]), run(layer, state)
    pretend(backend)
    twin = layer.clone(implementation={"gpu": "cudnn", "tpu": "splash"}[backend])
    with monkeypatch.context() as patch:
        patch.setattr(attention, "windowed_attention", None)  # is not called
        got, carried = run(twin)
    assert_close(got, y, 3e-2)
    assert_close(carried, state, 1e-6)
    assert_close(run(twin, mutable=["intermediates"]), weights, 1e-6)
    assert_close(run(twin, state), later, 1e-6)


@pytest.mark.parametrize(
    ("layer", "dtype", "says"),
    [
        (SelfAttention(2, score=Dot()), jnp.bfloat16, r"score=Dot\(\); use ScaledDot\(\)"),
        (SelfAttention(2, positions=ALiBi()), jnp.bfloat16, r"positions=ALiBi\(\); use Rotary"),
        (SelfAttention(2, sinks=True), jnp.bfloat16, "sinks=True; use False"),
        (SelfAttention(2, score=ScaledDot(cap=5.0)), jnp.bfloat16, "squeeze scores, cap=5.0; use"),
        (SelfAttention(2), jnp.float32, "bfloat16 or float16 .* got float32 and heads of 8; use"),
        (SelfAttention(4), jnp.bfloat16, "multiple of 8, got bfloat16 and heads of 4; use None"),
    ],
)
def test_what_a_kernel_cannot_do_is_refused(
    layer: SelfAttention, dtype: Any, says: str, pretend: Callable[[str], None]
) -> None:
    pretend("gpu")
    with pytest.raises(ValueError, match=says):
        layer.clone(implementation="cudnn").init(jax.random.key(0), jnp.ones((1, 4, 16), dtype))


def test_splash_squeezes_scores(pretend: Callable[[str], None]) -> None:
    x, layer = draw(1, T, 16), SelfAttention(2, score=ScaledDot(cap=0.5))
    params = layer.init(jax.random.key(0), x)
    wanted = differentiated(lambda p: layer.apply(p, x)[0], params)
    pretend("tpu")
    twin = layer.clone(implementation="splash")
    assert_twins(differentiated(lambda p: twin.apply(p, x)[0], params), wanted, 1e-5)


LENGTHS = np.arange(T)[None] < np.array([T, 1, 0, 7, 3])[:, None]
CONTEXTS = {
    "none": Context(),
    "lengths": Context(segments=jnp.asarray(LENGTHS * 4)),
    "packed": Context(segments=jnp.asarray(SEGMENTS)),
    "no padding": Context(segments=jnp.broadcast_to(jnp.array([[1] * 5 + [4] * 6]), (B, T))),
}


def recurrent(layer: Any, dtype: Any = jnp.float32) -> tuple[Any, ...]:
    """Parameters, inputs and a state of the documents 1 and 4."""
    x = draw(B, T, 3).astype(dtype)
    params = layer.init(jax.random.key(0), x)
    params = jax.tree.map(lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size).reshape(p.shape)), params)
    carry = tuple(draw(B, width, seed=n) for n, width in enumerate(layer.widths))
    return params, x, carry


def stepped(layer: Any, context: Context) -> Callable[..., Any]:
    def run(params: Any, x: Any, carry: Any) -> Any:
        segment = jnp.array([1, 4, 1, 1, 4])
        y, state = layer.apply(params, x, RecurrentState(carry, segment), context)
        return y.astype(jnp.float32), state.carry

    return run


@pytest.mark.parametrize("what", CONTEXTS)
@pytest.mark.parametrize(
    ("layer", "implementation"),
    [(LSTM(6), "cudnn"), (LSTM(6), "pallas"), (GRU(6), "pallas")],
)
def test_a_recurrent_layer(
    layer: Any, implementation: str, what: str, pretend: Callable[[str], None]
) -> None:
    """From a carry that some rows have of another document, in rows of only padding too."""
    arrays = recurrent(layer)
    wanted = differentiated(stepped(layer, CONTEXTS[what]), *arrays)
    pretend("gpu")
    twin = layer.clone(implementation=implementation)
    assert_twins(differentiated(stepped(twin, CONTEXTS[what]), *arrays), wanted, 3e-6)


def test_cudnn_takes_rows_with_lengths(
    pretend: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan, which would be wrong here, is only for rows that cuDNN cannot take."""
    layer = LSTM(6)
    arrays = recurrent(layer)
    pretend("gpu")
    twin = layer.clone(implementation="cudnn")

    def nothing(kernels: Any, x: Any, carry: Any, starts: Any, keep: Any) -> Any:
        return jnp.zeros((B, T, 6)), carry

    monkeypatch.setattr(gpu_lstm, "_scan", nothing)
    for what, same in (("lengths", True), ("packed", False)):
        got, wanted = (jax.jit(stepped(each, CONTEXTS[what]))(*arrays)[0] for each in (twin, layer))
        assert np.allclose(got, wanted, atol=1e-5) == same


@pytest.mark.parametrize("layer", [LSTM(6), GRU(6)])
def test_a_recurrent_kernel_in_bfloat16(layer: Any, pretend: Callable[[str], None]) -> None:
    """It rounds where the scan does."""
    arrays = recurrent(layer, jnp.bfloat16)
    wanted = differentiated(stepped(layer, CONTEXTS["packed"]), *arrays)
    pretend("gpu")
    twin = layer.clone(implementation="pallas")
    assert_twins(differentiated(stepped(twin, CONTEXTS["packed"]), *arrays), wanted, 1e-2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("layer", [LSTM(200), GRU(24)])
def test_a_recurrent_kernel_lowers(layer: Any, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward, for a GPU that need not be here."""
    x = jax.ShapeDtypeStruct((3, 5, 7), dtype)
    params = jax.eval_shape(layer.init, jax.random.key(0), x)
    monkeypatch.setattr(backends, "backend", lambda: "gpu")
    twin = layer.clone(implementation="pallas")
    program = jax.jit(jax.grad(lambda p, x: jnp.sum(twin.apply(p, x)[0]).astype(jnp.float32)))
    text = program.trace(params, x).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.custom_call") >= 2


@pytest.mark.parametrize(
    ("layer", "dtype", "says"),
    [
        (LSTM(6, peepholes=True, implementation="pallas"), jnp.float32, "not peepholes=True; leav"),
        (LSTM(6, remat_every=4, implementation="cudnn"), jnp.float32, "not remat_every=4; leave"),
        (GRU(6, reset_after=False, implementation="pallas"), jnp.float32, "not reset_after=False"),
        (GRU(6, noise=Noise(zoneout=0.1), implementation="pallas"), jnp.float32, "not noise=Noise"),
        (GRU(6, implementation="cudnn"), jnp.float32, "must be None or one of 'xla', 'pallas'"),
        (LSTM(6, implementation="cudnn"), jnp.bfloat16, "'cudnn' is float32, got bfloat16; use"),
        (LSTM(300, implementation="pallas"), jnp.float32, "at most 256 units .*, got 300 units"),
    ],
)
def test_what_a_recurrent_kernel_cannot_do_is_refused(
    layer: Any, dtype: Any, says: str, pretend: Callable[[str], None]
) -> None:
    pretend("gpu")
    with pytest.raises(ValueError, match=says):
        jax.eval_shape(layer.init, jax.random.key(0), jnp.ones((1, 4, 16), dtype))


def test_what_is_made_for_other_devices_is_refused() -> None:
    x = jnp.ones((1, 2, 3))
    with pytest.raises(ValueError, match="'pallas' needs a GPU or TPU, .* made for a CPU; use"):
        linear_recurrence(x, x, x[:, 0], implementation="pallas")
    for layer in (LSTM(2), SelfAttention(1, positions=None)):
        with pytest.raises(ValueError, match="'cudnn' needs a GPU, .* made for a CPU; use None"):
            layer.clone(implementation="cudnn").init(jax.random.key(0), x)


def test_the_backend_is_that_of_the_mesh() -> None:
    mesh = jax.sharding.AbstractMesh(
        (2,), ("data",), abstract_device=jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    )
    assert backends.backend() == "cpu"
    with jax.sharding.use_abstract_mesh(mesh):
        assert backends.backend() == "tpu"
