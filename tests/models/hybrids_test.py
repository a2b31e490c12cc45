"""Named hybrids: what they compute, as plain loops, and that all their parameters learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers
from recattn_jax.layers import Context
from recattn_jax.models import hybrids
from recattn_jax.models.hybrids.blocks import interleave
from tests import laws
from tests.laws import TABLE
from tests.oracles import assert_close, assert_gradients_close, plainly

X = jax.random.normal(jax.random.key(0), (2, 7, 4))
MEMORY = jax.random.normal(jax.random.key(1), (2, 5, 6))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TABLE if name.startswith("hybrids.")])
def test_every_parameter_learns_from_the_start(name: str) -> None:
    row = TABLE[name]
    x, context = laws.inputs(row), laws.packed(row)

    @jax.jit
    def gradient(key):
        variables = jax.jit(row.layer.init)(key, x[:, :1], None, laws.ones(row, 1))

        def loss(variables):
            y, _ = row.layer.apply(variables, x, None, context)
            return jnp.sum(y * jax.random.normal(jax.random.key(5), y.shape))

        return jax.grad(loss)(variables)

    for path, leaf in jax.tree.leaves_with_path(gradient(jax.random.key(3))):
        assert np.all(np.isfinite(leaf)), f"no finite gradient at {jax.tree_util.keystr(path)}"
        assert np.any(leaf != 0), f"no gradient reaches {jax.tree_util.keystr(path)}"


def compare(layer, plain, x=X, context=Context()) -> None:
    """Outputs and gradients of a layer against a plain function of the same parameters."""
    variables = jax.jit(layer.init)(jax.random.key(2), x[:, :1], None, context)
    noise = np.random.default_rng(3)
    params = jax.tree.map(lambda a: a + 0.1 * noise.normal(size=a.shape), variables["params"])

    def got(params, x):
        y, _ = layer.apply({"params": params}, x, None, context)
        return jnp.sum(jnp.sin(3 * y)), y

    def wanted(params, x):
        y = plain(params, x)
        return jnp.sum(jnp.sin(3 * y)), y

    (_, y), d = jax.jit(jax.value_and_grad(got, (0, 1), has_aux=True))(params, x)
    (_, y_wanted), d_wanted = jax.jit(jax.value_and_grad(wanted, (0, 1), has_aux=True))(params, x)
    assert_close(y, y_wanted)
    assert_gradients_close(d, d_wanted)


def one_step(cell, params, x_BD, state):
    y, state = cell.apply({"params": params}, x_BD[:, None], state)
    return y[:, 0], state


def asked(params, query_BD):
    """Additive attention to the memory."""
    units = query_BD[:, None] @ params["query_kernel"][0] + MEMORY @ params["key_kernel"][0]
    scores = jnp.tanh(units + params["score_bias"][0]) @ params["score_vector"][0]
    return jnp.einsum("bs,bsm->bm", jax.nn.softmax(scores), MEMORY)


@pytest.mark.parametrize("cell", [layers.GRU(5, reset_after=False), layers.LSTM(5)])
def test_the_lowest_recurrence_of_a_decoder_asks_with_its_last_state(cell) -> None:
    if isinstance(cell, layers.GRU):
        layer = hybrids.bahdanau_decoder(5, memory=6, hidden=3)
    else:
        layer = hybrids.gnmt_decoder(5, memory=6, hidden=3, depth=2)

    @plainly
    def plain(params, x):
        lowest = params["body"] if isinstance(cell, layers.GRU) else params["layers_0"]["body"]
        attention = lowest["layers_0"]["layers_1"]["layers_1"]
        hidden, state, above, outputs = jnp.zeros((2, 5)), None, None, []
        for t in range(x.shape[1]):
            context = asked(attention, hidden)
            joined = jnp.concatenate([x[:, t], context], axis=1)
            hidden, state = one_step(cell, lowest["layers_1"]["layers_0"], joined, state)
            y = jnp.concatenate([hidden, context], axis=1)
            if isinstance(cell, layers.LSTM):
                top, above = one_step(cell, params["layers_1"]["layers_0"], y, above)
                y = jnp.concatenate([top, context], axis=1)
            outputs.append(y)
        return jnp.stack(outputs, axis=1)

    compare(layer, plain, context=Context(memory=MEMORY))


def test_a_luong_decoder_hears_its_last_output() -> None:
    @plainly
    def plain(params, x):
        body = params["body"]
        score = body["layers_1"]["layers_0"]["score_kernel"][0]
        y, state, outputs = jnp.zeros((2, 5)), None, []
        for t in range(x.shape[1]):
            joined = jnp.concatenate([x[:, t], y], axis=1)
            hidden, state = one_step(layers.LSTM(5), body["layers_0"], joined, state)
            weights = jax.nn.softmax(jnp.einsum("bh,hm,bsm->bs", hidden, score, MEMORY))
            context = jnp.einsum("bs,bsm->bm", weights, MEMORY)
            both = jnp.concatenate([context, hidden], axis=1)
            y = jnp.tanh(both @ body["layers_2"]["dense"]["kernel"])
            outputs.append(y)
        return jnp.stack(outputs, axis=1)

    compare(hybrids.luong_decoder(5, depth=1), plain, context=Context(memory=MEMORY))


def test_hidden_states_attend_to_the_inputs() -> None:
    @plainly
    def plain(params, x):
        hidden, _ = layers.RNN(4).apply({"params": params["recurrence"]}, x)
        scores = jnp.einsum("btd,bsd->bts", hidden, x) / 2.0
        scores = jnp.where(jnp.tril(jnp.ones((7, 7), bool)), scores, -jnp.inf)
        return hidden + jax.nn.softmax(scores) @ x

    score = layers.ScaledDot()
    compare(hybrids.recurrence_attends_to_input(4, score, causal=True, window=None), plain)


def test_attention_stays_inside_chunks() -> None:
    @plainly
    def plain(params, x):
        attention = layers.SelfAttention(2, causal=False, positions=None)
        own = params["layers_0"]["layer"]
        chunks = [attention.apply({"params": own}, x[:, s : s + 3])[0] for s in (0, 3, 6)]
        return layers.LSTM(5).apply({"params": params["layers_1"]}, jnp.concatenate(chunks, 1))[0]

    compare(hybrids.chunked_attention_then_recurrence(5, 2, 3, causal=False, residual=False), plain)


def test_attention_over_a_recurrence_has_no_parameters_of_its_own() -> None:
    @plainly
    def plain(params, x):
        hidden, _ = layers.LSTM(5).apply({"params": params["layers_0"]}, x)
        return jax.nn.softmax(hidden @ jnp.swapaxes(hidden, 1, 2)) @ hidden

    compare(hybrids.attention_over_recurrence(5, causal=False, window=None), plain)


def test_blocks_are_interleaved_to_any_depth() -> None:
    def block():
        return layers.Residual(layers.Dense(4))

    for depth in (1, 2, 3, 5):
        layer = interleave((block, block), depth)
        variables = jax.eval_shape(layer.init, jax.random.key(0), X)
        kernels = [a for a in jax.tree.leaves(variables) if a.shape[-2:] == (4, 4)]
        assert sum(a.shape[0] if a.ndim == 3 else 1 for a in kernels) == depth
    with pytest.raises(ValueError, match="interleave: depth=0 must be at least 1"):
        interleave((block,), 0)
