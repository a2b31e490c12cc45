"""The laws of `SequenceLayer`, as checks, and the table of everything that must obey them.

A check takes a `Row` and raises AssertionError where its law is broken, for outputs or gradients.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recattn_jax import layers
from recattn_jax.layers import Context, SequenceLayer, map_batch, zero_state
from recattn_jax.models import hybrids

BATCH, LENGTH, WIDTH, VOCABULARY = 3, 19, 8, 11
# Documents with padding before, between and after them; a row without padding; a row of one.
SEGMENTS = np.array(
    [
        [0, 1, 1, 1, 1, 1, 0, 2, 2, 2, 2, 2, 2, 2, 0, 0, 3, 3, 0],
        [4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 7, 8, 8, 8, 8, 8, 8, 8],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0],
    ],
    np.int32,
)


# Every document has some memory, in packed rows of its own; the last entries are padding.
MEMORY_SEGMENTS = np.array(
    [[1, 1, 2, 2, 2, 3, 0], [4, 5, 5, 7, 8, 8, 0], [1, 1, 1, 1, 0, 0, 0]], np.int32
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A layer under the laws.

    Attributes:
      layer: the layer.
      reach: how many steps back an output depends on, itself included; None for all.
      tokens: whether inputs are token ids.
      memory: whether the layer looks at `Context.memory`.
    """

    layer: SequenceLayer
    reach: int | None = None
    tokens: bool = False
    memory: bool = False


def mixer() -> SequenceLayer:
    return layers.Parallel(
        (layers.LSTM(WIDTH), layers.SelfAttention(2, window=4)), combine=layers.add
    )


def reader() -> SequenceLayer:
    return layers.Serial(
        (
            layers.Residual(layers.SelfAttention(2, window=4)),
            layers.Residual(layers.CrossAttention(2)),
        )
    )


def block_recurrent(gate: layers.Combine, writes_inputs: bool = False) -> SequenceLayer:
    return layers.BlockRecurrent(
        reader(), layers.CrossAttention(2), gate, slots=3, block=4, writes_inputs=writes_inputs
    )


