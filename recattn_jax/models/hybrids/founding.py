"""Hybrids of one recurrence and one attention, in every order; decoders stand in their own file."""

from collections.abc import Callable

import jax.numpy as jnp

from recattn_jax.layers import (
    LSTM,
    RNN,
    Additive,
    AttendToInput,
    Chunked,
    Dot,
    Identity,
    Parallel,
    Positions,
    Residual,
    Score,
    SelfAttention,
    SequenceLayer,
    Serial,
    add,
    concat,
)
from recattn_jax.shapes import Array


def chunked_attention_then_recurrence(
    features: int, heads: int, size: int, causal: bool, residual: bool
) -> SequenceLayer:
    """Self-attention inside chunks, joined in order, then an LSTM over them.

    `y = LSTM([Attention(X_1); ...; Attention(X_N)])`: attention costs `N (T / N)^2`, not `T^2`. The
    last chunk of a document may be shorter. There are no positions: the LSTM brings the order.

    Args:
      features: units of the LSTM.
      heads: attention heads; they divide the width of x.
      size: steps of a chunk.
      causal: whether steps of a chunk see only the ones before; then the hybrid streams.
      residual: whether attention is added to x in place of taking its place.

    Returns:
      A layer `[B, T, D] -> [B, T, features]`.

    >>> layer = chunked_attention_then_recurrence(8, 2, size=16, causal=True, residual=False)
    >>> layer.streams
    True
    """
    attention = SelfAttention(heads, causal=causal, window=size, positions=None)
    chunks = Chunked(attention, size)
    return Serial((Residual(chunks) if residual else chunks, LSTM(features)))


def input_joined_with_attention(features: int, attention: SequenceLayer) -> SequenceLayer:
    """Each input joined with its attention value, then an LSTM: `y = LSTM([x; Attention(x)])`.

    Args:
      features: units of the LSTM.
      attention: `[B, T, D] -> [B, T, E]`: causal with a window to see the past, or `Chunked` to see
        the steps of one's own chunk.

    Returns:
      A layer `[B, T, D] -> [B, T, features]` that streams where attention does.

    >>> layer = input_joined_with_attention(8, SelfAttention(heads=2, window=16))
    >>> layer.streams
    True
    """
    return Serial((Parallel((Identity(), attention), combine=concat), LSTM(features)))


def recurrence_attends_to_input(
    features: int,
    score: Score,
    causal: bool,
    window: int | None,
    activation: Callable[[Array], Array] = jnp.tanh,
    project: bool = False,
) -> SequenceLayer:
    """Hidden states attend to the inputs, and what they find is added to them.

    `h_t = tanh(x_t W + h_{t-1} U + b)`, `y_t = h_t + sum_s softmax_s(score(h_t, x_s)) x_s`.

    Args:
      features: units of the RNN; also the width of x, unless there are projections.
      score: how states and inputs are compared: `Dot()`, `ScaledDot()`, `Cosine()`, or with weights
        of its own, `General()` and `Additive(features)`.
      causal: whether only inputs up to t are seen.
      window: steps that are seen, t included; None for the whole document.
      activation: of the RNN, in place of tanh: `nn.sigmoid`, `nn.relu`, or another, elementwise.
      project: whether linear maps stand before the score and after the sum, as they must where x is
        not as wide as h.

    Returns:
      A layer `[B, T, D] -> [B, T, features]` that streams if causal with a window.

    >>> layer = recurrence_attends_to_input(8, Dot(), causal=True, window=16)
    >>> layer.streams
    True
    """
    attention = SelfAttention(
        heads=1, causal=causal, window=window, score=score, positions=None, project=project
    )
    return AttendToInput(RNN(features, activation=activation), attention, combine=add)


def attention_over_recurrence(features: int, causal: bool, window: int | None) -> SequenceLayer:
    """An LSTM, and dot-product attention over its outputs without any projection.

    `h = LSTM(x)`, `y_t = sum_s softmax_s(h_t . h_s) h_s`.

    Args:
      features: units of the LSTM.
      causal: whether only outputs up to t are seen.
      window: steps that are seen, t included; None for the whole document.

    Returns:
      A layer `[B, T, D] -> [B, T, features]` that streams if causal with a window.

    >>> attention_over_recurrence(64, causal=False, window=None).streams
    False

    Luong et al., Effective approaches to attention-based neural machine translation, 2015,
    arXiv:1508.04025 (the score); between the steps of one sequence: Cheng et al., Long short-term
    memory-networks for machine reading, 2016, arXiv:1601.06733.
    """
    attention = SelfAttention(
        heads=1, causal=causal, window=window, score=Dot(), positions=None, project=False
    )
    return Serial((LSTM(features), attention))


def recurrence_then_additive_attention(
    features: int, hidden: int, causal: bool, window: int | None
) -> SequenceLayer:
    """An LSTM, and additive attention over its outputs.

    `h = LSTM(x)`, `y_t = sum_s softmax_s(v . tanh(h_t W_q + h_s W_k)) h_s`.

    Args:
      features: units of the LSTM.
      hidden: width of the tanh layer in the score.
      causal: whether only outputs up to t are seen.
      window: steps that are seen, t included; None for the whole document.

    Returns:
      A layer `[B, T, D] -> [B, T, features]` that streams if causal with a window.

    >>> recurrence_then_additive_attention(128, hidden=64, causal=True, window=16).streams
    True

    Bahdanau et al., Neural machine translation by jointly learning to align and translate, 2014,
    arXiv:1409.0473 (the score).
    """
    attention = SelfAttention(
        heads=1, causal=causal, window=window, score=Additive(hidden), positions=None, project=False
    )
    return Serial((LSTM(features), attention))


def recurrence_beside_attention(
    features: int,
    heads: int,
    window: int | None,
    causal: bool = True,
    positions: Positions | None = None,
) -> SequenceLayer:
    """An LSTM and self-attention on the same input, added: `y = LSTM(x) + Attention(x)`.

    Args:
      features: width of x, and units of the LSTM.
      heads: attention heads.
      window: steps that attention sees, its own included; None for the whole document.
      causal: whether only inputs up to t are seen.
      positions: how positions enter the attention; None leaves order to the LSTM.

    Returns:
      A layer `[B, T, features] -> [B, T, features]` that streams if causal with a window.

    >>> layer = recurrence_beside_attention(8, heads=2, window=16)
    >>> layer.streams
    True
    """
    attention = SelfAttention(heads, causal=causal, window=window, positions=positions)
    return Parallel((LSTM(features), attention), combine=add)


def recurrence_plus_attention_over_it(
    features: int,
    heads: int,
    window: int | None,
    causal: bool = True,
    positions: Positions | None = None,
) -> SequenceLayer:
    """An LSTM, and self-attention over its outputs, added to them.

    `h = LSTM(x)`, `y = h + Attention(h)`: as `recurrence_beside_attention`, but queries, keys and
    values are made of the hidden states.

    Args:
      features: units of the LSTM.
      heads: attention heads.
      window: steps that attention sees, its own included; None for the whole document.
      causal: whether only states up to t are seen.
      positions: how positions enter the attention; None leaves order to the LSTM.

    Returns:
      A layer `[B, T, D] -> [B, T, features]` that streams if causal with a window.

    >>> recurrence_plus_attention_over_it(8, heads=2, window=16).streams
    True
    """
    attention = SelfAttention(heads, causal=causal, window=window, positions=positions)
    return Serial((LSTM(features), Residual(attention)))
