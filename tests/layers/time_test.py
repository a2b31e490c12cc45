"""Combinators over time against torch, and against loops that do what their docstrings say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import layers
from recattn_jax.layers import Context
from tests.oracles import assert_close, assert_gradients_close, oracle

B, T, D, H = 2, 7, 4, 5
LENGTHS = np.array([7, 4])
SEGMENTS = jnp.array([[0, 1, 1, 1, 1, 0, 2], [3, 4, 4, 4, 4, 4, 4]])


def started(layer, x, context=Context()):
    """Parameters that are not at round numbers."""
    params = jax.jit(layer.init)(jax.random.key(1), x, None, context)
    noise = np.random.default_rng(2)
    return jax.tree.map(lambda a: a + 0.1 * noise.normal(size=a.shape), params)


def documents():
    """`(row, steps)` of every document."""
    for row, numbers in enumerate(np.asarray(SEGMENTS)):
        for number in sorted({*numbers} - {0}):
            yield row, np.flatnonzero(numbers == number)


def differentiate(f, *arguments):
    """The output of f, and the gradients of a projection of it."""

    def loss(*arguments):
        y = f(*arguments)
        return jnp.sum(jnp.sin(y + jnp.arange(y.shape[-1])[None, None])), y

    argnums = tuple(range(len(arguments)))
    (_, y), d = jax.jit(jax.value_and_grad(loss, argnums, has_aux=True))(*arguments)
    return y, d


def compare(layer, wanted, context=Context(), features=D):
    """A layer equals a function `(variables, x) -> y` in outputs and gradients."""
    x = jax.random.normal(jax.random.key(0), (B, T, features))
    variables = started(layer, x, context)
    y, d = differentiate(lambda v, x: layer.apply(v, x, None, context)[0], variables, x)
    wanted_y, wanted_d = differentiate(wanted, variables, x)
    assert_close(y, wanted_y)
    assert_gradients_close(d, wanted_d)


def weights_of_torch(module, level: int, suffix: str):
    return [
        getattr(module, f"{name}_l{level}{suffix}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]


def to_torch(kernel) -> np.ndarray:
    """`[D, G, H]` to torch's `[G H, D]`."""
    return np.moveaxis(np.asarray(kernel), 0, -1).reshape(-1, kernel.shape[0])