# Every exported layer and combinator has a row, named after it (`Name` or `Name, what`).
TABLE = {
    "RNN": Row(layers.RNN(6)),
    "RNN, relu": Row(layers.RNN(12, activation=jax.nn.relu)),
    "LSTM": Row(layers.LSTM(6)),
    # Narrow LSTMs with layer norm are chaotic: rounding the weights alone changes all that follows.
    "LSTM, all options": Row(layers.LSTM(24, projection=12, peepholes=True, layer_norm=True)),
    "LSTM, remat and zoneout": Row(layers.LSTM(6, noise=layers.Noise(zoneout=0.2), remat_every=4)),
    "GRU": Row(layers.GRU(6)),
    "GRU, reset before": Row(layers.GRU(6, reset_after=False)),
    "GRU, layer norm": Row(layers.GRU(6, layer_norm=True)),
    "SLSTM": Row(layers.SLSTM(6, heads=2)),
    "MinGRU": Row(layers.MinGRU(6)),
    "MinLSTM": Row(layers.MinLSTM(6)),
    "RGLRU": Row(layers.RGLRU(2)),
    "MLSTM": Row(layers.MLSTM(2)),
    "MLSTM, chunks": Row(layers.MLSTM(2, chunk=4)),
    "LinearAttention": Row(layers.LinearAttention(2, chunk=4)),
    "SelfAttention, full": Row(
        layers.SelfAttention(2, causal=False, positions=layers.RelativeBias(8, 16), use_bias=True)
    ),
    "SelfAttention, causal": Row(layers.SelfAttention(2, score=layers.Cosine(), sinks=True)),
    "SelfAttention, causal window": Row(
        layers.SelfAttention(
            4,
            kv_heads=2,
            window=4,
            score=layers.ScaledDot(cap=5.0, normalize=True),
            positions=layers.ALiBi(),
        ),
        reach=4,
    ),
    "SelfAttention, additive window": Row(
        layers.SelfAttention(
            2, window=4, score=layers.Additive(6), positions=layers.RelativeBias(8, 16), sinks=True
        ),
        reach=4,
    ),
    "SelfAttention, window of one": Row(layers.SelfAttention(2, window=1), reach=1),
    "SelfAttention, long window": Row(layers.SelfAttention(4, window=40, score=layers.General())),
    "SelfAttention, window both ways": Row(layers.SelfAttention(2, causal=False, window=4)),
    "SelfAttention, no projections": Row(
        layers.SelfAttention(1, window=7, score=layers.Dot(), positions=None, project=False),
        reach=7,
    ),
    "CrossAttention": Row(layers.CrossAttention(4, kv_heads=2), reach=1, memory=True),
    "LocationAttention": Row(layers.LocationAttention(6, filters=3, width=5), memory=True),
    "SinusoidalPositions": Row(layers.SinusoidalPositions(), reach=1),
    "LearnedPositions": Row(layers.LearnedPositions(400), reach=1),
    "Identity": Row(layers.Identity(), reach=1),
    "Dense": Row(layers.Dense(5), reach=1),
    "GatedMLP": Row(layers.GatedMLP(12), reach=1),
    "RMSNorm": Row(layers.RMSNorm(), reach=1),
    "LayerNorm": Row(layers.LayerNorm(), reach=1),
    "Dropout": Row(layers.Dropout(0.5), reach=1),
    "Slice": Row(layers.Slice(1, -2), reach=1),
    "Activation": Row(layers.Activation(jnp.tanh), reach=1),
    "Boom": Row(layers.Boom(16), reach=1),
    "CausalConvolution": Row(layers.CausalConvolution(3), reach=3),
    "FeedbackMemory": Row(
        layers.FeedbackMemory(
            layers.Serial((layers.Residual(layers.CrossAttention(2)), layers.RMSNorm())), window=3
        )
    ),
    "Embed": Row(layers.Embed(VOCABULARY, 6), reach=1, tokens=True),
    "EmbedBag": Row(layers.EmbedBag(VOCABULARY, 6, stddev=1.0), reach=1, tokens=True),
    "FrameConvolutions": Row(
        layers.FrameConvolutions((2, 2, 2), channels=(4,), features=5), reach=1
    ),
    "RandomAffine": Row(layers.RandomAffine((2, 2, 2), shift=1.0, zoom=0.2), reach=1),
    "Serial": Row(layers.Serial((layers.RMSNorm(), layers.LSTM(6), layers.Dense(5)))),
    "Serial, windows": Row(
        layers.Serial((layers.SelfAttention(2, window=3), layers.SelfAttention(2, window=4))),
        reach=6,
    ),
    "Serial, not streaming": Row(
        layers.Serial((layers.LSTM(8), layers.SelfAttention(2, causal=False)))
    ),
    "Parallel": Row(mixer()),
    "Parallel, concat": Row(
        layers.Parallel((layers.Identity(), layers.RNN(5)), combine=layers.concat)
    ),
    "Parallel, gate": Row(
        layers.Parallel(
            (layers.LSTM(WIDTH), layers.SelfAttention(2, window=4)), combine=layers.Gate()
        )
    ),
    "Parallel, normalized mean": Row(
        layers.Parallel((layers.RNN(WIDTH), layers.Identity()), combine=layers.NormalizedMean())
    ),
    "AttendToInput": Row(
        layers.AttendToInput(
            layers.RNN(WIDTH), layers.SelfAttention(2, window=4), combine=layers.add
        )
    ),
    "Bidirectional": Row(layers.Bidirectional(layers.LSTM(3), layers.RNN(4))),
    # What a chunk reaches differs from step to step: the LSTM after it reaches all.
    "Chunked": Row(layers.Serial((layers.Chunked(reader(), size=4), layers.LSTM(6))), memory=True),
    "Chunked, both ways": Row(
        layers.Chunked(layers.SelfAttention(2, causal=False, window=4), size=4)
    ),
    "Local": Row(layers.Local(layers.RNN(4), window=3), reach=3),
    "Final": Row(layers.Serial((layers.Final(), layers.LSTM(6)))),
    "Feedback": Row(
        layers.Feedback(
            layers.Serial((layers.LSTM(6), layers.Residual(layers.CrossAttention(2)))), features=6
        ),
        memory=True,
    ),
    "Tied": Row(layers.Tied(layers.Residual(mixer()), times=2)),
    "Remat": Row(layers.Remat(layers.Residual(mixer()))),
    "BlockRecurrent": Row(block_recurrent(layers.LSTMGate())),
    "BlockRecurrent, writes inputs": Row(block_recurrent(layers.FixedGate(), writes_inputs=True)),
    "Residual": Row(layers.Residual(layers.LSTM(WIDTH))),
    "Repeat": Row(layers.Repeat(layers.Residual(mixer()), depth=2)),
    "Repeat, not streaming": Row(
        layers.Repeat(layers.Residual(layers.SelfAttention(2, causal=False)), depth=2)
    ),
    "hybrids.chunked_attention_then_recurrence": Row(
        hybrids.chunked_attention_then_recurrence(6, 2, size=4, causal=True, residual=True)
    ),
    "hybrids.input_joined_with_attention": Row(
        hybrids.input_joined_with_attention(6, layers.SelfAttention(2, window=4))
    ),
    "hybrids.recurrence_attends_to_input": Row(
        hybrids.recurrence_attends_to_input(WIDTH, layers.General(), causal=True, window=4)
    ),
    "hybrids.attention_over_recurrence": Row(
        hybrids.attention_over_recurrence(6, causal=False, window=None)
    ),
    "hybrids.recurrence_beside_attention": Row(hybrids.recurrence_beside_attention(WIDTH, 2, 4)),
    "hybrids.recurrence_plus_attention_over_it": Row(
        hybrids.recurrence_plus_attention_over_it(WIDTH, 2, 4)
    ),
    "hybrids.recurrence_then_additive_attention": Row(
        hybrids.recurrence_then_additive_attention(6, 5, causal=True, window=4)
    ),
    "hybrids.recurrent_encoder": Row(hybrids.recurrent_encoder(4, depth=3)),
    "hybrids.mapped_encoder": Row(hybrids.mapped_encoder(layers.RNN(6), width=5)),
    "hybrids.mapped_decoder": Row(hybrids.mapped_decoder(6, WIDTH), memory=True),
    "hybrids.bahdanau_decoder": Row(hybrids.bahdanau_decoder(6, WIDTH, hidden=5), memory=True),
    "hybrids.luong_decoder": Row(hybrids.luong_decoder(6, depth=1), memory=True),
    "hybrids.gnmt_decoder": Row(hybrids.gnmt_decoder(4, WIDTH, hidden=5, depth=3), memory=True),
    "hybrids.pre_norm": Row(hybrids.pre_norm(layers.RNN(WIDTH), 0.1)),
    "hybrids.pre_norm_block": Row(hybrids.pre_norm_block(layers.RNN(WIDTH), 12, 0.1)),
    "hybrids.gated_linear_recurrence": Row(hybrids.gated_linear_recurrence(5, width=4, heads=2)),
    "hybrids.griffin": Row(hybrids.griffin(WIDTH, 2, 3, hidden=8, depth=3, dropout=0.0)),
    "hybrids.samba_like": Row(hybrids.samba_like(WIDTH, 2, 3, hidden=8, depth=3, dropout=0.0)),
    "hybrids.hymba_like": Row(hybrids.hymba_like(WIDTH, 2, 3, hidden=8, depth=1, dropout=0.0)),
    "hybrids.sha_rnn": Row(hybrids.sha_rnn(WIDTH, window=4, hidden=16, depth=2, dropout=0.0)),
    "hybrids.r_transformer": Row(
        hybrids.r_transformer(WIDTH, 2, local=3, window=4, hidden=8, depth=1, dropout=0.0), reach=6
    ),
    "hybrids.block_recurrent_transformer": Row(
        hybrids.block_recurrent_transformer(
            2, hidden=8, block=4, slots=3, gate=layers.FixedGate(), skip=False, dropout=0.0
        )
    ),
    "hybrids.temporal_latent_bottleneck": Row(
        hybrids.temporal_latent_bottleneck(2, hidden=8, block=4, slots=3, depth=1, dropout=0.0)
    ),
    "hybrids.feedback_transformer": Row(
        hybrids.feedback_transformer(2, hidden=8, depth=2, window=4, dropout=0.0)
    ),
    "hybrids.transformer": Row(
        hybrids.transformer(2, hidden=8, depth=2, causal=False, window=None, dropout=0.0)
    ),
    "hybrids.transformer_decoder": Row(
        hybrids.transformer_decoder(2, hidden=8, depth=2, window=4, dropout=0.0),
        reach=7,
        memory=True,
    ),
    "hybrids.transformer_xl": Row(
        hybrids.transformer_xl(2, hidden=8, depth=2, window=4, buckets=4, dropout=0.0), reach=7
    ),
    "hybrids.rnn_stack": Row(hybrids.rnn_stack(WIDTH, hidden=8, depth=2, dropout=0.0)),
    "Repeat, nested": Row(
        layers.Repeat(layers.Repeat(layers.Residual(layers.RNN(WIDTH)), depth=2), depth=2)
    ),
}


