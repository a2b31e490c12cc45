"""Named hybrids: functions that return a layer expression, each with its source.

Every number is an argument: defaults live in experiments. Memory for `CrossAttention` comes with
the context, as `models.EncoderDecoder` hands it over.
"""

from recattn_jax.models.hybrids.blocks import (
    gated_linear_recurrence,
    pre_norm,
    pre_norm_block,
)
from recattn_jax.models.hybrids.decoders import (
    bahdanau_decoder,
    gnmt_decoder,
    luong_decoder,
    mapped_decoder,
    mapped_encoder,
    recurrent_encoder,
)
from recattn_jax.models.hybrids.founding import (
    attention_over_recurrence,
    chunked_attention_then_recurrence,
    input_joined_with_attention,
    recurrence_attends_to_input,
    recurrence_beside_attention,
    recurrence_plus_attention_over_it,
    recurrence_then_additive_attention,
)
from recattn_jax.models.hybrids.interleaved import (
    griffin,
    hymba_like,
    r_transformer,
    samba_like,
    sha_rnn,
)
from recattn_jax.models.hybrids.slots import (
    block_recurrent_transformer,
    temporal_latent_bottleneck,
)
from recattn_jax.models.hybrids.transformers import (
    feedback_transformer,
    rnn_stack,
    transformer,
    transformer_decoder,
    transformer_xl,
)

__all__ = [
    "attention_over_recurrence",
    "bahdanau_decoder",
    "block_recurrent_transformer",
    "chunked_attention_then_recurrence",
    "feedback_transformer",
    "gated_linear_recurrence",
    "gnmt_decoder",
    "griffin",
    "hymba_like",
    "input_joined_with_attention",
    "luong_decoder",
    "mapped_decoder",
    "mapped_encoder",
    "pre_norm",
    "pre_norm_block",
    "r_transformer",
    "recurrence_attends_to_input",
    "recurrence_beside_attention",
    "recurrence_plus_attention_over_it",
    "recurrence_then_additive_attention",
    "recurrent_encoder",
    "rnn_stack",
    "samba_like",
    "sha_rnn",
    "temporal_latent_bottleneck",
    "transformer",
    "transformer_decoder",
    "transformer_xl",
]
