"""From a trained model to new sequences: prefill, one-symbol steps, and ways to choose a symbol."""

from recattn_jax.decoding.generation import PREFILL_BLOCK, generate, prefill
from recattn_jax.decoding.sampling import Sampler, greedy, keep_top_k, keep_top_p

__all__ = [
    "PREFILL_BLOCK",
    "Sampler",
    "generate",
    "greedy",
    "keep_top_k",
    "keep_top_p",
    "prefill",
]
