"""Recurrent encoders and decoders with attention between them, for `EncoderDecoder`."""

import jax.numpy as jnp

from recattn_jax.layers import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Additive,
    Bidirectional,
    CrossAttention,
    Dense,
    Dot,
    Feedback,
    General,
    Identity,
    Parallel,
    Repeat,
    Residual,
    SequenceLayer,
    Serial,
    Slice,
    add,
    concat,
)


def recurrent_encoder(features: int, depth: int) -> SequenceLayer:
    """An encoder of LSTMs, the lowest in both directions, residual from the third on.

    Args:
      features: units of each LSTM, and of each direction of the lowest.
      depth: number of layers; 1 is a bidirectional LSTM, whose outputs are twice as wide.

    Returns:
      A layer `[B, T, D] -> [B, T, features]`, or `[B, T, 2 features]` at depth 1.

    Raises:
      ValueError: if the depth is less than 1.

    >>> recurrent_encoder(8, depth=3).streams
    False

    Wu et al., Google's neural machine translation system, 2016, arXiv:1609.08144. Depth 1
    is the encoder of Bahdanau et al., 2014, arXiv:1409.0473, with LSTMs for its gated units.
    """
    if depth < 1:
        raise ValueError(f"recurrent_encoder: depth={depth} must be at least 1")
    layers: list[SequenceLayer] = [Bidirectional(LSTM(features), LSTM(features), combine=concat)]
    if depth > 1:
        layers.append(LSTM(features))
    if depth > 2:
        layers.append(Repeat(Residual(LSTM(features)), depth - 2))
    return Serial(tuple(layers))


def mapped_encoder(encoder: SequenceLayer, width: int) -> SequenceLayer:
    """The side of an attention calculator that is looked at: `a_t = W_a encoder(x)_t`.

    Args:
      encoder: an RNN for its states; `Identity()` for the inputs themselves.
      width: width A of what is compared.

    Returns:
      A layer `[B, S, D] -> [B, S, width]`, whose outputs are the memory of `mapped_decoder`.

    >>> from recattn_jax.layers import RNN
    >>> mapped_encoder(RNN(8), width=6).streams
    True
    """
    return Serial((encoder, Dense(width, use_bias=False)))


def mapped_decoder(features: int, width: int) -> SequenceLayer:
    """An RNN that compares a linear map of its state with mapped states of an encoder.

    `e_t = W_e h_{t-1}`, `c_t = sum_s softmax_s(e_t . a_s) a_s`, `h_t = RNN([x_t; c_t], h_{t-1})`,
    `y_t = [h_t; c_t]`, with the a of `mapped_encoder`, keys and values in one.

    Args:
      features: units of the RNN.
      width: width A of the memory, and of e.

    Returns:
      A layer `[B, T, D] -> [B, T, features + width]` that streams.

    >>> mapped_decoder(8, width=6).streams
    True
    """
    ask = Serial(
        (Dense(width, use_bias=False), CrossAttention(heads=1, score=Dot(), project=False))
    )
    return _asks_before_each_step(RNN(features), features, width, ask)


def bahdanau_decoder(features: int, memory: int, hidden: int) -> SequenceLayer:
    """A GRU that asks, before each step, with the state that the step before left.

    `c_t = sum_s softmax_s(v . tanh(h_{t-1} W_q + m_s W_k)) m_s`, `h_t = GRU([x_t; c_t], h_{t-1})`,
    `y_t = [h_t; c_t]`. The first state is zero, not a map of the encoder's last.

    Args:
      features: units of the GRU.
      memory: M, the width of the memory.
      hidden: width of the tanh layer in the score.

    Returns:
      A layer `[B, T, D] -> [B, T, features + memory]` that streams.

    >>> bahdanau_decoder(8, memory=16, hidden=8).streams
    True

    Bahdanau et al., Neural machine translation by jointly learning to align and translate, 2014,
    arXiv:1409.0473.
    """
    ask = CrossAttention(heads=1, score=Additive(hidden), project=False)
    return _asks_before_each_step(GRU(features, reset_after=False), features, memory, ask)


def luong_decoder(features: int, depth: int) -> SequenceLayer:
    """LSTMs that ask after each step, and hear at the next one what they made of the answer.

    `h_t = LSTM([x_t; y_{t-1}], h_{t-1})`, `c_t = sum_s softmax_s(h_t W_a m_s) m_s`,
    `y_t = tanh([c_t; h_t] W_c)`. Feeding `y_{t-1}` in is called input feeding.

    Args:
      features: units of each LSTM, and width of the outputs.
      depth: number of LSTMs, at least 1.

    Returns:
      A layer `[B, T, D] -> [B, T, features]` that streams.

    Raises:
      ValueError: if the depth is less than 1.

    >>> luong_decoder(8, depth=2).streams
    True

    Luong et al., Effective approaches to attention-based neural machine translation, 2015,
    arXiv:1508.04025.
    """
    if depth < 1:
        raise ValueError(f"luong_decoder: depth={depth} must be at least 1")
    context = CrossAttention(heads=1, score=General(), project=False)
    body = Serial(
        (
            *(LSTM(features) for _ in range(depth)),
            Parallel((context, Identity()), combine=concat),
            Dense(features, use_bias=False),
            Activation(jnp.tanh),
        )
    )
    return Feedback(body, features)


def gnmt_decoder(features: int, memory: int, hidden: int, depth: int) -> SequenceLayer:
    """A stack of LSTMs in which the lowest asks, and all the others hear the answer.

    `c_t` and `h_t` as in `bahdanau_decoder`, with an LSTM; each LSTM above reads `[h_t; c_t]` and,
    from the third, adds the `h_t` below to its output; `y_t = [h_t; c_t]` of the highest.

    Args:
      features: units of each LSTM.
      memory: M, the width of the memory.
      hidden: width of the tanh layer in the score.
      depth: number of LSTMs, at least 2.

    Returns:
      A layer `[B, T, D] -> [B, T, features + memory]` that streams.

    Raises:
      ValueError: if the depth is less than 2.

    >>> gnmt_decoder(8, memory=16, hidden=8, depth=4).streams
    True

    Wu et al., Google's neural machine translation system, 2016, arXiv:1609.08144.
    """
    if depth < 2:
        raise ValueError(f"gnmt_decoder: depth={depth} must be at least 2")
    ask = CrossAttention(heads=1, score=Additive(hidden), project=False)
    lowest = _asks_before_each_step(LSTM(features), features, memory, ask)
    second = Parallel((LSTM(features), Slice(start=features)), combine=concat)
    if depth == 2:
        return Serial((lowest, second))
    above = Parallel((LSTM(features), Slice(stop=features)), combine=add)
    passed_on = Parallel((above, Slice(start=features)), combine=concat)
    return Serial((lowest, second, Repeat(passed_on, depth - 2)))


def _asks_before_each_step(
    recurrence: SequenceLayer, features: int, memory: int, ask: SequenceLayer
) -> SequenceLayer:
    """`c_t = ask(h_{t-1})`, `h_t = recurrence([x_t; c_t])`, `y_t = [h_t; c_t]`."""
    # What the body reads is [x_t; h_{t-1}; c_{t-1}].
    asks = Serial((Slice(-features - memory, -memory), ask))
    body = Serial(
        (
            Parallel((Slice(stop=-features - memory), asks), combine=concat),
            Parallel((recurrence, Slice(start=-memory)), combine=concat),
        )
    )
    return Feedback(body, features + memory)
