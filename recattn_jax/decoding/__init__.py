"""From a trained model to new sequences: prefill, one-symbol steps, and ways to choose a symbol."""

from recattn_jax.decoding.beam import Beam, beam_search
from recattn_jax.decoding.coverage import watched_decoder_step
from recattn_jax.decoding.generation import PREFILL_BLOCK, generate, generate_batch, prefill
from recattn_jax.decoding.sampling import Sampler, greedy, keep_top_k, keep_top_p
from recattn_jax.decoding.sequence_to_sequence import Translator, best_translations, translate
from recattn_jax.decoding.stepping import (
    Step,
    Stepped,
    decoder_step,
    fresh_state,
    language_model_step,
    repeat_rows,
    sample,
)

__all__ = [
    "PREFILL_BLOCK",
    "Beam",
    "Sampler",
    "Step",
    "Stepped",
    "Translator",
    "beam_search",
    "best_translations",
    "decoder_step",
    "fresh_state",
    "generate",
    "generate_batch",
    "greedy",
    "keep_top_k",
    "keep_top_p",
    "language_model_step",
    "prefill",
    "repeat_rows",
    "sample",
    "translate",
    "watched_decoder_step",
]
