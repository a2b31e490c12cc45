"""Self-attention against torch: the whole layer, and every score from its formula in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers
from recattn_jax.layers import Context, SelfAttention
from tests.oracles import assert_close, assert_gradients_close, oracle

B, T, D, H = 2, 7, 8, 4


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def start(layer, *inputs):
    """Parameters, moved a little, so that biases and scales are not at round numbers."""
    params = jax.jit(layer.init)(jax.random.key(0), *inputs)["params"]
    noise = np.random.default_rng(3)
    return jax.tree.map(
        lambda p: p + jnp.asarray(0.2 * noise.normal(size=p.shape), p.dtype), params
    )


def as_tensors(torch, tree):
    return jax.tree.map(lambda a: torch.tensor(np.asarray(a, np.float64), requires_grad=True), tree)


def gradients(tensors):
    return jax.tree.map(lambda t: t.grad.numpy(), tensors)


@pytest.mark.parametrize("causal", [False, True])
def test_equals_torch_multihead(causal: bool) -> None:
    """With biases, padding and a causal mask: outputs and the gradients of everything."""
    torch = oracle("torch")
    layer = SelfAttention(H, causal=causal, positions=None, use_bias=True)
    x, lengths = draw(B, T, D), np.array([T, 4])
    params, context = start(layer, x), Context.from_lengths(jnp.asarray(lengths), T)

    def loss(params, x):
        y = layer.apply({"params": params}, x, None, context)[0]
        return jnp.sum(jnp.sin(y)), y

    (_, y), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)

    theirs = torch.nn.MultiheadAttention(D, H, batch_first=True, dtype=torch.float64)
    p, tensor = (
        as_tensors(torch, params),
        torch.tensor(np.asarray(x, np.float64), requires_grad=True),
    )
    names = ("query", "key", "value")
    kernel = torch.cat([p[name]["kernel"].reshape(D, D).T for name in names])
    bias = torch.cat([p[name]["bias"].reshape(D) for name in names])
    out = p["out"]["kernel"].reshape(D, D).T
    weights = {
        "in_proj_weight": kernel,
        "in_proj_bias": bias,
        "out_proj.weight": out,
        "out_proj.bias": p["out"]["bias"],
    }
    real = torch.tensor(np.arange(T)[None] < lengths[:, None])
    inputs = {
        "need_weights": False,
        "key_padding_mask": ~real,
        "attn_mask": torch.triu(torch.ones(T, T, dtype=bool), 1) if causal else None,
    }
    wanted, _ = torch.func.functional_call(theirs, weights, (tensor, tensor, tensor), inputs)
    wanted = wanted * real[..., None]
    wanted.sin().sum().backward()
    assert_close(y, wanted.detach().numpy())
    assert_gradients_close(grads, (gradients(p), tensor.grad.numpy()))


def scores_by_formula(torch, score, p, q, k):
    """`[B, H, T, S]` from queries `[B, T, H, K]` and as many heads of keys, in torch."""
    groups = p["key"]["kernel"].shape[1] if "key" in p else q.shape[2]

    def repeated(x):  # of a parameter [G, ...], as of the keys
        return x.repeat_interleave(q.shape[2] // groups, 0)

    def products(q, k):
        return torch.einsum("bthk,bshk->bhts", q, k)

    match score:
        case layers.Dot():
            return products(q, k)
        case layers.ScaledDot(cap=cap):
            q = q / ((q**2).mean(-1, keepdim=True) + 1e-6).sqrt() * p["query_scale"]
            k = k / ((k**2).mean(-1, keepdim=True) + 1e-6).sqrt() * repeated(p["key_scale"])
            return cap * torch.tanh(products(q, k) / q.shape[-1] ** 0.5 / cap)
        case layers.General():
            return torch.einsum("bthk,hkn,bshn->bhts", q, p["score_kernel"], k)
        case layers.Cosine():
            cosine = products(q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True))
            return cosine * p["score_log_scale"].exp()[:, None, None]
        case layers.Additive():
            q = torch.einsum("bthk,hkn->bthn", q, p["query_kernel"]) + p["score_bias"]
            k = torch.einsum("bshk,hkn->bshn", k, repeated(p["key_kernel"]))
            units = torch.tanh(q[:, :, None] + k[:, None])
            return torch.einsum("btshn,hn->bhts", units, p["score_vector"])
    raise AssertionError(score)


@pytest.mark.parametrize(
    ("score", "fields"),
    [
        (layers.Dot(), {"project": False}),
        (layers.ScaledDot(cap=1.5, normalize=True), {"kv_heads": 2, "positions": layers.ALiBi()}),
        (layers.General(), {"sinks": True}),
        (layers.Cosine(), {"kv_heads": 1}),
        (layers.Additive(5), {"kv_heads": 2, "positions": layers.RelativeBias(4, 4)}),
    ],
)
def test_equals_the_formula(score, fields: dict) -> None:
    """Outputs and the gradients of everything, every head with keys of its own."""
    torch = oracle("torch")
    layer = SelfAttention(H, score=score, causal=False, **{"positions": None, **fields})
    x = draw(B, T, D, seed=1)
    params = start(layer, x) if fields.get("project", True) else {}

    def loss(params, x):
        y = layer.apply({"params": params}, x)[0]
        return jnp.sum(jnp.sin(y)), y

    (_, y), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)

    p, tensor = (
        as_tensors(torch, params),
        torch.tensor(np.asarray(x, np.float64), requires_grad=True),
    )
    if params:
        q, k, v = (
            torch.einsum("btd,dhk->bthk", tensor, p[name]["kernel"])
            for name in ("query", "key", "value")
        )
        k, v = (a.repeat_interleave(H // a.shape[2], 2) for a in (k, v))
    else:
        q = k = v = tensor.reshape(B, T, H, -1)
    e = scores_by_formula(torch, score, p, q, k)
    away = torch.arange(T)[:, None] - torch.arange(T)[None]
    if isinstance(layer.positions, layers.ALiBi):
        e = e - torch.tensor([2.0 ** (-2 * h) for h in range(1, H + 1)])[:, None, None] * away.abs()
    if isinstance(layer.positions, layers.RelativeBias):  # 4 both ways: itself, before; -, after
        bucket = torch.where(away < 0, 3, torch.where(away > 0, 1, 0))
        e = e + p["relative_bias"][bucket].permute(2, 0, 1)
    power = e.exp()
    total = power.sum(-1, keepdim=True)
    if layer.sinks:
        total = total + p["sinks"].exp()[:, None, None]
    wanted = torch.einsum("bhts,bshv->bthv", power / total, v)
    wanted = (
        torch.einsum("bthv,hvd->btd", wanted, p["out"]["kernel"])
        if params
        else wanted.reshape(B, T, D)
    )
    wanted.sin().sum().backward()
    assert_close(y, wanted.detach().numpy())
    assert_gradients_close(grads, (gradients(p), tensor.grad.numpy()))


def test_attends_from_one_sequence_to_another() -> None:
    """Sources of another width, with projections and, if the score can, without."""
    queries, sources = draw(B, T, D), draw(B, T, 12, seed=1)
    for fields, width in (
        ({"kv_heads": 2}, D),
        ({"score": layers.General(), "project": False}, 12),
    ):
        layer = SelfAttention(H, window=3, positions=None, **fields)
        given = (queries, sources, None, Context())
        (y, state), variables = layer.init_with_output(jax.random.key(0), *given, method="attend")
        assert y.shape == (B, T, width)
        again, _ = layer.apply(
            variables, queries[:, :4], sources[:, :4], None, Context(), method="attend"
        )
        assert_close(again, y[:, :4])
        assert state.values.shape[:2] == (B, 3)


@pytest.mark.parametrize("window", [None, 4])
def test_weights_come_out_and_change_nothing(window: int | None) -> None:
    layer, x = SelfAttention(2, window=window), draw(B, 8, D)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    assert set(variables) == {"params"}
    (y, _), notes = jax.jit(functools.partial(layer.apply, mutable=["intermediates"]))(variables, x)
    assert_close(y, jax.jit(layer.apply)(variables, x)[0], 1e-6)
    (weights,) = notes["intermediates"]["weights"]
    assert weights.shape == (B, 2, 8, 8)
    steps = np.arange(8)[:, None] - np.arange(8)
    seen = (steps >= 0) & (steps < (window or 8))
    assert np.all((np.asarray(weights) > 0) == seen)
    assert_close(weights.sum(-1), np.ones(weights.shape[:-1]))
    if window is not None:
        _, state = layer.apply(variables, x)
        (y, _), notes = layer.apply(variables, x, state, mutable=["intermediates"])
        np.testing.assert_array_equal(y, layer.apply(variables, x, state)[0])
        (weights,) = notes["intermediates"]["weights"]
        assert weights.shape == (B, 2, 2, 4, 8)


def test_one_score_in_many_layers_shares_no_parameters() -> None:
    score = layers.Additive(4)
    layer = layers.Serial((SelfAttention(2, score=score), SelfAttention(2, score=score)))
    params = jax.jit(layer.init)(jax.random.key(0), draw(B, T, D))["params"]
    assert params["layers_0"]["score_vector"].shape == (2, 4)
    assert (params["layers_0"]["score_vector"] != params["layers_1"]["score_vector"]).all()


def test_positions_that_are_added() -> None:
    x = draw(B, 5, D)
    segments = jnp.array([[1, 1, 2, 2, 2], [0, 3, 3, 0, 4]])
    table = draw(4, D, seed=1)
    layer = layers.LearnedPositions(4)
    y, state = layer.apply({"params": {"embedding": table}}, x, None, Context(segments=segments))
    at = np.array([[0, 1, 0, 1, 2], [0, 0, 1, 0, 0]])
    assert_close(y, np.where(segments[..., None] > 0, x + table[at], 0.0), 1e-6)
    assert state.position.tolist() == [3, 1]
    with pytest.raises(ValueError, match="x has 5 steps, but there are positions for length=4"):
        layer.apply({"params": {"embedding": table}}, x)
    # Past the end there is nothing to add: said by NaN where it cannot be said by an error.
    y, _ = layer.apply(
        {"params": {"embedding": table}}, x, None, Context(segments=segments * 0 + 1)
    )
    assert np.isnan(y[:, 4]).all() and not np.isnan(y[:, :4]).any()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SelfAttention(4, kv_heads=3), "kv_heads=3 must divide heads=4"),
        (lambda: SelfAttention(3, project=False), "heads=3 must divide the width of x, which is 8"),
        (
            lambda: SelfAttention(4, kv_heads=2, project=False),
            "project=False leaves out the projections that kv_heads=2",
        ),
        (lambda: SelfAttention(8), "rotary positions need an even head size, got 1"),
        (
            lambda: SelfAttention(2, positions=layers.RelativeBias(3)),
            "buckets=3 must be even, at least 4",
        ),
        (lambda: layers.CrossAttention(2), "CrossAttention: context.memory is missing"),
        (lambda: layers.LocationAttention(2, 3, 5), "LocationAttention: context.memory is missing"),
    ],
)
def test_wrong_layers(make, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        jax.jit(make().init)(jax.random.key(0), draw(B, T, D))
    assert "\n" not in str(error.value)


def test_a_state_of_another_layer_is_refused() -> None:
    x = draw(B, T, D)
    layer = SelfAttention(2, window=3)
    (_, state), variables = layer.init_with_output(jax.random.key(0), x)
    for other, given, says in (
        (layer, ((), ()), "state must be an AttentionState.*got tuple"),
        (SelfAttention(2, window=4), state, r"state keeps keys \[3, 2, 4\].*\[4, 2, 4\]"),
        (SelfAttention(4, window=3), state, r"state keeps keys \[3, 2, 4\].*\[3, 4, 2\]"),
    ):
        with pytest.raises(ValueError, match=says):
            jax.jit(other.init)(jax.random.key(0), x, given)
    with pytest.raises(ValueError, match="state is for a batch of 2, x has 1"):
        layer.apply(variables, x[:1], state)
