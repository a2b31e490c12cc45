"""Tagging: a label for every word, and where wanted one for the whole text as well."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from recattn_jax.data import Record, spell
from recattn_jax.layers.base import Context
from recattn_jax.shapes import Array, Int, State
from recattn_jax.tasks import scores
from recattn_jax.tasks.base import Apply, Batch, Mean, Metrics
from recattn_jax.tasks.losses import Loss, label_means


@dataclasses.dataclass(frozen=True)
class Tagging:
    """A tag a word, from a model that predicts at every step; joint with an intent from `Joint`.

    Metrics: `loss`, the mean over all decisions, tags and intents alike, so that it is
    `-log p(tags, intent | text)` up to its scale; `accuracy` of the tags that fit into their rows;
    `intent_accuracy`. Scores, in which words that did not fit count as tagged `O`: strict entity
    `f1`, `precision`, `recall`; `token_accuracy`; with intents `intent_accuracy` and
    `sentence_accuracy`, the share of texts with every tag and the intent right.

    Attributes:
      tags: K, how many tags there are; their names are IOB2.
      loss: nats from logits and labels, see `tasks.losses`.
      intents: how many intents there are; 0 for tags alone.
      headline: `loss`, `accuracy`, or a score.

    A batch holds `inputs`, `segments` and `tags`, int32 `[B, T]`, -1 where no tag is asked for;
    with intents also `label`, int32 `[B]`, and `weight`, float32 `[B]`. The model gives logits
    `[B, T, K]`, with intents the pair of `[B, T, K]` and `[B, intents]`.

    >>> import functools
    >>> from recattn_jax.tasks import losses
    >>> loss = functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)
    >>> Tagging(tags=13, loss=loss).headline
    'f1'
    """

    tags: int
    loss: Loss
    intents: int = 0
    headline: str = "f1"

    @property
    def maximise(self) -> bool:
        """All but the loss is better where it is more."""
        return self.headline != "loss"

    def __call__(self, apply: Apply, batch: Batch, state: State | None) -> tuple[Metrics, State]:
        """Sums the losses of a batch; see `Task`."""
        context = Context(segments=batch["segments"])
        predictions, state = apply(batch["inputs"], state, context)
        logits_BTK, logits_BI = self._pair(predictions)
        asked_BT = (batch["tags"] >= 0).astype(jnp.float32)
        loss, accuracy = label_means(self.loss, logits_BTK, batch["tags"], asked_BT)
        metrics: Metrics = {"loss": loss, "accuracy": accuracy}
        if logits_BI is not None:
            intent_loss, intent_accuracy = label_means(
                self.loss, logits_BI, batch["label"], batch["weight"]
            )
            metrics["loss"] = Mean(loss.total + intent_loss.total, loss.weight + intent_loss.weight)
            metrics["intent_accuracy"] = intent_accuracy
        return metrics, state

    def predict(self, model: nn.Module, variables: Any, batch: Batch) -> Any:
        """The tags `[B, T]`, -1 where none is asked for; with intents the pair with those `[B]`."""
        context = Context(segments=batch["segments"])
        predictions, _ = model.apply(variables, batch["inputs"], None, context)
        logits_BTK, logits_BI = self._pair(predictions)
        tags_BT = jnp.where(batch["tags"] >= 0, jnp.argmax(logits_BTK, axis=-1), -1)
        tags_BT = tags_BT.astype(jnp.int32)
        if logits_BI is None:
            return tags_BT
        return tags_BT, jnp.argmax(logits_BI, axis=-1).astype(jnp.int32)

    def score(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> dict[str, float]:
        """Entities, tags and intents; see `Scored`."""
        found = self._tags(predictions, records, vocabularies)
        wanted = [list(record["tags"]) for record in records]
        entities = scores.span_scores(found, wanted)[""]
        right = [
            [a == b for a, b in zip(*pair, strict=True)] for pair in zip(found, wanted, strict=True)
        ]
        values = {
            "f1": entities.f1,
            "precision": entities.precision,
            "recall": entities.recall,
            "token_accuracy": _share([hit for hits in right for hit in hits]),
        }
        if self.intents:
            names = vocabularies["label"].names
            intents = [
                names[int(intent)] == record["label"]
                for (_, intent), record in zip(predictions, records, strict=True)
            ]
            values["intent_accuracy"] = _share(intents)
            values["sentence_accuracy"] = _share(
                [intent and all(hits) for intent, hits in zip(intents, right, strict=True)]
            )
        return values

    def explain(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> str:
        """Precision, recall and F1 of each kind of entity; see `Scored`."""
        found = self._tags(predictions, records, vocabularies)
        kinds = scores.span_scores(found, [record["tags"] for record in records])
        width = max(len(kind) for kind in (*kinds, "all kinds"))
        return "\n".join(
            f"{kind or 'all kinds':<{width}}  precision {p:.3f}  recall {r:.3f}  f1 {f1:.3f}"
            for kind, (p, r, f1) in kinds.items()
        )

    def read(self, line: str, vocabularies: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The pieces of the words of a line, which stand between spaces; see `Scored`."""
        words = line.split()
        ids, last = spell(words or [""], vocabularies["text"])
        tags_T = np.full(len(ids), -1, np.int32)
        tags_T[last[: len(words)]] = 0  # a tag is asked for here
        return {"inputs": ids, "segments": np.ones(len(ids), np.int32), "tags": tags_T}

    def write(self, prediction: Any, line: str, vocabularies: Mapping[str, Any]) -> str:
        """`word/tag` for every word; with intents the intent and a tab before; see `Scored`."""
        words = line.split()
        (tags,) = self._tags([prediction], [{"tags": words}], vocabularies)
        text = " ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True))
        if not self.intents:
            return text
        return f"{vocabularies['label'].names[int(prediction[1])]}\t{text}"

    def _pair(self, predictions: Any) -> tuple[Array, Array | None]:
        shapes = [
            list(logits.shape)
            for logits in (predictions if isinstance(predictions, tuple) else (predictions,))
        ]
        wanted = [("B", "T", self.tags), ("B", self.intents)][: 2 if self.intents else 1]
        fits = len(shapes) == len(wanted) and all(
            len(shape) == len(want) and shape[-1] == want[-1]
            for shape, want in zip(shapes, wanted, strict=True)
        )
        if not fits:
            raise ValueError(
                f"Tagging: the model predicts {shapes}, expected [B, T, {self.tags}]"
                + (f" and [B, {self.intents}] from a Joint readout" if self.intents else "")
            )
        return predictions if self.intents else (predictions, None)

    def _tags(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> list[list[str]]:
        """The predicted names, one a word of each record; `O` for words that did not fit."""
        names = vocabularies["tag"].names
        found = []
        for prediction, record in zip(predictions, records, strict=True):
            ids_T: Int[np.ndarray, " T"] = np.asarray(prediction[0] if self.intents else prediction)
            tags = [names[i] for i in ids_T if i >= 0]
            missing = len(record["tags"]) - len(tags)
            if missing < 0:
                raise ValueError(f"{len(tags)} predicted tags for {len(record['tags'])} words")
            found.append(tags + ["O"] * missing)
        return found


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else float("nan")
