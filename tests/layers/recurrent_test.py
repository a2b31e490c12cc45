"""Recurrent layers against torch, flax and their formulas, and how their parameters start."""

import importlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.kernels import recurrence
from recattn_jax.layers import (
    GRU,
    LSTM,
    RNN,
    SLSTM,
    Context,
    Dense,
    GatedMLP,
    Recurrent,
    SelfAttention,
)
from tests.layers.formulas import assert_same_function, formula, perturbed
from tests.oracles import assert_close, assert_gradients_close, oracle

B, T, D, H, P = 4, 37, 6, 8, 3
LENGTHS = np.array([37, 1, 20, 36])


def from_torch(layer: Recurrent, weights: dict[str, Any]) -> dict[str, jax.Array]:
    """Our parameters, or gradients, from torch's, whose recurrent bias is 0 (but of n of a GRU)."""

    def kernel(name: str) -> np.ndarray:
        rows = weights[name].detach().numpy()
        return np.moveaxis(rows.reshape(layer.gates, -1, rows.shape[1]), -1, 0)

    ours = {
        "input_kernel": kernel("weight_ih_l0"),
        "recurrent_kernel": kernel("weight_hh_l0"),
        "bias": weights["bias_ih_l0"].detach().numpy().reshape(layer.gates, -1),
    }
    if isinstance(layer, GRU):
        recurrent = weights["bias_hh_l0"].detach().numpy().reshape(layer.gates, -1)
        ours["bias"] = np.concatenate([ours["bias"], recurrent[2:]])
    if "weight_hr_l0" in weights:
        ours["projection_kernel"] = weights["weight_hr_l0"].detach().numpy().T
    return jax.tree.map(jnp.asarray, ours)


TORCH = {
    "LSTM": (LSTM(H), {}),
    "LSTM, projection": (LSTM(H, projection=P), {"proj_size": P}),
    "RNN": (RNN(H), {}),
    "RNN, relu": (RNN(H, activation=nn.relu), {"nonlinearity": "relu"}),
    "GRU": (GRU(H), {}),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("packed", [False, True])
def test_equals_torch(name: str, packed: bool) -> None:
    """Outputs, final state, and the gradients of inputs, initial state and every parameter."""
    torch = oracle("torch")
    layer, options = TORCH[name]
    torch.manual_seed(0)
    theirs = getattr(torch.nn, type(layer).__name__)(D, H, batch_first=True, **options)
    with torch.no_grad():
        theirs.bias_hh_l0[: (2 * H if isinstance(layer, GRU) else None)] = 0.0
    params = from_torch(layer, dict(theirs.named_parameters()))
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    _, state = layer.apply({"params": params}, x[:, :3])  # a state that is not zeros
    context = Context.from_lengths(jnp.asarray(LENGTHS), T) if packed else Context()

    def loss(params, x, carry):
        start = state.replace(carry=carry)
        y, last = layer.apply({"params": params}, x, start, context)
        return jnp.sum(jnp.sin(y)) + sum(jnp.sum(jnp.cos(c)) for c in last.carry), (y, last.carry)

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (_, (y, last)), (d_params, d_x, d_carry) = gradient(params, x, state.carry)

    tensor = torch.tensor(np.asarray(x), requires_grad=True)
    carry = [torch.tensor(np.asarray(c)[None], requires_grad=True) for c in state.carry]
    inputs = tensor
    if packed:
        inputs = torch.nn.utils.rnn.pack_padded_sequence(
            tensor, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
        )
    out, final = theirs(inputs, tuple(carry) if len(carry) > 1 else carry[0])
    if packed:
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=T)
    final = final if len(carry) > 1 else (final,)
    (out.sin().sum() + sum(f.cos().sum() for f in final)).backward()

    assert_close((y, last), (out.detach().numpy(), tuple(f[0].detach().numpy() for f in final)))
    gradients = from_torch(layer, {name: p.grad for name, p in theirs.named_parameters()})
    assert_gradients_close(
        (d_params, d_x, d_carry),
        (gradients, tensor.grad.numpy(), tuple(c.grad.numpy()[0] for c in carry)),
    )


def from_flax(layer: Recurrent, cell: Any) -> dict[str, jax.Array]:
    """Our parameters from those of flax's cell."""
    inputs, hidden = {RNN: (["i"], ["h"])}.get(type(layer), (None, None))
    if inputs is None:
        gates = "ifgo" if isinstance(layer, LSTM) else "rzn"
        inputs, hidden = [f"i{g}" for g in gates], [f"h{g}" for g in gates]
    biases = hidden if isinstance(layer, LSTM) else inputs
    if isinstance(layer, GRU):
        biases = [*biases, "hn"]
    return {
        "input_kernel": jnp.stack([cell[name]["kernel"] for name in inputs], axis=1),
        "recurrent_kernel": jnp.stack([cell[name]["kernel"] for name in hidden], axis=1),
        "bias": jnp.stack([cell[name]["bias"] for name in biases]),
    }


