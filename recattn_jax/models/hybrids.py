"""Named hybrids: functions that return a layer expression, each with its source."""

from recattn_jax.layers import (
    LSTM,
    Dropout,
    GatedMLP,
    Parallel,
    Residual,
    RMSNorm,
    SelfAttention,
    SequenceLayer,
    Serial,
    add,
)


def recurrence_beside_attention(features: int, heads: int, window: int) -> SequenceLayer:
    """An LSTM and causal self-attention on the same input, added: `y = LSTM(x) + Attention(x)`.

    Args:
      features: width of x, and units of the LSTM.
      heads: attention heads.
      window: steps that attention looks back.

    Returns:
      A layer `[B, T, features] -> [B, T, features]` that streams.

    >>> layer = recurrence_beside_attention(8, heads=2, window=16)
    >>> layer.streams
    True
    """
    return Parallel((LSTM(features), SelfAttention(heads, window=window)), combine=add)


def pre_norm_block(mixer: SequenceLayer, hidden: int, dropout: float) -> SequenceLayer:
    """A residual block: a mixer over time and a gated MLP, each behind a norm.

    `x = x + dropout(mixer(norm(x)))`, `x = x + dropout(mlp(norm(x)))`.

    Args:
      mixer: what mixes steps, `[B, T, D] -> [B, T, D]`.
      hidden: width inside the MLP.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, D] -> [B, T, D]`.

    >>> block = pre_norm_block(recurrence_beside_attention(8, 2, 16), hidden=16, dropout=0.1)

    Xiong et al., On layer normalization in the transformer architecture, 2020, arXiv:2002.04745.
    """
    return Serial(
        (
            Residual(Serial((RMSNorm(), mixer, Dropout(dropout)))),
            Residual(Serial((RMSNorm(), GatedMLP(hidden), Dropout(dropout)))),
        )
    )
