"""Blocks that whole models are stacked from, and ways of stacking them."""

from collections.abc import Callable

import flax.linen as nn

from recattn_jax.layers import (
    RGLRU,
    Activation,
    CausalConvolution,
    Dense,
    Dropout,
    GatedMLP,
    Parallel,
    Repeat,
    Residual,
    RMSNorm,
    SequenceLayer,
    Serial,
    multiply,
)


def pre_norm_block(mixer: SequenceLayer, hidden: int, dropout: float) -> SequenceLayer:
    """A residual block: a mixer over time and a gated MLP, each behind a norm.

    `x = x + dropout(mixer(norm(x)))`, `x = x + dropout(mlp(norm(x)))`.

    Args:
      mixer: what mixes steps, `[B, T, D] -> [B, T, D]`.
      hidden: width inside the MLP.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, D] -> [B, T, D]`.

    >>> from recattn_jax.layers import LSTM
    >>> block = pre_norm_block(LSTM(8), hidden=16, dropout=0.1)

    Xiong et al., On layer normalization in the transformer architecture, 2020, arXiv:2002.04745.
    """
    return Serial(
        (
            pre_norm(mixer, dropout),
            pre_norm(GatedMLP(hidden), dropout),
        )
    )


def pre_norm(layer: SequenceLayer, dropout: float) -> SequenceLayer:
    """A residual layer behind a norm: `y = x + dropout(layer(norm(x)))`.

    Args:
      layer: `[B, T, D] -> [B, T, D]`.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, D] -> [B, T, D]`.

    >>> layer = pre_norm(GatedMLP(16), dropout=0.1)
    """
    return Residual(Serial((RMSNorm(), layer, Dropout(dropout))))


def gated_linear_recurrence(features: int, width: int, heads: int) -> SequenceLayer:
    """Griffin's recurrent block: a gate beside a short convolution and a linear recurrence.

    `y = (gelu(x W_1) * RG-LRU(conv(x W_2))) W_3`; the convolution sees four steps.

    Args:
      features: output width.
      width: width of the recurrence; in Griffin about 4/3 of the features.
      heads: blocks of the recurrence's gates.

    Returns:
      A layer `[B, T, D] -> [B, T, features]` that streams.

    >>> gated_linear_recurrence(8, width=8, heads=2).streams
    True

    De et al., Griffin: mixing gated linear recurrences with local attention, 2024,
    arXiv:2402.19427.
    """
    gate = Serial((Dense(width), Activation(nn.gelu)))
    recurrence = Serial((Dense(width), CausalConvolution(4), RGLRU(heads)))
    return Serial((Parallel((gate, recurrence), combine=multiply), Dense(features)))


def interleave(blocks: tuple[Callable[[], SequenceLayer], ...], depth: int) -> SequenceLayer:
    """Blocks in turn, over and over, to a depth, and a norm at the end.

    Whole turns are one `Repeat`, compiled once; what is left of the depth follows.

    Args:
      blocks: make one block `[B, T, D] -> [B, T, D]` each.
      depth: number of blocks in all, at least 1.

    Returns:
      A layer `[B, T, D] -> [B, T, D]`.

    Raises:
      ValueError: if the depth is less than 1.

    >>> from recattn_jax.layers import LSTM
    >>> layer = interleave((lambda: Residual(LSTM(8)), lambda: Residual(GatedMLP(16))), depth=5)
    """
    if depth < 1:
        raise ValueError(f"interleave: depth={depth} must be at least 1")
    turns, rest = divmod(depth, len(blocks))
    layers: list[SequenceLayer] = []
    if turns:
        layers.append(Repeat(Serial(tuple(make() for make in blocks)), turns))
    layers += [make() for make in blocks[:rest]]
    return Serial((*layers, RMSNorm()))