def inputs(row: Row, dtype: Any = jnp.float32) -> jax.Array:
    key = jax.random.key(7)
    if row.tokens:
        several = (3,) * (row.layer.token_ranks == (3,))
        return jax.random.randint(key, (BATCH, LENGTH, *several), 0, VOCABULARY)
    return jax.random.normal(key, (BATCH, LENGTH, WIDTH)).astype(dtype)


@functools.lru_cache(maxsize=2)
def variables(row: Row) -> Any:
    """Fresh variables, moved a little, so that biases and scales are not at round numbers."""
    fresh = jax.jit(row.layer.init)(jax.random.key(3), inputs(row)[:, :1], None, ones(row, 1))
    leaves, tree = jax.tree.flatten(fresh)
    noise = np.random.default_rng(5)
    return jax.tree.unflatten(tree, [a + 0.1 * noise.normal(size=a.shape) for a in leaves])


def give(row: Row, segments: Any, memory_segments: Any) -> Context:
    context = Context(segments=None if segments is None else jnp.asarray(segments))
    if not row.memory:
        return context
    memory = jax.random.normal(jax.random.key(9), (BATCH, MEMORY_SEGMENTS.shape[1], WIDTH))
    return context.replace(memory=memory, memory_segments=jnp.asarray(memory_segments))


