"""Hybrids that carry a few vectors from block to block of time, and attend inside the blocks."""

from collections.abc import Sequence

from recattn_jax.layers import (
    BlockRecurrent,
    Chunked,
    CrossAttention,
    GatedMLP,
    Parallel,
    Repeat,
    RMSNorm,
    SelfAttention,
    SequenceLayer,
    Serial,
    add,
)
from recattn_jax.layers.combine import Combine
from recattn_jax.models.hybrids.blocks import pre_norm, pre_norm_block
from recattn_jax.shapes import Array


def block_recurrent_transformer(
    heads: int, hidden: int, block: int, slots: int, gate: Combine, skip: bool, dropout: float
) -> SequenceLayer:
    """A transformer block over time, and one over slots carried on; each looks at the other.

    Steps look back `block` steps and at the slots that the block before left; after each block the
    slots look at each other and at its steps, and a gate says how far they move. One such layer
    among the upper blocks of a transformer with a window is the model of the
    paper. Outputs are normed.

    Args:
      heads: attention heads, in both directions.
      hidden: width inside the MLPs.
      block: steps of a block, and steps that attention looks back.
      slots: vectors of the state.
      gate: `FixedGate()`, a learned moving average, or `LSTMGate()`.
      skip: whether the slots have no MLP, which the paper found best.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, D] -> [B, T, D]` that streams.

    >>> from recattn_jax.layers import FixedGate
    >>> layer = block_recurrent_transformer(2, 16, 16, 4, FixedGate(), skip=True, dropout=0.0)
    >>> layer.streams
    True

    Hutchins et al., Block-recurrent transformers, 2022, arXiv:2203.07852.
    """
    looks = Parallel((SelfAttention(heads, window=block), CrossAttention(heads)), combine=add)
    among_slots = SelfAttention(heads, causal=False, positions=None)
    writes = Serial((RMSNorm(), Parallel((among_slots, CrossAttention(heads)), combine=add)))
    return BlockRecurrent(
        # The norm keeps what goes round from steps to slots and back from growing.
        reader=Serial((pre_norm_block(looks, hidden, dropout), RMSNorm())),
        writer=writes if skip else Serial((writes, pre_norm(GatedMLP(hidden), dropout))),
        gate=gate,
        slots=slots,
        block=block,
    )


def temporal_latent_bottleneck(
    heads: int, hidden: int, block: int, slots: int, depth: int, dropout: float
) -> SequenceLayer:
    """A fast transformer inside each block, and a slow recurrent state that alone connects them.

    Steps attend to those before them in their block and to the slots, of which there are few; after
    each block the slots attend to its steps. Slots and outputs are normed. In the paper steps also
    see later ones of their block.

    Args:
      heads: attention heads.
      hidden: width inside the MLPs.
      block: steps of a block.
      slots: vectors of the slow state.
      depth: blocks of self-attention in the fast transformer; attention to the slots follows them.
      dropout: rate, where the rng stream `dropout` is given.

    Returns:
      A layer `[B, T, D] -> [B, T, D]` that streams.

    >>> temporal_latent_bottleneck(2, 16, block=8, slots=4, depth=2, dropout=0.0).streams
    True

    Didolkar et al., Temporal latent bottleneck: synthesis of fast and slow processing mechanisms in
    sequence learning, 2022, arXiv:2205.14794.
    """
    within = pre_norm_block(SelfAttention(heads, window=block), hidden, dropout)
    asks = pre_norm_block(CrossAttention(heads), hidden, dropout)
    return BlockRecurrent(
        reader=Chunked(Serial((Repeat(within, depth), asks, RMSNorm())), block),
        writer=Serial((pre_norm_block(CrossAttention(heads), hidden, dropout), RMSNorm())),
        gate=_written,
        slots=slots,
        block=block,
    )


def _written(outputs: Sequence[Array]) -> Array:
    """What was written takes the place of the state; the writer is residual."""
    return outputs[1]
