"""Linear recurrent layers and linear attention against their formulas, step by step, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import elu, sigmoid, softplus

from recattn_jax.layers import (
    MLSTM,
    RGLRU,
    Context,
    LinearAttention,
    MinGRU,
    MinLSTM,
)
from tests.oracles import assert_close, assert_gradients_close

B, T, D, H, K = 2, 11, 6, 2, 3


def min_gru(params, x):
    gates = jnp.einsum("btd,dgh->btgh", x, params["input_kernel"]) + params["bias"][None, None]
    h, out = 0.0, []
    for t in range(T):
        z = sigmoid(gates[:, t, 0])
        h = (1 - z) * h + z * gates[:, t, 1]
        out.append(h)
    return jnp.stack(out, 1), (h,)


def min_lstm(params, x):
    gates = jnp.einsum("btd,dgh->btgh", x, params["input_kernel"]) + params["bias"][None, None]
    h, out = 0.0, []
    for t in range(T):
        f, i = sigmoid(gates[:, t, 0]), sigmoid(gates[:, t, 1])
        h = f / (f + i) * h + i / (f + i) * gates[:, t, 2]
        out.append(h)
    return jnp.stack(out, 1), (h,)


def rg_lru(params, x):
    h, out = jnp.zeros((B, D)), []
    for t in range(T):
        gates = []
        for gate in range(2):
            blocks = [
                x[:, t, K * head : K * (head + 1)] @ params["gate_kernel"][head, :, gate]
                for head in range(H)
            ]
            bias = params["gate_bias"][gate].reshape(1, D)
            gates.append(sigmoid(jnp.concatenate(blocks, axis=1) + bias))
        a = jnp.exp(-8.0 * softplus(params["decay"])[None] * gates[0])
        h = a * h + jnp.sqrt(1 - a**2) * gates[1] * x[:, t]
        out.append(h)
    return jnp.stack(out, 1), (h,)


def heads(params, x):
    return [jnp.einsum("btd,dhk->bthk", x, params[n]["kernel"]) for n in ("query", "key", "value")]


def mlstm(params, x):
    q, k, v = heads(params, x)
    memory, normalizer, out = jnp.zeros((B, H, K, K)), jnp.zeros((B, H, K)), []
    for t in range(T):
        gates = {
            name: x[:, t] @ params[f"{name}_gate"]["kernel"] + params[f"{name}_gate"]["bias"][None]
            for name in ("input", "forget")
        }
        i, f = jnp.exp(gates["input"]), sigmoid(gates["forget"])
        key = k[:, t] / jnp.sqrt(K)
        outer = key[..., :, None] * v[:, t][..., None, :]
        memory = f[..., None, None] * memory + i[..., None, None] * outer
        normalizer = f[..., None] * normalizer + i[..., None] * key
        bottom = jnp.maximum(jnp.abs(jnp.sum(normalizer * q[:, t], -1)), 1.0)
        h = jnp.einsum("bhkv,bhk->bhv", memory, q[:, t]) / bottom[..., None]
        h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-6)
        o = jnp.einsum("bd,dhk->bhk", x[:, t], params["output_gate"]["kernel"])
        o = sigmoid(o + params["output_gate"]["bias"][None])
        h = o * h * params["norm"]["scale"][None]
        out.append(jnp.einsum("bhk,hkd->bd", h, params["out"]["kernel"]))
    return jnp.stack(out, 1), (memory, normalizer)


def linear_attention(params, x):
    """As attention: the weights of every pair of steps, normalised."""
    q, k, v = heads(params, x)
    q, k = elu(q) + 1, elu(k) + 1
    weights = jnp.einsum("bthk,bshk->bhts", q, k) * jnp.tril(jnp.ones((T, T)))[None, None]
    weights /= weights.sum(-1, keepdims=True)
    y = jnp.einsum("bhts,bshk->bthk", weights, v)
    memory = jnp.einsum("bshk,bshv->bhkv", k, v)
    return jnp.einsum("bthk,hkd->btd", y, params["out"]["kernel"]), (memory, k.sum(1))


def true_carry(state):
    """The carry; of a matrix memory, what its stabilizer scaled down."""
    if len(state.carry) == 1:
        return tuple(state.carry)
    top = jnp.exp(state.carry.stabilizer)
    return state.carry.memory * top[..., None, None], state.carry.normalizer * top[..., None]


LAYERS = {
    "MinGRU": (MinGRU(5), min_gru),
    "MinLSTM": (MinLSTM(5), min_lstm),
    "RGLRU": (RGLRU(H), rg_lru),
    "MLSTM": (MLSTM(H, chunk=4), mlstm),
    "LinearAttention": (LinearAttention(H, chunk=4), linear_attention),
}


@pytest.mark.parametrize("name", LAYERS)
def test_equals_its_formula(name: str) -> None:
    """Outputs, final state and gradients, in two calls: the second starts from a state."""
    layer, formula = LAYERS[name]

    def in_two(params, x):
        y, state = layer.apply({"params": params}, x[:, :3])
        z, state = layer.apply({"params": params}, x[:, 3:], state)
        return jnp.concatenate([y, z], axis=1), true_carry(state)

    def differentiate(run):
        def loss(params, x):
            y, carry = run(params, x)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in (y, *carry)), (y, carry)

        gradients, out = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
        return out, gradients

    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        x = jnp.asarray(random.normal(size=(B, T, D)))
        params = jax.tree.map(
            lambda a: jnp.asarray(a + 0.3 * random.normal(size=a.shape), jnp.float64),
            jax.jit(layer.init)(jax.random.key(0), x[:, :1])["params"],
        )
        out, gradients = differentiate(in_two)
        wanted_out, wanted = differentiate(formula)
        assert out[0].dtype == jnp.float64
        assert_close(out, wanted_out, 1e-10)
        assert_gradients_close(gradients, wanted, 1e-10)


SEGMENTS = jnp.array([[0, 1, 1, 1, 0, 2, 2, 2, 2, 2, 2], [4, 4, 4, 5, 5, 5, 5, 5, 5, 0, 0]])


def followed(state, step, segments):
    """The states that gates make of a state, where documents start anew and padding is no step."""
    number, found = 4 * np.ones(B), []  # the document of the state
    for t, now in enumerate(np.asarray(segments).T):
        begun = (now != number) & (now > 0)
        after = step(np.where(begun.reshape((B,) + (1,) * (state.ndim - 1)), 0.0, state), t)
        state = np.where((now > 0).reshape((B,) + (1,) * (state.ndim - 1)), after, state)
        number = np.where(now > 0, now, number)
        found.append(state)
    return np.stack(found, 1)


@pytest.mark.parametrize("name", ["MinGRU", "MLSTM", "LinearAttention"])
def test_shown_gates_make_the_states(name: str) -> None:
    """In two documents and padding, of which the first goes on; and looking changes nothing."""
    layer, _ = LAYERS[name]
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    _, state = layer.apply(variables, 2 * x[:, :3])
    state = state.replace(segment=jnp.full((B,), 4))
    context = Context(segments=SEGMENTS)
    (y, last), notes = layer.apply(variables, x, state, context, mutable=["intermediates"])
    plain, carried = layer.apply(variables, x, state, context)
    assert (y == plain).all() and jax.tree.all(jax.tree.map(jnp.array_equal, last, carried))
    (gates,) = notes["intermediates"]["gates"]
    if name == "MinGRU":
        ((shown,),) = notes["intermediates"]["carries"]
        made = followed(
            np.asarray(state.carry[0]),
            lambda h, t: gates["decay"][:, t] * h + gates["input"][:, t],
            SEGMENTS,
        )
        assert_close(shown, made, 1e-6)
        assert_close(y[SEGMENTS > 0], made[SEGMENTS > 0], 1e-6)
        return
    _, k, v = heads(variables["params"], x)
    k = k / jnp.sqrt(K) if name == "MLSTM" else elu(k) + 1
    forget, given = (gates.get(gate, jnp.ones((B, T, H))) for gate in ("forget", "input"))
    assert set(gates) == ({"forget", "input"} if name == "MLSTM" else set())

    def remember(memory, t):
        outer = k[:, t][..., :, None] * v[:, t][..., None, :]
        return forget[:, t][..., None, None] * memory + given[:, t][..., None, None] * outer

    def count(normalizer, t):
        return forget[:, t][..., None] * normalizer + given[:, t][..., None] * k[:, t]

    memory, normalizer = (
        followed(np.asarray(before), step, SEGMENTS)
        for before, step in zip(true_carry(state), (remember, count), strict=True)
    )
    assert_close((memory[:, -1], normalizer[:, -1]), true_carry(last), 1e-5)
    norms = np.linalg.norm(memory, axis=(-2, -1)), np.linalg.norm(normalizer, axis=-1)
    assert_close(notes["intermediates"]["norms"][0], norms, 1e-5)


@pytest.mark.parametrize("name", ["MinLSTM", "RGLRU", "MLSTM"])
def test_extreme_gates_are_finite_in_value_and_gradient(name: str) -> None:
    """Inputs, and so the gates before their nonlinearity, of hundreds."""
    layer, _ = LAYERS[name]
    x = 300.0 * jax.random.normal(jax.random.key(0), (B, T, D))
    x = x.at[:, 4].set(0.0)
    params = jax.jit(layer.init)(jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda a: a + 0.3 * jax.random.normal(jax.random.key(2), a.shape), params)

    def loss(params, x):
        y, _ = layer.apply({"params": params}, x)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))), y

    gradients, y = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
    for leaf in jax.tree.leaves((y, gradients)):
        assert np.isfinite(leaf).all()


def test_a_unit_that_forgets_nothing_has_a_gradient() -> None:
    """RGLRU with a = 1: sqrt(1 - a^2) is at its infinite slope."""
    layer, x = RGLRU(H), jnp.ones((B, T, D))
    params = jax.jit(layer.init)(jax.random.key(0), x)["params"]
    params["decay"] = jnp.full((D,), -200.0)
    gradients = jax.grad(lambda p: jnp.sum(layer.apply({"params": p}, x)[0]))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_how_parameters_start() -> None:
    width, x = 400, jnp.ones((1, 1, 400))
    params = jax.jit(RGLRU(4).init)(jax.random.key(0), x)["params"]
    slowest = np.exp(-8.0 * np.asarray(softplus(params["decay"]), np.float64))
    assert slowest.min() > 0.8999 and slowest.max() < 0.99901
    assert slowest.mean() == pytest.approx(0.9495, abs=0.006)
    assert float(params["gate_kernel"].std()) == pytest.approx(100**-0.5, rel=0.03)
    kernel = jax.jit(MinLSTM(200).init)(jax.random.key(1), x)["params"]["input_kernel"]
    np.testing.assert_allclose(kernel.std(axis=(0, 2)), width**-0.5, rtol=0.03)
    params = jax.jit(MLSTM(4).init)(jax.random.key(2), x)["params"]
    for part in ("query", "key", "value", "output_gate", "out"):
        assert float(params[part]["kernel"].std()) == pytest.approx(width**-0.5, rel=0.03)
    np.testing.assert_allclose(params["forget_gate"]["bias"], [3.0, 4.0, 5.0, 6.0], rtol=1e-6)
    assert not np.any(params["forget_gate"]["kernel"]) and not np.any(
        params["input_gate"]["kernel"]
    )


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (RGLRU(4), "RGLRU: heads=4 must divide the width of x, which is 6"),
        (MLSTM(4), "MLSTM: heads=4 must divide the width of x, which is 6"),
        (LinearAttention(2, chunk=0), "LinearAttention: chunk=0 must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(layer, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        jax.jit(layer.init)(jax.random.key(0), jnp.ones((B, T, D)))


@pytest.mark.parametrize("name", ["MinGRU", "MLSTM"])
def test_the_state_of_another_is_refused(name: str) -> None:
    layer, x = LAYERS[name][0], jnp.ones((B, 2, D))
    (_, state), variables = layer.init_with_output(jax.random.key(0), x)
    with pytest.raises(ValueError, match=f"{name}: state is for a batch of 2, x has 1"):
        layer.apply(variables, x[:1], state)
    with pytest.raises(ValueError, match=f"{name}: state must be a RecurrentState of . arrays"):
        layer.apply(variables, x, (state, state))


def test_no_segments_after_segments_is_document_one() -> None:
    """A carried matrix of document 3 does not leak into a call without segments."""
    layer, x = LAYERS["MLSTM"][0], jax.random.normal(jax.random.key(0), (B, 5, D))
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    _, state = layer.apply(variables, x, None, Context(segments=jnp.full((B, 5), 3)))
    assert_close(layer.apply(variables, x, state)[0], layer.apply(variables, x)[0])