def packed(row: Row) -> Context:
    """Several documents a row, with padding."""
    return give(row, SEGMENTS, MEMORY_SEGMENTS)


def ones(row: Row, length: int = LENGTH, start: int = 0) -> Context:
    """One document a row, said by numbers; the first `start` steps are padding."""
    segments = np.broadcast_to(np.arange(length) >= start, (BATCH, length)).astype(np.int32)
    return give(row, segments, np.minimum(MEMORY_SEGMENTS, 1))


def unsaid(row: Row) -> Context:
    """One document a row, and no numbers for its steps."""
    return give(row, None, np.minimum(MEMORY_SEGMENTS, 1))


@dataclasses.dataclass(frozen=True)
class Result:
    """Outputs, and the gradients of a fixed random projection of them."""

    y: jax.Array
    d_x: jax.Array | None
    d_memory: jax.Array | None
    d_variables: Any


Program = Callable[[Any, jax.Array, Context], jax.Array]


def differentiated(row: Row, program: Program) -> Callable[..., Result]:
    """`(x, context, weigh) -> Result`, compiled once; `weigh` weighs outputs in the loss."""

    def loss(leaves: dict[str, Any], x: jax.Array, context: Context, weigh: Any) -> Any:
        context = context.replace(memory=leaves.get("memory"))
        y = program(leaves["variables"], leaves.get("x", x), context)
        toward = jax.random.normal(jax.random.key(11), y.shape)
        return jnp.sum(y.astype(jnp.float32) * toward * weigh), y

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def run(x: jax.Array, context: Context, weigh: Any = None) -> Result:
        leaves = {"variables": variables(row)}
        if not row.tokens:
            leaves["x"] = x
        if row.memory:
            leaves["memory"] = context.memory
        weigh = np.ones((*x.shape[:2], 1), np.float32) if weigh is None else weigh
        (_, y), d = gradient(leaves, x, context.replace(memory=None), weigh)
        return Result(y, d.get("x"), d.get("memory"), d["variables"])

    return run


@functools.lru_cache(maxsize=2)
def whole(row: Row) -> Callable[..., Result]:
    """The layer over all steps at once: what every law compares with."""
    return differentiated(
        row, lambda weights, x, context: row.layer.apply(weights, x, None, context)[0]
    )


@functools.lru_cache(maxsize=2)
def applied(row: Row) -> Callable[..., Any]:
    """`(x, state, context) -> (y, state)`, compiled."""
    return functools.partial(jax.jit(row.layer.apply), variables(row))


