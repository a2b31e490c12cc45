"""Readouts against the same on the real steps of each row alone."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers, models
from recattn_jax.layers import Context
from tests.oracles import assert_close, assert_gradients_close, oracle, plainly

X = jax.random.normal(jax.random.key(0), (3, 5, 4))
SEGMENTS = jnp.array([[1, 1, 1, 0, 0], [0, 2, 2, 2, 0], [5, 5, 5, 5, 5]])
REAL = np.asarray(SEGMENTS) > 0


def attended(steps, params):
    hidden = jnp.tanh(steps @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    weights = jnp.exp(hidden @ params["score"])
    return (weights / weights.sum()) @ steps


# From the real steps of a row, `[n, D]`, and the parameters to what is read, `[D]`.
POOLED = {
    "Last": (models.Last(2), lambda steps, params: steps[-1]),
    "Mean": (models.Mean(2), lambda steps, params: steps.sum(axis=0) / len(steps)),
    "Max": (models.Max(2), lambda steps, params: steps.max(axis=0)),
    "AttentionPooled": (models.AttentionPooled(2, 3), attended),
}


def moved(variables):
    """Away from zero biases and round scales."""
    noise = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: leaf + 0.3 * noise.normal(size=leaf.shape), variables)


@pytest.mark.parametrize("name", POOLED)
def test_pooled_readouts_read_the_real_steps(name: str) -> None:
    readout, pool = POOLED[name]
    variables = moved(readout.init(jax.random.key(1), X))
    toward = jax.random.normal(jax.random.key(2), (3, 2))

    def got(variables, x, context=Context(SEGMENTS)):
        y = readout.apply(variables, x, context)
        return jnp.sum(y * toward), y

    @plainly
    def wanted(variables, x):
        params = variables["params"]
        rows = [pool(x[b, np.flatnonzero(REAL[b])], params) for b in range(3)]
        y = jnp.stack(rows) @ params["kernel"] + params["bias"]
        return jnp.sum(y * toward), y

    dirty = jnp.where(REAL[..., None], X, jnp.nan)
    (_, y), gradients = jax.value_and_grad(got, (0, 1), has_aux=True)(variables, dirty)
    (_, y_wanted), gradients_wanted = jax.value_and_grad(wanted, (0, 1), has_aux=True)(variables, X)
    assert_close(y, y_wanted)
    assert_gradients_close(gradients, gradients_wanted)

    nothing = Context(jnp.zeros_like(SEGMENTS))
    (_, y), gradients = jax.value_and_grad(got, (0, 1), has_aux=True)(variables, dirty, nothing)
    assert_close(y, jnp.broadcast_to(variables["params"]["bias"], (3, 2)))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))

    half = readout.apply(variables, X.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32
    assert_close(half, readout.apply(variables, X), tolerance=3e-2)


def test_no_segments_are_all_real() -> None:
    for readout, _ in POOLED.values():
        variables = jax.jit(readout.init)(jax.random.key(1), X)
        ones = Context(jnp.ones_like(SEGMENTS))
        assert_close(readout.apply(variables, X), readout.apply(variables, X, ones), 0.0)


def test_the_weights_of_attention_pooling_are_sown() -> None:
    readout = models.AttentionPooled(2, 3)
    variables = jax.jit(readout.init)(jax.random.key(1), X)
    _, notes = readout.apply(variables, X, Context(SEGMENTS), mutable=["intermediates"])
    (weights,) = notes["intermediates"]["weights"]
    assert not weights[~REAL].any()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)


def test_a_classifier_does_not_stream_and_pads_freely() -> None:
    model = models.SequenceModel(layers.Dense(4), layers.LSTM(4), models.Last(2))
    assert not model.streams
    variables = jax.jit(model.init)(jax.random.key(1), X)
    y, state = model.apply(variables, X, None, Context(SEGMENTS))
    assert state == () and y.shape == (3, 2)
    alone, _ = model.apply(variables, X[:1, :3])
    assert_close(y[:1], alone)
    with pytest.raises(ValueError, match="SequenceModel: a state was given"):
        model.apply(variables, X, ((), jnp.ones((3, 1))))


def test_a_tied_readout_reads_off_the_table_that_embeds() -> None:
    """One parameter, and its gradient is that of both uses."""
    embed = layers.Embed(7, 4)
    body = layers.Serial((layers.Identity(),))
    model = models.SequenceModel(
        layers.Serial((embed, layers.Identity())), body, models.TiedPerStep(embed)
    )
    tokens = jax.random.randint(jax.random.key(3), (2, 5), 0, 7)
    variables = moved(model.init(jax.random.key(1), tokens))
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes == {
        "frontend": {"layers_0": {"embed": {"embedding": (7, 4)}}},
        "readout": {"bias": (7,)},
    }
    toward = jax.random.normal(jax.random.key(2), (2, 5, 7))

    def got(variables):
        return jnp.sum(model.apply(variables, tokens)[0] * toward)

    @plainly
    def wanted(variables):
        params = variables["params"]
        table = params["frontend"]["layers_0"]["embed"]["embedding"]
        logits = table[tokens] @ table.T / math.sqrt(4) + params["readout"]["bias"]
        return jnp.sum(logits * toward)

    assert_close(got(variables), wanted(variables))
    assert_gradients_close(jax.grad(got)(variables), jax.grad(wanted)(variables))


@pytest.mark.parametrize("tied", [False, True], ids=["PerStep", "TiedPerStep"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_compared_in_chunks_is_compared_at_once(tied: bool, dtype) -> None:
    """Optax and torch see logits that nothing of the chunks has made."""
    optax, torch = oracle("optax"), oracle("torch")
    embed = layers.Embed(7, 4, dtype=dtype)
    body = layers.Serial((layers.Dense(4),))

    def model(chunk):
        readout = models.TiedPerStep(embed, chunk) if tied else models.PerStep(7, chunk)
        return models.SequenceModel(embed, body, readout)

    tokens, labels = jax.random.randint(jax.random.key(3), (2, 3, 5), 0, 7)
    variables = moved(model(None).init(jax.random.key(1), tokens))
    weights = jnp.sin(1.0 + jnp.arange(15).reshape(3, 5))  # some of them negative, none alike
    nats = optax.softmax_cross_entropy_with_integer_labels

    def got(variables, chunk):
        y, _ = model(chunk).apply(variables, nats, labels, tokens, method="compare")
        return jnp.sum(weights * y), y

    def wanted(variables):
        logits, _ = model(None).apply(variables, tokens)
        y = nats(logits, labels)
        return jnp.sum(weights * y), (y, logits)

    (_, (y_wanted, logits)), gradients = jax.value_and_grad(wanted, has_aux=True)(variables)
    rows = torch.tensor(np.asarray(logits).reshape(15, 7))
    by_torch = torch.nn.functional.cross_entropy(
        rows, torch.tensor(np.asarray(labels).reshape(15)).long(), reduction="none"
    )
    narrow = dtype == jnp.bfloat16  # sums of parts of the gradient are rounded
    gradient = jax.value_and_grad(got, has_aux=True)
    jitted = jax.jit(gradient, static_argnums=1)
    for run, chunk in ((jitted, None), (jitted, 4), (gradient, 4), (jitted, 100)):
        (_, y), found = run(variables, chunk)
        assert_close(y, y_wanted, 1e-6)
        assert_close(y.reshape(15), by_torch.numpy(), 1e-6)
        assert_gradients_close(found, gradients, 1e-2 if narrow else 1e-6)


def test_readouts_of_whole_rows_compare_as_well() -> None:
    model = models.SequenceModel(
        layers.Dense(4),
        layers.Serial((layers.Identity(),)),
        models.Joint((models.PerStep(5, chunk=2), models.Mean(2))),
    )
    variables = jax.jit(model.init)(jax.random.key(1), X)
    (steps, rows), _ = model.apply(variables, X, None, Context(SEGMENTS))

    def difference(predictions, labels):
        return jax.tree.map(jnp.subtract, predictions, labels)

    zeros, state = model.apply(
        variables, difference, (steps, rows), X, None, Context(SEGMENTS), method="compare"
    )
    assert state == () and not any(leaf.any() for leaf in jax.tree.leaves(zeros))


def test_a_tied_readout_says_that_widths_differ() -> None:
    embed = layers.Embed(7, 4)
    model = models.SequenceModel(embed, layers.Dense(3), models.TiedPerStep(embed))
    with pytest.raises(ValueError, match=r"TiedPerStep: x is 3 wide, the table 4.*Dense\(4\)"):
        jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 2), int))


def test_joint_readouts_are_the_readouts_beside_each_other() -> None:
    x = jax.random.normal(jax.random.key(1), (2, 4, 3))
    context = Context(segments=jnp.array([[1, 1, 0, 0], [1, 1, 1, 1]]))
    joint = models.Joint((models.PerStep(5), models.Mean(2)))
    (per_step, pooled), variables = joint.init_with_output(jax.random.key(0), x, context)
    params = variables["params"]
    assert sorted(params) == ["readouts_0", "readouts_1"]
    for got, readout, name in (
        (per_step, models.PerStep(5), "readouts_0"),
        (pooled, models.Mean(2), "readouts_1"),
    ):
        alone = readout.apply({"params": params[name]}, x, context)
        np.testing.assert_array_equal(got, alone)
    assert not joint.streams
    assert models.Joint((models.PerStep(5), models.PerStep(2))).streams
    readout = models.PerStep(5)
    with pytest.raises(ValueError, match="stands twice"):
        models.Joint((readout, readout))
