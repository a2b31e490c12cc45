"""Classification: one label for a whole text, or a whole series."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from recattn_jax.data import Record
from recattn_jax.layers.base import Context
from recattn_jax.shapes import Array, Int, State
from recattn_jax.tasks import scores
from recattn_jax.tasks.base import Apply, Batch, Metrics, read_inputs
from recattn_jax.tasks.losses import Loss, label_means


@dataclasses.dataclass(frozen=True)
class Classification:
    """One label a row, from a model whose readout pools the steps.

    Metrics: `loss` and `accuracy`, means over rows. Scores: `accuracy`, `macro_f1` and
    `f1/<label>`; `macro_f1` is the mean over the labels that stand in the records or among the
    predictions, the others have no F1.

    Attributes:
      classes: C, how many labels there are.
      loss: nats from logits and labels, see `tasks.losses`.
      headline: `loss`, `accuracy`, or a score.

    A batch holds `inputs`, int32 `[B, T]` or float32 `[B, T, D]`, `segments`, int32 `[B, T]`,
    `label`, int32 `[B]`, and `weight`, float32 `[B]`: how much a row counts, 0 for a row that only
    fills the batch.

    >>> import functools
    >>> from recattn_jax.tasks import losses
    >>> loss = functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)
    >>> Classification(classes=6, loss=loss).headline
    'accuracy'
    """

    classes: int
    loss: Loss
    headline: str = "accuracy"

    @property
    def maximise(self) -> bool:
        """All but the loss is better where it is more."""
        return self.headline != "loss"

    def __call__(self, apply: Apply, batch: Batch, state: State | None) -> tuple[Metrics, State]:
        """Sums the losses of a batch; see `Task`."""
        logits_BC, state = apply(batch["inputs"], state, Context(segments=batch["segments"]))
        _check(logits_BC, self.classes)
        loss, accuracy = label_means(self.loss, logits_BC, batch["label"], batch["weight"])
        return {"loss": loss, "accuracy": accuracy}, state

    def predict(self, model: nn.Module, variables: Any, batch: Batch) -> Int[Array, " B"]:
        """The most likely label of each row; see `Scored`."""
        context = Context(segments=batch["segments"])
        logits_BC, _ = model.apply(variables, batch["inputs"], None, context)
        return jnp.argmax(logits_BC, axis=-1).astype(jnp.int32)

    def score(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> dict[str, float]:
        """Accuracy and F1; see `Scored`."""
        counts_CC, names = self.confusion(predictions, records, vocabularies)
        f1_C = scores.class_f1(counts_CC)
        values = {"accuracy": scores.accuracy(counts_CC), "macro_f1": scores.macro_f1(counts_CC)}
        for name, f1 in zip(names, f1_C, strict=True):
            if not np.isnan(f1):
                values[f"f1/{name}"] = float(f1)
        return values

    def explain(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> str:
        """The confusion matrix, and the labels that no record has; see `Scored`."""
        return scores.confusion_text(*self.confusion(predictions, records, vocabularies))

    def confusion(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> tuple[Int[np.ndarray, "C C"], Sequence[str]]:
        """Right and predicted labels, counted; see `Labelled`."""
        labels = vocabularies["label"]
        wanted = [labels.index(record["label"]) for record in records]
        predicted = [int(prediction) for prediction in predictions]
        return scores.confusion_matrix(predicted, wanted, len(labels.names)), labels.names

    def read(self, line: str, vocabularies: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """A text or a series; see `Scored`."""
        return read_inputs(line, vocabularies)

    def write(self, prediction: Any, line: str, vocabularies: Mapping[str, Any]) -> str:
        """The name of the label; see `Scored`."""
        del line
        return str(vocabularies["label"].names[int(prediction)])


def _check(logits: Array, classes: int) -> None:
    if logits.ndim != 2 or logits.shape[-1] != classes:
        raise ValueError(
            f"Classification: the model predicts {list(logits.shape)}, expected [B, {classes}]; "
            "give it a readout that pools the steps"
        )