@pytest.mark.parametrize(
    ("layer", "cell"),
    [
        (RNN(H), nn.SimpleCell(H)),
        (LSTM(H), nn.OptimizedLSTMCell(H)),
        (GRU(H), nn.GRUCell(H)),  # it resets after the product
    ],
    ids=["RNN", "LSTM", "GRU"],
)
def test_equals_flax(layer: Recurrent, cell: nn.Module) -> None:
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    theirs = nn.RNN(cell, return_carry=True)
    weights = jax.jit(theirs.init)(jax.random.key(1), x)["params"]["cell"]
    noise = np.random.default_rng(0)
    weights = jax.tree.map(lambda w: w + 0.1 * noise.normal(size=w.shape), weights)  # biases too

    def run(weights, x):
        return theirs.apply({"params": {"cell": weights}}, x)

    def run_ours(weights, x):
        y, state = layer.apply({"params": from_flax(layer, weights)}, x)
        return state.carry[::-1] if len(state.carry) > 1 else state.carry[0], y

    def gradients(run):
        return jax.grad(
            lambda *a: sum(jnp.sum(jnp.sin(o)) for o in jax.tree.leaves(run(*a))), (0, 1)
        )

    assert_close(jax.jit(run_ours)(weights, x), jax.jit(run)(weights, x))
    assert_gradients_close(
        jax.jit(gradients(run_ours))(weights, x), jax.jit(gradients(run))(weights, x)
    )


@pytest.mark.parametrize("reset_after", [False, True])
def test_gru_equals_keras(reset_after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where keras is installed; it orders the gates z, r, n."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    try:
        keras = importlib.import_module("keras")
    except ImportError:
        pytest.skip("keras is not installed: nothing to compare with")
    layer, x = GRU(H, reset_after=reset_after), jax.random.normal(jax.random.key(0), (B, 9, D))
    params = perturbed(layer, x)
    order = np.array([1, 0, 2])

    def flat(kernel):
        return np.asarray(kernel)[..., order, :].reshape(*kernel.shape[:-2], -1)

    bias = np.asarray(params["bias"])
    if reset_after:
        bias = np.stack([bias[:3], np.stack([np.zeros(H), np.zeros(H), bias[3]])])
    theirs = keras.layers.GRU(H, reset_after=reset_after, return_sequences=True)
    with jax.numpy_rank_promotion("allow"):
        theirs.build(x.shape)
        theirs.set_weights(
            [flat(params["input_kernel"]), flat(params["recurrent_kernel"]), flat(bias)]
        )
        wanted = theirs(x)
    assert_close(layer.apply({"params": params}, x)[0], wanted)


@pytest.mark.parametrize(
    "layer",
    [
        LSTM(H, peepholes=True),
        LSTM(H, projection=P, peepholes=True, layer_norm=True),
        GRU(H, reset_after=False),
        GRU(H, layer_norm=True),
        GRU(H, reset_after=False, layer_norm=True),
        SLSTM(H, heads=2),
    ],
    ids=lambda layer: f"{type(layer).__name__}",
)
def test_equals_its_formula(layer: Recurrent) -> None:
    """Outputs and gradients, in float64, which stays float64."""
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, 4, D), jnp.float64)
        assert_same_function(
            lambda params, x: layer.apply({"params": params}, x)[0],
            lambda params, x: formula(layer, params, x),
            perturbed(layer, x),
            x,
        )


def test_slstm_is_safe_where_its_formula_overflows() -> None:
    """exp(i) alone would be infinite, or zero, in float32."""
    layer, x = SLSTM(H), jnp.ones((1, 4, D))
    params = jax.jit(layer.init)(jax.random.key(0), x)["params"]
    for size in (-500.0, 500.0):
        biased = params | {"bias": params["bias"].at[0].set(size)}

        def loss(params):
            return jnp.sum(jnp.square(layer.apply({"params": params}, x)[0]))

        assert np.isfinite(loss(biased))
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.grad(loss)(biased)))


