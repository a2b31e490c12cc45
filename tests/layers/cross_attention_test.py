"""Attention to a memory against torch, and what `prepare` does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers
from recattn_jax.layers import Context, CrossAttention, LocationAttention
from tests.layers.attention_test import as_tensors, draw, gradients, start
from tests.oracles import assert_close, assert_gradients_close, oracle

B, T, S, D, M, H = 2, 5, 7, 8, 6, 4


def context(lengths: tuple[int, ...] = (S, 4)) -> Context:
    seen = jnp.arange(S)[None] < jnp.asarray(lengths)[:, None]
    return Context(memory=draw(B, S, M, seed=4), memory_segments=seen.astype(jnp.int32))


def test_equals_torch_multihead() -> None:
    """A memory of another width, with biases and padding: outputs and all gradients."""
    torch = oracle("torch")
    layer, x = CrossAttention(H, use_bias=True), draw(B, T, D)
    params = start(layer, x, None, context())

    def loss(params, x, memory):
        y = layer.apply({"params": params}, x, None, context().replace(memory=memory))[0]
        return jnp.sum(jnp.sin(y)), y

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (_, y), grads = run(params, x, context().memory)

    theirs = torch.nn.MultiheadAttention(
        D, H, kdim=M, vdim=M, batch_first=True, dtype=torch.float64
    )
    p, tensor, memory = as_tensors(torch, (params, x, context().memory))
    names = ("query", "key", "value")
    weights = {f"{name[0]}_proj_weight": p[name]["kernel"].reshape(-1, D).T for name in names} | {
        "in_proj_bias": torch.cat([p[name]["bias"].reshape(D) for name in names]),
        "out_proj.weight": p["out"]["kernel"].reshape(D, D).T,
        "out_proj.bias": p["out"]["bias"],
    }
    mask = torch.tensor(np.asarray(context().memory_segments) == 0)
    wanted, _ = torch.func.functional_call(
        theirs, weights, (tensor, memory, memory), {"need_weights": False, "key_padding_mask": mask}
    )
    wanted.sin().sum().backward()
    assert_close(y, wanted.detach().numpy())
    assert_gradients_close(grads, gradients((p, tensor, memory)))


def test_a_step_sees_the_memory_of_its_number() -> None:
    layer, x = CrossAttention(2), draw(1, 4, D)
    segments, numbers = jnp.array([[0, 2, 2, 5]]), jnp.array([[5, 2, 2, 0, 5, 9, 2]])
    given = Context(segments, draw(1, S, M, seed=1), numbers)
    variables = jax.jit(layer.init)(jax.random.key(0), x, None, given)
    (_, _), notes = layer.apply(variables, x, None, given, mutable=["intermediates"])
    (weights,) = notes["intermediates"]["weights"]
    seen = np.asarray((segments[:, :, None] == numbers[:, None]) & (numbers[:, None] > 0))
    np.testing.assert_array_equal(np.asarray(weights[:, 0] > 0), seen)
    unnumbered = given.replace(memory_segments=None)
    _, notes = layer.apply(variables, x, None, unnumbered, mutable=["intermediates"])
    (weights,) = notes["intermediates"]["weights"]
    np.testing.assert_array_equal(
        np.asarray(weights[:, 0] > 0), np.broadcast_to(segments[:, :, None] > 0, (1, 4, S))
    )


@pytest.mark.parametrize(
    ("layer", "places"),
    [
        (CrossAttention(4, kv_heads=2, score=layers.ScaledDot(normalize=True)), {""}),
        (CrossAttention(2, score=layers.Additive(3), project=False), {""}),
        (LocationAttention(5, filters=2, width=3), {""}),
        (
            layers.Serial((CrossAttention(2), layers.Residual(CrossAttention(1)))),
            {"layers_0", "layers_1/layer"},
        ),
    ],
    ids=["grouped", "additive", "location", "serial"],
)
def test_prepared_memory_changes_nothing(layer, places: set[str]) -> None:
    x, given = draw(B, T, D), context()
    variables = jax.jit(layer.init)(jax.random.key(0), x, None, given)
    prepared = layer.apply(variables, given, method="prepare")
    assert set(prepared.prepared) == places
    wanted = layer.apply(variables, x, None, given)[0]
    np.testing.assert_array_equal(layer.apply(variables, x, None, prepared)[0], wanted)
    # It is the prepared keys that are looked at: without them the outputs are others.
    emptied = prepared.replace(prepared=jax.tree.map(jnp.zeros_like, prepared.prepared))
    assert not np.allclose(layer.apply(variables, x, None, emptied)[0], wanted)
    again = layer.apply(variables, prepared, method="prepare")
    assert jax.tree.leaves(again)[-1] is jax.tree.leaves(prepared)[-1]  # once is enough


def test_location_attention_equals_a_loop() -> None:
    """Outputs, gradients and the last state, with a second document in one row."""
    torch = oracle("torch")
    layer, x = LocationAttention(5, filters=3, width=3), draw(B, T, D)
    segments = jnp.array([[1, 1, 1, 1, 1], [1, 1, 0, 2, 2]])
    numbers = jnp.array([[1] * 7, [1, 1, 1, 0, 2, 2, 2]])
    given = Context(segments, draw(B, S, M, seed=4), numbers)
    params = start(layer, x, None, given)

    def loss(params, x, memory):
        y, state = layer.apply({"params": params}, x, None, given.replace(memory=memory))
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.sin(state.cumulative)), (y, state)

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (_, (y, state)), grads = run(params, x, given.memory)

    p, tensor, memory = as_tensors(torch, (params, x, given.memory))
    loss, rows, lasts, totals = 0.0, [], [], []
    for b in range(B):
        before, outputs = 0, []
        last = total = torch.zeros(S, dtype=torch.float64)
        for t in range(T):
            number = int(segments[b, t])
            if number == 0:
                outputs.append(torch.zeros(M, dtype=torch.float64))
                continue
            if number != before:
                last = total = torch.zeros(S, dtype=torch.float64)
            before = number
            features = torch.nn.functional.conv1d(
                torch.stack([last, total])[None], p["filter_kernel"].permute(2, 1, 0), padding=1
            )[0].T
            units = torch.tanh(
                tensor[b, t] @ p["step"]["kernel"]
                + p["step"]["bias"]
                + memory[b] @ p["memory"]["kernel"]
                + features @ p["location_kernel"]
            )
            power = (units @ p["score_vector"])[:, 0].exp()
            power = power * torch.tensor(np.asarray(numbers[b] == number))
            last = power / power.sum()
            total = total + last
            outputs.append(last @ memory[b])
        rows.append(torch.stack(outputs))
        lasts.append(last)
        totals.append(total)
    wanted, last, total = torch.stack(rows), torch.stack(lasts), torch.stack(totals)
    (wanted.sin().sum() + total.sin().sum()).backward()
    found = (y, state.weights, state.cumulative)
    assert_close(found, [a.detach().numpy() for a in (wanted, last, total)])
    assert_gradients_close(grads, gradients((p, tensor, memory)))


@pytest.mark.parametrize("layer", [CrossAttention(2), LocationAttention(3, filters=2, width=3)])
def test_wrong_memory(layer) -> None:
    x = draw(B, T, D)
    variables = jax.jit(layer.init)(jax.random.key(0), x, None, context())
    for wrong, says in (
        (Context(memory=draw(3, S, M)), "context.memory is for a batch of 3, x has 2"),
        (
            context().replace(memory_segments=jnp.ones((B, 3), int)),
            r"memory_segments must be \[B, S\] = \[2, 7\], got \[2, 3\]",
        ),
    ):
        with pytest.raises(ValueError, match=says):
            layer.apply(variables, x, None, wrong)


def test_a_location_state_of_another_memory_is_refused() -> None:
    layer, x = LocationAttention(3, filters=2, width=3), draw(B, T, D)
    (_, state), variables = layer.init_with_output(jax.random.key(0), x, None, context())
    shorter = Context(memory=context().memory[:, :4])
    with pytest.raises(ValueError, match=r"\[B, S\] = \[2, 4\].*got one of \[2, 7\]"):
        layer.apply(variables, x, state, shorter)
    with pytest.raises(ValueError, match="state must be a LocationState.*got tuple"):
        layer.apply(variables, x, (), context())
