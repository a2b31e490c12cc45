"""Language modelling: predict the next token."""

import dataclasses
import functools
import math

import jax.numpy as jnp

from recattn_jax.layers.base import Context
from recattn_jax.shapes import State
from recattn_jax.tasks import losses
from recattn_jax.tasks.base import Apply, Batch, Mean, Metrics, Perplexity


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """Next-token prediction, `loss = -mean_t log p(target_t | inputs_1..t)`.

    Metrics: `loss` in nats a target, `accuracy`, and for bytes and characters `bits_per_<symbol>`:
    all nats, those of the separators between documents included, over the number of symbols, in
    bits. For words `perplexity`, `exp(loss)` of the whole pass; a separator is a target like any
    other there, as ends of sentences are wherever perplexities of words are compared.

    Attributes:
      separator: the token that stands between documents and is no symbol.
      symbol: what a token stands for, `byte`, `char` or `word`.

    A batch holds `inputs`, `targets` and `segments`, each int32 `[B, T]`; segment 0 is padding. A
    model that has `compare`, as `SequenceModel` has, and a `chunk` in its readout, never holds the
    logits of a large vocabulary all together.

    >>> LanguageModel(separator=256, symbol="byte").headline
    'bits_per_byte'
    """

    separator: int
    symbol: str

    @property
    def headline(self) -> str:
        """Bits a symbol, or the perplexity of words."""
        return "perplexity" if self.symbol == "word" else f"bits_per_{self.symbol}"

    @property
    def maximise(self) -> bool:
        """Less is better."""
        return False

    def __call__(self, apply: Apply, batch: Batch, state: State | None) -> tuple[Metrics, State]:
        """Sums the losses of a batch; see `Task`."""
        segments_BT, targets_BT = batch["segments"], batch["targets"]
        (nats_BT, right_BT), state = apply(
            functools.partial(losses.compare, losses.NATS),
            targets_BT,
            batch["inputs"],
            state,
            Context(segments=segments_BT),
            method="compare",
        )
        real_BT = (segments_BT > 0).astype(jnp.float32)
        nats = jnp.sum(nats_BT * real_BT)
        targets = jnp.sum(real_BT)
        metrics: Metrics = {
            "loss": Mean(nats, targets),
            "accuracy": Mean(jnp.sum(right_BT * real_BT), targets),
        }
        if self.symbol == "word":
            metrics[self.headline] = Perplexity(nats, targets)
        else:
            symbols = jnp.sum(real_BT * (targets_BT != self.separator))
            metrics[self.headline] = Mean(nats / math.log(2.0), symbols)
        return metrics, state
