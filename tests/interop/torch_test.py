"""The same weights in torch and here: outputs, final states and gradients; there and back."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import interop
from recattn_jax.layers import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Context,
    CrossAttention,
    RecurrentState,
    SelfAttention,
    SequenceLayer,
    stack,
)
from tests.oracles import assert_close, assert_gradients_close, oracle

B, T, S, D, H, M, P = 2, 5, 4, 6, 3, 5, 2

# What torch says of its own speed.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

RECURRENT: dict[str, tuple[str, dict[str, Any], SequenceLayer]] = {
    "rnn": ("RNN", {}, RNN(H)),
    "rnn, relu": ("RNN", {"nonlinearity": "relu"}, RNN(H, activation=jax.nn.relu)),
    "rnn, stacked": ("RNN", {"num_layers": 2}, stack(RNN, H, 2)),
    "lstm": ("LSTM", {}, LSTM(H)),
    "lstm, projected": ("LSTM", {"proj_size": P}, LSTM(H, projection=P)),
    "lstm, no bias": ("LSTM", {"bias": False}, LSTM(H)),
    "lstm, both ways": ("LSTM", {"bidirectional": True}, Bidirectional(LSTM(H), LSTM(H))),
    "lstm, dropout": (
        "LSTM",
        {"num_layers": 3, "dropout": 0.5},
        stack(LSTM, H, 3, dropout=0.5),
    ),
    "lstm, projected, both ways, stacked": (
        "LSTM",
        {"num_layers": 2, "proj_size": P, "bidirectional": True},
        stack(partial(LSTM, projection=P), H, 2, bidirectional=True),
    ),
    "gru": ("GRU", {}, GRU(H)),
    "gru, both ways, stacked": (
        "GRU",
        {"num_layers": 2, "bidirectional": True},
        stack(GRU, H, 2, bidirectional=True),
    ),
}


def converters(kind: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    module = interop.torch
    return getattr(module, f"{kind.lower()}_from"), getattr(module, f"{kind.lower()}_to")


def carries(state: Any) -> list[jax.Array]:
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, RecurrentState))
    return [leaf for node in nodes for leaf in node.carry]


def load(module: Any, state_dict: dict[str, np.ndarray]) -> None:
    torch = oracle("torch")
    module.load_state_dict({name: torch.as_tensor(array) for name, array in state_dict.items()})


@pytest.mark.parametrize("case", RECURRENT)
def test_recurrent_layers_equal_torch(case: str) -> None:
    torch = oracle("torch")
    kind, options, layer = RECURRENT[case]
    convert, back = converters(kind)
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(D, H, batch_first=True, **options).eval()
    params = convert(theirs.state_dict(), **({"dropout": True} if "dropout" in options else {}))
    x = jax.random.normal(jax.random.key(0), (B, T, D))

    def loss(params: Any, x: jax.Array) -> Any:
        y, state = layer.apply({"params": params}, x)
        final = carries(state)
        return jnp.sum(jnp.sin(y)) + sum(jnp.sum(jnp.cos(c)) for c in final), (y, final)

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, (y, final)), (d_params, d_x) = gradient(params, x)

    tensor = torch.tensor(np.asarray(x), requires_grad=True)
    out, last = theirs(tensor)
    last = last if kind == "LSTM" else (last,)
    if not layer.streams:  # a layer that looks both ways keeps no state
        last = ()
    (out.sin().sum() + sum(c.cos().sum() for c in last)).backward()
    by_layer = [c.detach().numpy() for level in zip(*last, strict=True) for c in level]
    assert_close((y, final), (out.detach().numpy(), by_layer))

    ours = back(d_params)
    wanted = {name: weight.grad.numpy() for name, weight in theirs.named_parameters()}
    for name in [name for name in wanted if name.startswith("bias_hh")]:
        # Both of torch's biases have the gradient of our one; of n's in a GRU each has its own.
        shared = 2 * H if kind == "GRU" else len(wanted[name])
        np.testing.assert_array_equal(ours[name][:shared], 0.0)
        ours[name][:shared] = ours[name.replace("hh", "ih")][:shared]
    assert_gradients_close(
        ({name: ours[name] for name in wanted}, d_x), (wanted, tensor.grad.numpy())
    )


@pytest.mark.parametrize("case", RECURRENT)
def test_recurrent_layers_go_there_and_back(case: str) -> None:
    """What is ours comes back as it was; what is torch's comes back as an equal layer."""
    torch = oracle("torch")
    kind, options, _ = RECURRENT[case]
    convert, back = converters(kind)
    dropout = {"dropout": True} if "dropout" in options else {}
    theirs = getattr(torch.nn, kind)(D, H, **options).eval()
    params = convert(theirs.state_dict(), **dropout)
    jax.tree.map(np.testing.assert_array_equal, convert(back(params), **dropout), params)
    again = getattr(torch.nn, kind)(D, H, **options | {"bias": True}).eval()
    load(again, back(params))
    x = torch.randn(T, B, D)
    assert_close(again(x)[0].detach().numpy(), theirs(x)[0].detach().numpy(), 1e-6)
    for name, weight in theirs.state_dict().items():
        if name.startswith("weight"):
            np.testing.assert_array_equal(back(params)[name], weight.numpy())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory", [None, D, M])