def test_recomputing_changes_nothing() -> None:
    """`remat_every` that does not divide T, with padding, documents and a state carried on."""
    x = jax.random.normal(jax.random.key(0), (B, 11, D))
    context = Context(segments=jnp.asarray([[0, 1, 1, 1, 0, 2, 2, 2, 3, 3, 0]] * B))
    plain = LSTM(H, projection=P)
    params = perturbed(plain, x)

    def run(layer):
        def loss(params, x):
            y, state = layer.apply({"params": params}, x, None, context)
            z, _ = layer.apply({"params": params}, x, state, context)
            return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(z)), (y, z)

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)

    assert_gradients_close(run(plain.clone(remat_every=4)), run(plain), 1e-6)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (LSTM(H, projection=0), "LSTM: projection=0"),
        (SLSTM(H, heads=3), "SLSTM: heads=3 must divide features, which are 8"),
        (RNN(H, remat_every=0), "RNN: remat_every=0"),
    ],
)
def test_wrong_numbers_are_refused(layer: Recurrent, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        jax.jit(layer.init)(jax.random.key(0), jnp.ones((1, 2, D)))


def test_how_parameters_start() -> None:
    """Every gate is a matrix of its own: the usual initialisers misread `[D, G, H]`."""
    width, features = 50, 400
    params = jax.jit(LSTM(features, forget_bias=2.0).init)(
        jax.random.key(0), jnp.ones((1, 1, width))
    )["params"]
    np.testing.assert_allclose(params["input_kernel"].std(axis=(0, 2)), width**-0.5, rtol=0.03)
    np.testing.assert_allclose(
        params["recurrent_kernel"].std(axis=(0, 2)), features**-0.5, rtol=0.03
    )
    for gate in range(4):
        matrix = params["recurrent_kernel"][:, gate]
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(features), atol=1e-4)
    assert params["bias"].mean(axis=1).tolist() == [0.0, 2.0, 0.0, 0.0]


def test_how_the_other_cells_start() -> None:
    """Standard deviations of every kernel, gate by gate; products with h keep its norm."""
    width, features, projection, heads = 50, 200, 100, 2
    for layer, recurrent in (
        (RNN(features), features),
        (GRU(features), features),
        (LSTM(features, projection=projection), features),  # its rows are orthonormal
        (SLSTM(features, heads=heads), features // heads),
    ):
        params = jax.jit(layer.init)(jax.random.key(0), jnp.ones((1, 1, width)))["params"]
        for kernel, inputs in (
            (params["input_kernel"], width),
            (params["recurrent_kernel"], recurrent),
        ):
            spread = np.asarray(kernel).std(axis=tuple({*range(kernel.ndim)} - {kernel.ndim - 2}))
            np.testing.assert_allclose(spread, inputs**-0.5, rtol=0.03)
        if "projection_kernel" in params:
            assert params["projection_kernel"].std() == pytest.approx(features**-0.5, rel=0.03)
        if isinstance(layer, SLSTM):
            for kernel in np.moveaxis(params["recurrent_kernel"], 2, 1).reshape(-1, 100, 100):
                np.testing.assert_allclose(kernel @ kernel.T, np.eye(100), atol=1e-4)
            assert params["bias"][1, [0, -1]].tolist() == [3.0, 6.0]


def test_every_kernel_starts_with_variance_one_over_its_inputs() -> None:
    width, x = 400, jnp.ones((1, 1, 400))
    attention = jax.jit(SelfAttention(8).init)(jax.random.key(0), x)["params"]
    mlp = jax.jit(GatedMLP(600).init)(jax.random.key(1), x)["params"]
    for kernel, inputs in (
        (attention["key"]["kernel"], width),
        (attention["out"]["kernel"], width),
        (mlp["gate"]["kernel"], width),
        (mlp["up"]["kernel"], width),
        (mlp["down"]["kernel"], 600),
        (Dense(300).init(jax.random.key(2), x)["params"]["dense"]["kernel"], width),
    ):
        assert float(kernel.std()) == pytest.approx(inputs**-0.5, rel=0.03)


def test_an_eager_call_compiles_once() -> None:
    """Two eager calls of one shape trace one scan: the second is found compiled."""
    layer, x = LSTM(H), jnp.ones((B, 33, D))
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    layer.apply(variables, x)
    before = recurrence._compiled_scan._cache_size()
    layer.apply(variables, x + 1.0)
    assert recurrence._compiled_scan._cache_size() == before


def test_a_state_of_another_batch_is_refused() -> None:
    layer, x = LSTM(H), jnp.ones((B, 2, D))
    (_, state), variables = layer.init_with_output(jax.random.key(0), x)
    with pytest.raises(ValueError, match="state is for a batch of 4, x has 1"):
        layer.apply(variables, x[:1], state)


def test_no_segments_after_segments_is_document_one() -> None:
    """A carried state of document 3 does not leak into a call without segments."""
    layer, x = LSTM(H), jax.random.normal(jax.random.key(0), (B, 5, D))
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    _, state = layer.apply(variables, x, None, Context(segments=jnp.full((B, 5), 3)))
    assert_close(layer.apply(variables, x, state)[0], layer.apply(variables, x)[0])
