"""Sequence to sequence: translation, summaries, commands to actions."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from recattn_jax.data import Record
from recattn_jax.layers.base import Context
from recattn_jax.shapes import Int, State, Tokens
from recattn_jax.tasks import losses
from recattn_jax.tasks.base import Apply, Batch, Metrics, encoded
from recattn_jax.tasks.losses import Loss
from recattn_jax.tasks.text_scores import TextScore

Decoder = Callable[..., Any]
"""`(model, variables, source [B, S], source_segments [B, S]) -> ids [B, L]`, such as
`functools.partial(decoding.translate, ...)`; what stands from the first stop on does not count."""


@dataclasses.dataclass(frozen=True)
class SequenceToSequence:
    """Writes a target for a source, with an `EncoderDecoder`.

    Metrics, with the right target given up to each step: `loss` and `accuracy`, means over the
    steps of the targets and their ends. Scores, of what the decoder writes: those of `scores`.

    Attributes:
      stop: the token that ends a target.
      decoder: from sources to ids.
      loss: nats from logits and labels, see `tasks.losses`.
      scores: what the texts are compared with their references by, see `tasks.text_scores`.
      headline: `loss`, `accuracy`, or the name of a score.

    A batch holds `source` and `source_segments`, int32 `[B, S]`, and `inputs`, `targets` and
    `segments`, int32 `[B, T]`: the target after its start, and before its end. A source and a
    target of one number belong together.

    >>> import functools
    >>> from recattn_jax.tasks import losses
    >>> from recattn_jax.tasks.text_scores import Bleu
    >>> loss = functools.partial(losses.cross_entropy, smoothing=0.1, weights=None)
    >>> task = SequenceToSequence(0, lambda *given: None, loss, (Bleu("13a", False),), "bleu")
    >>> task.maximise
    True
    """

    stop: int
    decoder: Decoder
    loss: Loss
    scores: tuple[TextScore, ...]
    headline: str = "loss"

    @property
    def maximise(self) -> bool:
        """All but the loss is better where it is more."""
        return self.headline != "loss"

    def __call__(self, apply: Apply, batch: Batch, state: State | None) -> tuple[Metrics, State]:
        """Sums the losses of a batch; see `Task`.

        Raises:
          ValueError: a state is given; a pair never goes on in the next batch.
        """
        if state is not None:
            raise ValueError("SequenceToSequence: a state was given; do not carry states")
        real_BT = (batch["segments"] > 0).astype(jnp.float32)
        compared, _ = apply(
            functools.partial(losses.compare, self.loss),
            losses.known(batch["targets"], real_BT),
            batch["source"],
            batch["inputs"],
            Context(segments=batch["source_segments"]),
            Context(segments=batch["segments"]),
            method="compare",
        )
        loss, accuracy = losses.means(compared, real_BT)
        return {"loss": loss, "accuracy": accuracy}, ()

    def predict(self, model: nn.Module, variables: Any, batch: Batch) -> Tokens:
        """The ids that the decoder writes, `[B, L]`; see `Scored`."""
        ids_BL = self.decoder(model, variables, batch["source"], batch["source_segments"])
        return jnp.asarray(ids_BL, jnp.int32)

    def score(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> dict[str, float]:
        """What `scores` make of the texts and all references of each; see `Scored`."""
        texts = [self._text(prediction, vocabularies) for prediction in predictions]
        references = [record["targets"] for record in records]
        values: dict[str, float] = {}
        for score in self.scores:
            values |= score(texts, references)
        return values

    def explain(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> str:
        """The signature of each score; see `Scored`."""
        del predictions, vocabularies
        references = [record["targets"] for record in records]
        return "\n".join(score.signature(references) for score in self.scores)

    def read(self, line: str, vocabularies: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The ids of a source; see `Scored`."""
        ids_S = encoded(vocabularies["source"], line)
        return {"source": ids_S, "source_segments": np.ones_like(ids_S)}

    def write(self, prediction: Any, line: str, vocabularies: Mapping[str, Any]) -> str:
        """The text of the target, on one line; see `Scored`."""
        del line
        return " ".join(self._text(prediction, vocabularies).splitlines())

    def _text(self, prediction: Any, vocabularies: Mapping[str, Any]) -> str:
        ids_L: Int[np.ndarray, " L"] = np.asarray(prediction)
        ends = np.flatnonzero(ids_L == self.stop)
        return str(vocabularies["target"].decode(ids_L[: ends[0]] if len(ends) else ids_L))
