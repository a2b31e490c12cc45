"""Choosing the next symbol from logits: small pure functions, and `Sampler` to order them."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from recattn_jax.errors import UserError


def greedy(logits_BV: Float[Array, "B V"]) -> Int[Array, "B"]:
    """The most likely symbol of each row; the lowest number among equals.

    Args:
      logits_BV: unnormalised log probabilities.

    Returns:
      `[B]` int32 symbols.

    >>> greedy(jnp.array([[0.0, 2.0, 1.0]])).tolist()
    [1]
    """
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)


def keep_top_k(logits_BV: Float[Array, "B V"], k: int) -> Float[Array, "B V"]:
    """Leaves the `k` largest logits of each row and makes the others impossible.

    Exactly `min(k, V)` stay, lower numbers first among equals.

    Args:
      logits_BV: unnormalised log probabilities.
      k: how many to keep, at least 1.

    Returns:
      `[B, V]` logits, `-inf` where dropped.

    >>> keep_top_k(jnp.array([[0.0, 2.0, 1.0]]), 1).tolist()
    [[-inf, 2.0, -inf]]
    """
    return jnp.where(_rank(logits_BV) < k, logits_BV, -jnp.inf)


def keep_top_p(logits_BV: Float[Array, "B V"], p: float) -> Float[Array, "B V"]:
    """Leaves the smallest set of most likely symbols whose probability reaches `p`.

    A symbol stays if the symbols before it, in falling order, have less than `p` together, so the
    most likely one always stays.

    Args:
      logits_BV: unnormalised log probabilities.
      p: the probability to reach, in (0, 1].

    Returns:
      `[B, V]` logits, `-inf` where dropped.

    >>> kept = keep_top_p(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), 0.6)
    >>> jnp.isfinite(kept).tolist()
    [[True, True, False]]

    Reference: Holtzman et al. 2020, The curious case of neural text degeneration.
    """
    rank_BV = _rank(logits_BV)
    falling_BV = -jnp.sort(-logits_BV, axis=-1)
    probability_BV = jax.nn.softmax(falling_BV, axis=-1)
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    kept = jnp.sum(before_BV < p, axis=-1, keepdims=True)
    return jnp.where(rank_BV < jnp.maximum(kept, 1), logits_BV, -jnp.inf)


def _rank(logits_BV: Float[Array, "B V"]) -> Int[Array, "B V"]:
    order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
    return jnp.argsort(order_BV, axis=-1, stable=True)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How the next symbol is chosen: temperature first, then `top_k`, then `top_p`, then a draw.

    Args:
      temperature: 0 takes the most likely symbol; 1 draws from the model as it is.
      top_k: draw among the `k` most likely only; None for all.
      top_p: draw among the most likely that reach this probability together; None for all.

    Raises:
      UserError: a setting is out of its range.

    >>> sampler = Sampler(temperature=0.8, top_k=1, top_p=0.95)
    >>> sampler(jax.random.key(0), jnp.array([[0.0, 2.0, 1.0]])).tolist()
    [1]
    """

    temperature: float
    top_k: int | None
    top_p: float | None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature must be 0 or more and finite; got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k must be at least 1; got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1; got {self.top_p}")

    def __call__(self, key: PRNGKeyArray, logits_BV: Float[Array, "B V"]) -> Int[Array, "B"]:
        """Chooses one symbol a row.

        Args:
          key: the randomness of this one draw; unused at temperature 0.
          logits_BV: unnormalised log probabilities.

        Returns:
          `[B]` int32 symbols.
        """
        logits_BV = logits_BV.astype(jnp.float32)
        if self.temperature == 0:
            return greedy(logits_BV)
        logits_BV = logits_BV / self.temperature
        if self.top_k is not None:
            logits_BV = keep_top_k(logits_BV, self.top_k)
        if self.top_p is not None:
            logits_BV = keep_top_p(logits_BV, self.top_p)
        return jax.random.categorical(key, logits_BV, axis=-1).astype(jnp.int32)
