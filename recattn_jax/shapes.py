"""The legend of dimension letters, and the array types that are built from it.

Names of arrays inside functions end in these letters, `scores_BHTS`, and public signatures use the
types below. jaxtyping checks them in the tests only; at run time they cost nothing.

    B  batch                 H  heads, or units of a recurrent layer
    T  time (query) steps    K  size of one head
    S  source (key) steps    G  gates of a recurrent layer
    D  input width           W  window: the steps that a local layer sees
    E  output width          V  vocabulary, or size of one value
    M  memory width          N  blocks or chunks
    C  steps of a chunk
"""

from typing import Any

from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

Activations = Float[Array, "B T D"]
"""What layers take and give: features of every step."""

Tokens = Int[Array, "B T"]
"""Ids of symbols."""

Segments = Int[Array, "B T"]
"""The number of the document of every step; 0 is padding."""

Mask = Bool[Array, "B T"]
"""Something that is so, or not, of every step."""

Heads = Float[Array, "B T H K"]
"""Queries, or keys and values with as many heads."""

Logits = Float[Array, "B T V"]
"""Unnormalised log probabilities of every step."""

State = Any
"""A pytree of arrays whose leading axis is B; `()` where a layer keeps nothing."""

__all__ = [
    "Activations",
    "Array",
    "Bool",
    "DTypeLike",
    "Float",
    "Heads",
    "Int",
    "Logits",
    "Mask",
    "Segments",
    "State",
    "Tokens",
]
