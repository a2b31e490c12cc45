"""Transformers, and stacks of recurrences: what hybrids are compared with."""

from recattn_jax.layers import (
    LSTM,
    CrossAttention,
    FeedbackMemory,
    RelativeBias,
    Repeat,
    RMSNorm,
    SelfAttention,
    SequenceLayer,
    Serial,
)
from recattn_jax.models.hybrids.blocks import pre_norm, pre_norm_block


def transformer(
    heads: int, hidden: int, depth: int, causal: bool, window: int | None, dropout: float
) -> SequenceLayer:
    """Blocks of self-attention and a gated MLP behind norms, and a norm at the end.

    Args:
      heads: attention heads.
      hidden: width inside the MLPs.
      depth: number of blocks.
      causal: whether later steps are hidden.
      window: how far away steps are seen; None for the whole document.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, D] -> [B, T, D]` that streams if causal with a window.

    >>> transformer(2, hidden=16, depth=2, causal=False, window=None, dropout=0.1).streams
    False

    Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762; norms first: Xiong et al.,
    2020, arXiv:2002.04745.
    """
    attention = SelfAttention(heads, causal=causal, window=window)
    return Serial((Repeat(pre_norm_block(attention, hidden, dropout), depth), RMSNorm()))


def transformer_decoder(
    heads: int, hidden: int, depth: int, window: int, dropout: float
) -> SequenceLayer:
    """Blocks of causal self-attention, attention to the memory and a gated MLP, and a norm.

    Args:
      heads: attention heads.
      hidden: width inside the MLPs.
      depth: number of blocks.
      window: steps that self-attention looks back; the longest target, to see all of it.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, D] -> [B, T, D]` that streams.

    >>> transformer_decoder(2, hidden=16, depth=2, window=64, dropout=0.1).streams
    True

    Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762; here norms come first.
    """
    looks_back = pre_norm(SelfAttention(heads, window=window), dropout)
    asks = pre_norm_block(CrossAttention(heads), hidden, dropout)
    return Serial((Repeat(Serial((looks_back, asks)), depth), RMSNorm()))


def transformer_xl(
    heads: int, hidden: int, depth: int, window: int, buckets: int, dropout: float
) -> SequenceLayer:
    """A causal transformer with a window and a bias by distance; its state is its memory.

    The keys and values of the last `window` steps are carried on from segment to segment, as
    Transformer-XL carries its hidden states, and every step looks back equally far. The bias is
    T5's, a number for each bucket of distances, in place of sinusoids compared with the query.

    Args:
      heads: attention heads.
      hidden: width inside the MLPs.
      depth: number of blocks.
      window: steps that attention sees, its own included in each block.
      buckets: of distances up to the window; half of them hold one distance each.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, D] -> [B, T, D]` that streams.

    >>> transformer_xl(2, 16, depth=2, window=64, buckets=32, dropout=0.1).streams
    True

    Dai et al., Transformer-XL: attentive language models beyond a fixed-length context, 2019,
    arXiv:1901.02860.
    """
    attention = SelfAttention(
        heads, window=window, positions=RelativeBias(buckets, distance=window)
    )
    return Serial((Repeat(pre_norm_block(attention, hidden, dropout), depth), RMSNorm()))


def feedback_transformer(
    heads: int, hidden: int, depth: int, window: int, dropout: float
) -> SequenceLayer:
    """A transformer whose blocks all look at what the highest made of the steps before.

    `y_t = Blocks(x_t; y_{t-window}, ..., y_{t-1})`. In the paper the memory of a step is a learned
    mean over all blocks, and distances enter its scores; here it is the output, and none do.

    Args:
      heads: attention heads.
      hidden: width inside the MLPs.
      depth: number of blocks.
      window: how many past outputs are seen.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, D] -> [B, T, D]` that streams, one step at a time in training too.

    >>> feedback_transformer(2, hidden=16, depth=2, window=16, dropout=0.1).streams
    True

    Fan et al., Addressing some limitations of transformers with feedback memory, 2020,
    arXiv:2002.09402.
    """
    block = pre_norm_block(CrossAttention(heads), hidden, dropout)
    return FeedbackMemory(Serial((Repeat(block, depth), RMSNorm())), window)


def rnn_stack(features: int, hidden: int, depth: int, dropout: float) -> SequenceLayer:
    """The blocks of `transformer` with an LSTM in place of attention, and a norm at the end.

    For plain layers of recurrence without residuals or MLPs see `layers.stack`.

    Args:
      features: width of x, and units of each LSTM.
      hidden: width inside the MLPs.
      depth: number of blocks.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, features] -> [B, T, features]` that streams.

    >>> rnn_stack(8, hidden=16, depth=2, dropout=0.1).streams
    True

    Hochreiter and Schmidhuber, Long short-term memory, 1997.
    """
    return Serial((Repeat(pre_norm_block(LSTM(features), hidden, dropout), depth), RMSNorm()))