def test_attention_equals_torch(memory: int | None, bias: bool) -> None:
    """Self-attention, and cross-attention to memory as wide as the queries and not."""
    torch = oracle("torch")
    torch.manual_seed(0)
    width = memory or D
    theirs = torch.nn.MultiheadAttention(
        D, 2, bias=bias, kdim=width, vdim=width, batch_first=True
    ).eval()
    with torch.no_grad():
        for weight in theirs.parameters():  # torch starts biases at zero
            weight.add_(0.1 * torch.randn(weight.shape))
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    source = jax.random.normal(jax.random.key(1), (B, S, width)) if memory else None
    layer = (
        CrossAttention(2, use_bias=bias)
        if memory
        else SelfAttention(2, causal=False, positions=None, use_bias=bias)
    )
    params = interop.torch.attention_from(theirs.state_dict(), heads=2)

    def loss(params: Any, x: jax.Array) -> Any:
        y, _ = layer.apply({"params": params}, x, None, Context(memory=source))
        return jnp.sum(jnp.sin(y)), y

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, y), (d_params, d_x) = gradient(params, x)
    tensor = torch.tensor(np.asarray(x), requires_grad=True)
    seen = tensor if source is None else torch.tensor(np.asarray(source))
    out = theirs(tensor, seen, seen, need_weights=False)[0]
    out.sin().sum().backward()
    assert_close(y, out.detach().numpy())
    assert_gradients_close(
        (interop.torch.attention_to(d_params), d_x),
        (
            {name: weight.grad.numpy() for name, weight in theirs.named_parameters()},
            tensor.grad.numpy(),
        ),
    )
    state_dict = {name: weight.numpy() for name, weight in theirs.state_dict().items()}
    returned = interop.torch.attention_to(params)
    jax.tree.map(np.testing.assert_array_equal, returned, state_dict)
    load(theirs, returned)


def lstm(**changes: Any) -> dict[str, np.ndarray]:
    weights = {
        "weight_ih_l0": np.ones((8, 3)),
        "weight_hh_l0": np.ones((8, 2)),
        "bias_ih_l0": np.ones(8),
        "bias_hh_l0": np.ones(8),
    } | changes
    return {name: weight for name, weight in weights.items() if weight is not None}


PACKED = {"in_proj_weight": np.ones((12, 4)), "out_proj.weight": np.ones((4, 4))}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda f: f.lstm_from(lstm(bias_hh_l0=None)), "LSTM: missing bias_hh_l0"),
        (lambda f: f.lstm_from(lstm(weight_ih_l2=1)), "LSTM: missing weight_hh_l1, weight_ih_l1"),
        (lambda f: f.lstm_from(lstm(weight=1)), "LSTM: unknown weight"),
        (
            lambda f: f.lstm_from(lstm(weight_ih_l0=np.ones((9, 3)))),
            r"LSTM: weight_ih_l0 must be \[4H, D\] with H = 2, got \[9, 3\]",
        ),
        (
            lambda f: f.lstm_from(lstm(weight_hh_l0=np.ones((7, 2)))),
            r"LSTM: weight_hh_l0 must be \[4H, H\], got \[7, 2\]",
        ),
        (lambda f: f.gru_from(lstm()), r"GRU: weight_hh_l0 must be \[3H, H\], got \[8, 2\]"),
        (lambda f: f.lstm_to({}), "to LSTM: missing recurrent_kernel, input_kernel, bias"),
        (
            lambda f: f.lstm_to(f.lstm_from(lstm()) | {"peephole_kernel": np.ones((3, 2))}),
            "to LSTM: unknown peephole_kernel",
        ),
        (
            lambda f: f.lstm_to({f"layers_{n}": f.lstm_from(lstm()) for n in (0, 3)}),
            "to LSTM: missing layers_2.*; unknown layers_3",
        ),
        (
            lambda f: f.gru_to(f.lstm_from(lstm())),
            r"to GRU: recurrent_kernel must be \[H, 3, H\], got \[2, 4, 2\]",
        ),
        (
            lambda f: f.attention_from(PACKED | {"bias_k": np.ones((1, 1, 4))}, 2),
            "MultiheadAttention: missing in_proj_bias, out_proj.bias; unknown bias_k",
        ),
        (
            lambda f: f.attention_from(PACKED, 3),
            "MultiheadAttention: heads=3 must divide the width 4",
        ),
        (
            lambda f: f.attention_from(
                {
                    "q_proj_weight": np.ones((4, 4)),
                    "k_proj_weight": np.ones((4, 5)),
                    "v_proj_weight": np.ones((4, 6)),
                    "out_proj.weight": np.ones((4, 4)),
                },
                2,
            ),
            r"v_proj_weight must be \[D, M\] with D = 4, M = 5, got \[4, 6\]",
        ),
    ],
)
def test_wrong_weights_are_refused(call: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        call(interop.torch)
    assert "\n" not in str(raised.value)


def test_grouped_heads_have_no_equal_in_torch() -> None:
    params = interop.torch.attention_from(PACKED, heads=2)
    params["key"]["kernel"] = params["key"]["kernel"][:, :1]
    says = r"key/kernel must be \[M, H, K\] with H = 2, K = 2, got \[4, 1, 2\]"
    with pytest.raises(ValueError, match=says):
        interop.torch.attention_to(params)


def test_params_do_not_share_memory_with_the_module() -> None:
    weights = lstm()
    params = interop.torch.lstm_from(weights)
    weights["weight_ih_l0"] += 1
    assert (params["input_kernel"] == 1).all()