def close(got: Any, wanted: Any, what: str, tolerance: float = 1e-5) -> None:
    """Every entry within `tolerance` of the largest entry of all the arrays."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted), what
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)
    ]
    scale = max((float(np.max(np.abs(b), initial=0.0)) for _, b in pairs), default=0.0)
    for a, b in pairs:
        assert a.shape == b.shape, f"{what}: {a.shape} is not {b.shape}"
        error = float(np.max(np.abs(a - b), initial=0.0))
        assert error <= tolerance * scale, f"{what}: off by {error:.2e} at scale {scale:.2e}"


def identical(got: Any, wanted: Any, what: str) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=what)


def same(got: Result, wanted: Result, what: str) -> None:
    for field in ("y", "d_x", "d_memory", "d_variables"):
        close(getattr(got, field), getattr(wanted, field), f"{what}: {field}")


def fresh_state(row: Row, dtype: Any = jnp.float32) -> Any:
    """Zeros; nothing for a layer that does not stream."""
    if not row.layer.streams:
        return None
    return zero_state(row.layer, variables(row), inputs(row, dtype)[:, :1], None, ones(row, 1))


def first_row(leaf: jax.Array) -> jax.Array:
    assert leaf.shape[0] == BATCH, f"axis 0 of {leaf.shape} is not the batch"
    return leaf[:1]


def cut(context: Context, start: int, stop: int) -> Context:
    """Segments are cut with x, memory is not."""
    if context.segments is None:
        return context
    return context.replace(segments=context.segments[:, start:stop])


def check_zero(row: Row) -> None:
    """A fresh state is zeros, of a structure that does not depend on T."""
    x, zeros = inputs(row), fresh_state(row)
    longer = zero_state(row.layer, variables(row), x, None, ones(row))
    assert jax.tree.structure(zeros) == jax.tree.structure(longer), "structure depends on T"
    for one, other in zip(jax.tree.leaves(zeros), jax.tree.leaves(longer), strict=True):
        assert one.shape == other.shape, "size depends on T"
        assert one.dtype == other.dtype, "dtype depends on T"
    map_batch(first_row, zeros)  # axis 0 is B
    y = applied(row)(x, zeros, unsaid(row))[0]
    close(y, whole(row)(x, ones(row)).y, "None is not zeros: y")


def check_split(
    row: Row, cuts: tuple[int, ...] | None = None, with_gradients: bool = False
) -> None:
    """Cutting time anywhere changes nothing, down to single steps; these always with gradients."""
    x, zeros = inputs(row), fresh_state(row)
    if cuts is None:  # a place drawn by the layer, so that rows do not all cut at one
        said = re.sub("0x[0-9a-f]+", "", repr(row.layer))  # functions say where they stand
        cuts = (1 + sum(map(ord, said)) % (LENGTH - 1),)
    for k in cuts:
        what = f"cut at {k}"

        def in_two(weights: Any, x: jax.Array, context: Context, k: int = k) -> jax.Array:
            y, state = row.layer.apply(weights, x[:, :k], zeros, cut(context, 0, k))
            z, _ = row.layer.apply(weights, x[:, k:], state, cut(context, k, LENGTH))
            return jnp.concatenate([y, z], axis=1)

        if with_gradients:
            same(differentiated(row, in_two)(x, packed(row)), whole(row)(x, packed(row)), what)
        else:
            y = jax.jit(in_two)(variables(row), x, packed(row))
            close(y, whole(row)(x, packed(row)).y, f"{what}: y")

    def by_steps(weights: Any, x: jax.Array, context: Context) -> jax.Array:
        def step(state: Any, at: Any) -> tuple[Any, jax.Array]:
            x, segments = at
            y, state = row.layer.apply(weights, x, state, context.replace(segments=segments))
            return state, y[:, 0]

        steps = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0)[:, :, None], (x, context.segments))
        return jnp.moveaxis(jax.lax.scan(step, zeros, steps)[1], 0, 1)

    same(differentiated(row, by_steps)(x, packed(row)), whole(row)(x, packed(row)), "single steps")


def check_segment(row: Row) -> None:
    """A packed document equals itself alone; the others do not notice what is in it."""
    x, context = inputs(row), packed(row)
    among = whole(row)(x, context).y
    for b, number in ((0, 2), (1, 8)):
        at = np.flatnonzero(SEGMENTS[b] == number)
        # Alone: at the beginning of a row of its own, in a program that is compiled already.
        first = np.broadcast_to(np.arange(LENGTH) < len(at), (BATCH, LENGTH)).astype(np.int32)
        own = give(row, first, number == MEMORY_SEGMENTS)
        alone = whole(row)(jnp.roll(x, -at[0], axis=1), own).y
        close(among[b, at], alone[b, : len(at)], f"document {number} of row {b} alone")
    for b, number in ((0, 1), (0, 3), (1, 5)):
        inside = np.zeros((BATCH, LENGTH, 1), bool)
        inside[b] = (SEGMENTS[b] == number)[:, None]
        if row.tokens:
            other = jnp.where(
                inside.reshape(BATCH, LENGTH, *[1] * (x.ndim - 2)), (x + 1) % VOCABULARY, x
            )
        else:
            other = jnp.where(inside, -3.0 * x + 1.0, x)
        other_context = context
        if row.memory:
            theirs = np.zeros((*MEMORY_SEGMENTS.shape, 1), bool)
            theirs[b] = (MEMORY_SEGMENTS[b] == number)[:, None]
            changed = jnp.where(theirs, 1.0 - 2.0 * context.memory, context.memory)
            other_context = context.replace(memory=changed)
        weigh = np.where(inside, 0.0, 1.0).astype(np.float32)
        before = whole(row)(x, context, weigh)
        after = whole(row)(other, other_context, weigh)
        what = f"altering document {number} of row {b} changes another's"
        identical(before.y * weigh, after.y * weigh, f"{what} output")
        identical(before.d_variables, after.d_variables, f"{what} parameter gradient")
        identical((before.d_x, before.d_memory), (after.d_x, after.d_memory), f"{what} gradient")


def check_padding(row: Row) -> None:
    """A padded step is no step, whatever is written there."""
    x, context, pad = inputs(row), packed(row), SEGMENTS == 0
    clean = whole(row)(x, context)
    assert not np.any(np.asarray(clean.y)[pad]), "output at padding"
    dirt = -1 if row.tokens else jnp.nan
    dirty_x = jnp.where(pad.reshape(*pad.shape, *[1] * (x.ndim - 2)), dirt, x)
    if row.memory:
        none = (MEMORY_SEGMENTS == 0)[..., None]
        context = context.replace(memory=jnp.where(none, jnp.nan, context.memory))
    dirty = whole(row)(dirty_x, context)
    identical(dirty.y, clean.y, "what is written at padding changes outputs")
    identical(dirty.d_variables, clean.d_variables, "what is written at padding changes gradients")
    if dirty.d_x is not None:
        assert not np.any(np.asarray(dirty.d_x)[pad]), "gradient at padding"
    if dirty.d_memory is not None:
        assert not np.any(np.asarray(dirty.d_memory)[MEMORY_SEGMENTS == 0]), "gradient at padding"

    if not row.layer.streams:
        return
    # A document, cut; a call of nothing but padding; the rest, with padding in front of it.
    first = np.broadcast_to(np.arange(LENGTH) < 10, (BATCH, LENGTH)).astype(np.int32)
    apply, memory = applied(row), np.minimum(MEMORY_SEGMENTS, 1)
    y, state = apply(x, fresh_state(row), give(row, first, memory))
    _, after = apply(x, state, give(row, 0 * first, memory))
    identical(after, state, "padding changes the state")
    z, _ = apply(x, after, give(row, 1 - first, memory))
    close(y + z, whole(row)(x, ones(row)).y, "padding before the rest of a document")


def check_causality(row: Row) -> None:
    """An output depends on its own step, on those within reach, and on no others."""
    if not row.layer.streams:
        return
    x, context = inputs(row), ones(row)
    depends = np.zeros((LENGTH, LENGTH), bool)
    if row.tokens:
        y = np.asarray(whole(row)(x, context).y)
        for s in range(LENGTH):
            other = whole(row)(x.at[0, s].set((x[0, s] + 1) % VOCABULARY), context).y
            depends[:, s] = np.any(np.asarray(other)[0] != y[0], axis=1)
    else:
        for t, weigh in enumerate(np.eye(LENGTH, dtype=np.float32)):
            d_x = whole(row)(x, context, np.broadcast_to(weigh[:, None], (BATCH, LENGTH, 1))).d_x
            depends[t] = np.any(np.asarray(d_x)[0] != 0, axis=1)
    reach = LENGTH if row.reach is None else row.reach
    for t in range(LENGTH):
        first = max(0, t - reach + 1)
        assert not depends[t, t + 1 :].any(), f"step {t} depends on a later one"
        assert not depends[t, :first].any(), f"step {t} depends on one out of reach"
        assert depends[t, t], f"step {t} does not depend on itself"
        assert depends[t, first], f"step {t} does not depend on step {first}, within its reach"


def check_dtype(row: Row) -> None:
    """The dtype of x is the dtype of y, bfloat16 is near float32, nothing seen gives zeros."""
    x = inputs(row)
    y = whole(row)(x, ones(row)).y
    if not row.tokens:
        assert y.dtype == x.dtype, f"float32 became {y.dtype}"
        # Many times over, so that a carry kept in bfloat16 goes astray.
        times = 16 if row.layer.streams else 1
        state, state_half = (fresh_state(row, dtype) for dtype in (jnp.float32, jnp.bfloat16))
        for _ in range(times):
            half, state_half = applied(row)(x.astype(jnp.bfloat16), state_half, ones(row))
            y, state = applied(row)(x.astype(jnp.bfloat16).astype(x.dtype), state, ones(row))
        assert half.dtype == jnp.bfloat16, f"bfloat16 became {half.dtype}"
        error = np.max(np.abs(np.asarray(half, np.float32) - np.asarray(y)))
        assert error <= 3e-2 * np.max(np.abs(y)), f"bfloat16 is off by {error:.2e}"
    nothing = give(row, np.where([[1], [0], [0]], 0, SEGMENTS), MEMORY_SEGMENTS * [[1], [0], [1]])
    result = whole(row)(x, nothing)
    assert not np.any(np.asarray(result.y[0])), "a row that sees nothing gives something"
    for leaf in jax.tree.leaves(vars(result)):
        assert np.all(np.isfinite(leaf)), "a row that sees nothing gives NaN"


def check_sum(row: Row) -> None:
    """In bfloat16 the gradient of many equal rows is that of one, so many times.

    A sum kept in bfloat16 stops growing at 256 equal terms.
    """
    rows = 1024

    def repeated(leaf: jax.Array) -> jax.Array:
        return jnp.repeat(leaf[:1], rows, axis=0)

    x, context = repeated(inputs(row, jnp.bfloat16)), jax.tree.map(repeated, ones(row))
    toward = jax.random.normal(jax.random.key(11), x.shape[1:2])

    @jax.jit
    @jax.grad
    def gradient(weights: Any, weigh: jax.Array) -> jax.Array:
        y, _ = row.layer.apply(weights, x, None, context)
        return jnp.einsum("bt...,t,b->", y.astype(jnp.float32), toward, weigh)

    one = gradient(variables(row), jnp.zeros(rows).at[0].set(1.0))
    close(
        jax.tree.map(lambda d: d / rows, gradient(variables(row), jnp.ones(rows))),
        one,
        "of many rows: d_variables",
        1e-2,
    )


def check_refusal(row: Row) -> None:
    """A layer that does not stream takes no state, gives none, and says why."""
    weights, x = variables(row), inputs(row)
    assert row.layer.apply(weights, x, None, ones(row))[1] == (), "a state is returned"
    try:
        row.layer.apply(weights, x, jnp.zeros((BATCH, 1)), ones(row))
    except ValueError as error:
        assert "later steps" in str(error), f"the refusal does not say why: {error}"
    else:
        raise AssertionError("a state is accepted")


def check_seen(row: Row) -> None:
    """What a caller looks at inside changes nothing."""
    x, context = inputs(row), packed(row)
    look = jax.jit(functools.partial(row.layer.apply, mutable=["intermediates"]))
    seen, _ = look(variables(row), x, None, context)
    close(seen, applied(row)(x, None, context), "looked at from inside", 1e-6)


ANY: dict[str, Callable[[Row], None]] = {
    "segment": check_segment,
    "padding": check_padding,
    "dtype": check_dtype,
    "sum": check_sum,
    "seen": check_seen,
}
STREAMING = ANY | {"zero": check_zero, "split": check_split, "causality": check_causality}
WHOLE = ANY | {"refusal": check_refusal}


def laws(row: Row) -> dict[str, Callable[[Row], None]]:
    """The laws that bind a row."""
    return STREAMING if row.layer.streams else WHOLE


def check_every_cut(row: Row) -> None:
    """The law of Split at every place, with gradients; slow."""
    check_split(row, cuts=tuple(range(1, LENGTH)), with_gradients=True)


def check_eager(row: Row) -> None:
    """Compiled or not, the outputs are the same; slow."""
    eager = row.layer.apply(variables(row), inputs(row), None, packed(row))[0]
    close(eager, whole(row)(inputs(row), packed(row)).y, "eager is not jit")