@pytest.mark.parametrize("depth", [1, 2])
def test_bidirectional_stacks_equal_torch(depth: int) -> None:
    """With lengths: outputs, and the gradients of inputs and of every parameter."""
    torch = oracle("torch")
    layer = layers.stack(layers.LSTM, features=H, depth=depth, bidirectional=True)
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    context = Context.from_lengths(jnp.asarray(LENGTHS), T)
    variables = started(layer, x)

    def loss(variables, x):
        y, _ = layer.apply(variables, x, None, context)
        return jnp.sum(jnp.sin(y)), y

    (_, y), (d, d_x) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(variables, x)

    theirs = torch.nn.LSTM(D, H, num_layers=depth, bidirectional=True, batch_first=True)
    ours = variables["params"]
    sides = [
        (level, suffix, (f"layers_{level}", f"{side}_layer"))
        for level in range(depth)
        for suffix, side in (("", "forward"), ("_reverse", "backward"))
    ]
    with torch.no_grad():
        for level, suffix, (outer, inner) in sides:
            own = ours[outer][inner]
            values = [
                to_torch(own["input_kernel"]),
                to_torch(own["recurrent_kernel"]),
                np.asarray(own["bias"]).reshape(-1),
                np.zeros(4 * H, np.float32),
            ]
            for parameter, value in zip(
                weights_of_torch(theirs, level, suffix), values, strict=True
            ):
                parameter.copy_(torch.tensor(value))
    tensor = torch.tensor(np.asarray(x), requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        tensor, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    out, _ = torch.nn.utils.rnn.pad_packed_sequence(
        theirs(packed)[0], batch_first=True, total_length=T
    )
    out.sin().sum().backward()
    assert_close(y, out.detach().numpy())
    got, wanted = [d_x], [tensor.grad.numpy()]
    for level, suffix, (outer, inner) in sides:
        own = d["params"][outer][inner]
        got += [to_torch(own["input_kernel"]), to_torch(own["recurrent_kernel"])]
        got.append(np.asarray(own["bias"]).reshape(-1))
        wanted += [p.grad.numpy() for p in weights_of_torch(theirs, level, suffix)[:3]]
    assert_gradients_close(got, wanted)


@pytest.mark.parametrize("inner", [layers.SelfAttention(2, causal=False, window=3), layers.LSTM(H)])
def test_chunked_equals_every_chunk_alone(inner) -> None:
    layer = layers.Chunked(inner, size=3)

    def wanted(variables, x):
        own = {"params": variables["params"]["layer"]}
        pieces = []
        for row, steps in documents():
            for first in range(0, len(steps), 3):
                at = steps[first : first + 3]
                pieces.append((row, at, inner.apply(own, x[row : row + 1, at])[0]))
        y = jnp.zeros((B, T, pieces[0][2].shape[-1]))
        for row, at, piece in pieces:
            y = y.at[row, at].set(piece[0])
        return y

    compare(layer, wanted, Context(segments=SEGMENTS))


@pytest.mark.parametrize("window", [1, 4])
def test_local_equals_a_loop_over_windows(window: int) -> None:
    inner = layers.LSTM(H)
    layer = layers.Local(inner, window=window)

    def wanted(variables, x):
        own = {"params": variables["params"]["layer"]}
        y = jnp.zeros((B, T, H))
        for row, steps in documents():
            for i, t in enumerate(steps):
                at = steps[max(0, i - window + 1) : i + 1]
                y = y.at[row, t].set(inner.apply(own, x[row : row + 1, at])[0][0, -1])
        return y

    compare(layer, wanted, Context(segments=SEGMENTS))


def test_local_goes_through_padding_between_the_steps_of_a_document() -> None:
    """Padding is no step, also where a stream has it in the middle of a document."""
    layer = layers.Local(layers.LSTM(H), window=3)
    x = jax.random.normal(jax.random.key(0), (1, 6, D))
    variables = started(layer, x)
    gaps = jnp.array([[1, 1, 0, 1, 0, 1]])
    y, _ = layer.apply(variables, x, None, Context(segments=gaps))
    at = np.flatnonzero(gaps[0])
    assert_close(y[:, at], layer.apply(variables, x[:, at])[0])


def test_feedback_equals_a_loop() -> None:
    body = layers.Serial((layers.LSTM(H), layers.Dense(2)))
    layer = layers.Feedback(body, features=2)

    def wanted(variables, x):
        own = {"params": variables["params"]["body"]}
        y = jnp.zeros((B, T, 2))
        for row, steps in documents():
            state, last = None, jnp.zeros((1, 2))
            for t in steps:
                joined = jnp.concatenate([x[row : row + 1, t], last], axis=-1)
                out, state = body.apply(own, joined[:, None], state)
                last = out[:, 0]
                y = y.at[row, t].set(last[0])
        return y

    compare(layer, wanted, Context(segments=SEGMENTS))


def scans(jaxpr):
    """The scans of a program that stand in no other scan."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation
        else:
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from scans(inner)


def test_feedback_looks_at_memory_that_is_prepared_once() -> None:
    body = layers.Serial((layers.LSTM(4), layers.Residual(layers.CrossAttention(2))))
    layer = layers.Feedback(body, features=4)
    memory = jax.random.normal(jax.random.key(5), (B, 6, 3))
    context = Context(memory=memory)
    x = jax.random.normal(jax.random.key(0), (B, 4, D))
    variables = started(layer, x, context)
    prepared = layer.apply(variables, context, method="prepare")
    assert prepared.prepared
    once, state = layer.apply(variables, x, None, prepared)
    assert_close(once, layer.apply(variables, x, None, context)[0])
    # Nothing of the memory is left to look at but what was prepared: it is enough.
    blind = prepared.replace(memory=jnp.zeros_like(memory))
    assert_close(layer.apply(variables, x, state, blind), layer.apply(variables, x, state, context))
    program = jax.make_jaxpr(lambda c: layer.apply(variables, x, None, c)[0])(context)
    read = [v.aval.shape for scan in scans(program.jaxpr) for v in scan.invars]
    assert read
    assert memory.shape not in read


def test_attend_to_input_is_the_recurrence_then_its_attention() -> None:
    attention = layers.SelfAttention(2, window=4)
    recurrence = layers.RNN(4)
    layer = layers.AttendToInput(recurrence, attention, combine=layers.add)

    def wanted(variables, x):
        own = {name: {"params": part} for name, part in variables["params"].items()}
        hidden, _ = recurrence.apply(own["recurrence"], x)
        mixed, _ = attention.apply(own["attention"], hidden, x, None, Context(), method="attend")
        return hidden + mixed

    compare(layer, wanted)


class Noted(layers.Pointwise):
    """Notes what it draws, and what it sees."""

    def map(self, x):
        self.sow("intermediates", "seen", x)
        for name in ("dropout", "variational"):
            if self.has_rng(name):
                self.sow("intermediates", name, jax.random.uniform(self.make_rng(name)))
        return x[..., :2]


@pytest.mark.parametrize(
    ("wrap", "times"),
    [
        (lambda inner: layers.Feedback(inner, features=2), T),
        (lambda inner: layers.Local(inner, window=3), T),
    ],
)
def test_every_step_notes_and_draws_its_own(wrap, times: int) -> None:
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    rngs = {"dropout": jax.random.key(1), "variational": jax.random.key(2)}
    _, notes = wrap(Noted()).apply({}, x, rngs=rngs, mutable=["intermediates"])
    (inner,) = notes["intermediates"].values()
    assert inner["seen"][0].shape[0] == times
    assert len(set(inner["dropout"][0].tolist())) == times
    assert len(set(inner["variational"][0].tolist())) == 1
