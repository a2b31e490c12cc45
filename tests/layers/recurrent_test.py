"""Recurrent layers against torch and flax, and how their parameters start."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.kernels import recurrence
from recattn_jax.layers import LSTM, RNN, Context, Dense, GatedMLP, SelfAttention
from tests.oracles import assert_close, assert_gradients_close, oracle

B, T, D, H = 4, 37, 6, 8
LENGTHS = np.array([37, 1, 20, 36])


def to_torch(kernel: np.ndarray) -> np.ndarray:
    """`[D, G, H]` to torch's `[G H, D]`."""
    return np.moveaxis(kernel, 0, -1).reshape(-1, kernel.shape[0])


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
@pytest.mark.parametrize("packed", [False, True])
def test_equals_torch(kind: str, packed: bool) -> None:
    """Outputs, final state, and the gradients of inputs, initial state and every parameter."""
    torch = oracle("torch")
    layer = {"LSTM": LSTM, "RNN": RNN}[kind](H)
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    params = layer.init(jax.random.key(1), x)["params"]
    _, state = layer.apply({"params": params}, x[:, :3])  # a state that is not zeros
    context = Context.from_lengths(jnp.asarray(LENGTHS), T) if packed else Context()

    def loss(params, x, carry):
        start = state.replace(carry=carry)
        y, last = layer.apply({"params": params}, x, start, context)
        return jnp.sum(jnp.sin(y)) + sum(jnp.sum(jnp.cos(c)) for c in last.carry), (y, last.carry)

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (_, (y, last)), (d_params, d_x, d_carry) = gradient(params, x, state.carry)

    theirs = getattr(torch.nn, kind)(D, H, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.tensor(to_torch(np.asarray(params["input_kernel"]))))
        theirs.weight_hh_l0.copy_(torch.tensor(to_torch(np.asarray(params["recurrent_kernel"]))))
        theirs.bias_ih_l0.copy_(torch.tensor(np.asarray(params["bias"]).reshape(-1)))
        theirs.bias_hh_l0.zero_()
    tensor = torch.tensor(np.asarray(x), requires_grad=True)
    carry = [torch.tensor(np.asarray(c)[None], requires_grad=True) for c in state.carry]
    inputs = tensor
    if packed:
        inputs = torch.nn.utils.rnn.pack_padded_sequence(
            tensor, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
        )
    out, final = theirs(inputs, tuple(carry) if kind == "LSTM" else carry[0])
    if packed:
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=T)
    final = final if kind == "LSTM" else (final,)
    (out.sin().sum() + sum(f.cos().sum() for f in final)).backward()

    assert_close((y, last), (out.detach().numpy(), tuple(f[0].detach().numpy() for f in final)))
    assert_gradients_close(
        (
            to_torch(np.asarray(d_params["input_kernel"])),
            to_torch(np.asarray(d_params["recurrent_kernel"])),
            np.asarray(d_params["bias"]).reshape(-1),
            d_x,
            d_carry,
        ),
        (
            theirs.weight_ih_l0.grad.numpy(),
            theirs.weight_hh_l0.grad.numpy(),
            theirs.bias_ih_l0.grad.numpy(),
            tensor.grad.numpy(),
            tuple(c.grad.numpy()[0] for c in carry),
        ),
    )


def test_lstm_equals_flax() -> None:
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    theirs = nn.RNN(nn.OptimizedLSTMCell(H), return_carry=True)
    weights = theirs.init(jax.random.key(1), x)["params"]["cell"]
    ours = {
        "input_kernel": jnp.stack([weights[f"i{g}"]["kernel"] for g in "ifgo"], axis=1),
        "recurrent_kernel": jnp.stack([weights[f"h{g}"]["kernel"] for g in "ifgo"], axis=1),
        "bias": jnp.stack([weights[f"h{g}"]["bias"] for g in "ifgo"]),
    }
    y, state = LSTM(H).apply({"params": ours}, x)
    (c, h), wanted = theirs.apply({"params": {"cell": weights}}, x)
    assert_close((y, state.carry), (wanted, (h, c)))


def test_how_parameters_start() -> None:
    """Every gate is a matrix of its own: the usual initialisers misread `[D, G, H]`."""
    width, features = 50, 400
    params = LSTM(features, forget_bias=2.0).init(jax.random.key(0), jnp.ones((1, 1, width)))[
        "params"
    ]
    np.testing.assert_allclose(params["input_kernel"].std(axis=(0, 2)), width**-0.5, rtol=0.03)
    np.testing.assert_allclose(
        params["recurrent_kernel"].std(axis=(0, 2)), features**-0.5, rtol=0.03
    )
    for gate in range(4):
        matrix = params["recurrent_kernel"][:, gate]
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(features), atol=1e-4)
    assert params["bias"].mean(axis=1).tolist() == [0.0, 2.0, 0.0, 0.0]


def test_every_kernel_starts_with_variance_one_over_its_inputs() -> None:
    width, x = 400, jnp.ones((1, 1, 400))
    attention = SelfAttention(8).init(jax.random.key(0), x)["params"]
    mlp = GatedMLP(600).init(jax.random.key(1), x)["params"]
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
    variables = layer.init(jax.random.key(0), x)
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
    variables = layer.init(jax.random.key(1), x)
    _, state = layer.apply(variables, x, None, Context(segments=jnp.full((B, 5), 3)))
    assert_close(layer.apply(variables, x, state)[0], layer.apply(variables, x)[0])
