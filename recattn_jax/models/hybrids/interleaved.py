"""Hybrids that put recurrence and attention in turn, or side by side, in every block."""

from recattn_jax.layers import (
    GRU,
    LSTM,
    Boom,
    Dropout,
    LayerNorm,
    Local,
    NormalizedMean,
    Parallel,
    Repeat,
    Residual,
    RMSNorm,
    SelfAttention,
    SequenceLayer,
    Serial,
)
from recattn_jax.models.hybrids.blocks import (
    gated_linear_recurrence,
    interleave,
    pre_norm,
    pre_norm_block,
)


def griffin(
    features: int, heads: int, window: int, hidden: int, depth: int, dropout: float
) -> SequenceLayer:
    """Two blocks of a gated linear recurrence, one of local attention, over and over.

    Attention has one head of keys and values for all heads of queries. Griffin's MLP gates with a
    GELU, this one with a SiLU; its recurrence is 4/3 as wide as x, here as wide.

    Args:
      features: width of x.
      heads: query heads, and blocks of the recurrence's gates.
      window: steps that attention sees, its own included.
      hidden: width inside the MLPs; in Griffin three times the features.
      depth: number of blocks, each with its MLP.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, features] -> [B, T, features]` that streams.

    >>> griffin(8, heads=2, window=16, hidden=24, depth=6, dropout=0.0).streams
    True

    De et al., Griffin: mixing gated linear recurrences with local attention, 2024,
    arXiv:2402.19427.
    """

    def recurrence() -> SequenceLayer:
        mixer = gated_linear_recurrence(features, features, heads)
        return pre_norm_block(mixer, hidden, dropout)

    def attention() -> SequenceLayer:
        mixer = SelfAttention(heads, kv_heads=1, window=window)
        return pre_norm_block(mixer, hidden, dropout)

    return interleave((recurrence, recurrence, attention), depth)


def samba_like(
    features: int, heads: int, window: int, hidden: int, depth: int, dropout: float
) -> SequenceLayer:
    """A gated linear recurrence and windowed attention in turn, each followed by an MLP.

    The recurrence stands where Samba has Mamba: Griffin's, whose decay depends on the input too,
    but without a state for each channel.

    Args:
      features: width of x.
      heads: attention heads, and blocks of the recurrence's gates.
      window: steps that attention sees, its own included.
      hidden: width inside the MLPs.
      depth: number of blocks, each with its MLP.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, features] -> [B, T, features]` that streams.

    >>> samba_like(8, heads=2, window=16, hidden=24, depth=4, dropout=0.0).streams
    True

    Ren et al., Samba: simple hybrid state space models for efficient unlimited context language
    modeling, 2024, arXiv:2406.07522; with other proportions: Lieber et al., Jamba, 2024,
    arXiv:2403.19887.
    """

    def recurrence() -> SequenceLayer:
        mixer = gated_linear_recurrence(features, features, heads)
        return pre_norm_block(mixer, hidden, dropout)

    def attention() -> SequenceLayer:
        return pre_norm_block(SelfAttention(heads, window=window), hidden, dropout)

    return interleave((recurrence, attention), depth)


def hymba_like(
    features: int, heads: int, window: int, hidden: int, depth: int, dropout: float
) -> SequenceLayer:
    """Attention and a gated linear recurrence on the same input in every block, averaged.

    `mixer(x) = (b_1 norm(Attention(x)) + b_2 norm(Recurrence(x))) / 2`. The recurrence stands where
    Hymba has Mamba; its learned first tokens, its few layers of full attention, and keys and values
    shared between layers are left out. Each side has an output map of its own, where Hymba has one
    behind the mean.

    Args:
      features: width of x.
      heads: attention heads, and blocks of the recurrence's gates.
      window: steps that attention sees, its own included.
      hidden: width inside the MLPs.
      depth: number of blocks.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, features] -> [B, T, features]` that streams.

    >>> hymba_like(8, heads=2, window=16, hidden=24, depth=2, dropout=0.0).streams
    True

    Dong et al., Hymba: a hybrid-head architecture for small language models, 2024,
    arXiv:2411.13676.
    """
    sides = (
        SelfAttention(heads, window=window),
        gated_linear_recurrence(features, features, heads),
    )
    mixer = Parallel(sides, combine=NormalizedMean())
    return Serial((Repeat(pre_norm_block(mixer, hidden, dropout), depth), RMSNorm()))


def sha_rnn(features: int, window: int, hidden: int, depth: int, dropout: float) -> SequenceLayer:
    """A stack of LSTMs with one head of attention in all of it, in the last block but one.

    Each block is an LSTM and a `Boom`, residual behind layer norms. There are no positions: the
    LSTMs bring the order. SHA-RNN gates its queries, keys and values; here they are plain linear
    maps.

    Args:
      features: width of x, and units of each LSTM.
      window: steps that attention sees, its own included.
      hidden: width inside the feed-forward layers, a multiple of the features.
      depth: number of blocks, at least 2.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, features] -> [B, T, features]` that streams.

    Raises:
      ValueError: if the depth is less than 2.

    >>> sha_rnn(8, window=16, hidden=32, depth=4, dropout=0.1).streams
    True

    Merity, Single headed attention RNN: stop thinking with your head, 2019, arXiv:1911.11423.
    """
    if depth < 2:
        raise ValueError(f"sha_rnn: depth={depth} must be at least 2")

    def residual(layer: SequenceLayer) -> SequenceLayer:
        return Residual(Serial((LayerNorm(), layer, Dropout(dropout))))

    def block(*attention: SequenceLayer) -> SequenceLayer:
        return Serial((residual(LSTM(features)), *attention, residual(Boom(hidden))))

    lower = (Repeat(block(), depth - 2),) if depth > 2 else ()
    attention = SelfAttention(heads=1, window=window, positions=None)
    return Serial((*lower, block(residual(attention)), block()))


def r_transformer(
    features: int, heads: int, local: int, window: int, hidden: int, depth: int, dropout: float
) -> SequenceLayer:
    """In every block a GRU over each step's last few, then causal attention, then an MLP.

    The GRU starts afresh for every step, so it brings local order and no long memory, and there are
    no positions. R-Transformer's norms come after each layer, these before.

    Args:
      features: width of x, and units of the GRU.
      heads: attention heads.
      local: steps that the GRU sees.
      window: steps that attention sees, its own included.
      hidden: width inside the MLPs.
      depth: number of blocks.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, features] -> [B, T, features]` that streams.

    >>> r_transformer(8, 2, local=4, window=16, hidden=16, depth=2, dropout=0.1).streams
    True

    Wang et al., R-Transformer: recurrent neural network enhanced transformer, 2019,
    arXiv:1907.05572.
    """
    attention = SelfAttention(heads, window=window, positions=None)
    block = Serial(
        (
            pre_norm(Local(GRU(features), local), dropout),
            pre_norm_block(attention, hidden, dropout),
        )
    )
    return Serial((Repeat(block, depth), RMSNorm()))
