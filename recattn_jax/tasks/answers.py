"""Answers at some steps of a row: problems that tell architectures apart."""

import dataclasses

import jax.numpy as jnp

from recattn_jax.layers.base import Context
from recattn_jax.shapes import State
from recattn_jax.tasks.base import Apply, Batch, Mean, Metrics
from recattn_jax.tasks.losses import Loss, label_means


@dataclasses.dataclass(frozen=True)
class Answers:
    """What stands at the steps that are asked for, from a model that ends in `Asked`.

    Metrics: `loss`, a mean over answers; `accuracy`, the share of right answers of a question, mean
    over questions, so that long ones count no more than short ones; `exact`, the share of questions
    with every answer right.

    Attributes:
      loss: nats from logits and answers, see `tasks.losses`.
      headline: `loss`, `accuracy` or `exact`.

    A batch holds `inputs` and `segments`, int32 `[B, T]`, `asked` and `answers`, int32 `[B, Q]`, -1
    where there is no answer. The model gives logits `[B, Q, V]`.

    >>> import functools
    >>> from recattn_jax.tasks import losses
    >>> Answers(functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)).headline
    'accuracy'
    """

    loss: Loss
    headline: str = "accuracy"

    @property
    def maximise(self) -> bool:
        """All but the loss is better where it is more."""
        return self.headline != "loss"

    def __call__(self, apply: Apply, batch: Batch, state: State | None) -> tuple[Metrics, State]:
        """Sums the losses of a batch; see `Task`."""
        context = Context(segments=batch["segments"], asked=batch["asked"])
        logits_BQV, state = apply(batch["inputs"], state, context)
        answers_BQ = batch["answers"]
        there_BQ = (answers_BQ >= 0).astype(jnp.float32)
        loss, _ = label_means(self.loss, logits_BQV, answers_BQ, there_BQ)
        right_BQ = (jnp.argmax(logits_BQV, axis=-1) == answers_BQ) * there_BQ
        count_B = jnp.sum(there_BQ, axis=1)
        share_B = jnp.sum(right_BQ, axis=1) / jnp.maximum(count_B, 1.0)
        real_B = (count_B > 0).astype(jnp.float32)
        questions = jnp.sum(real_B)
        return {
            "loss": loss,
            "accuracy": Mean(jnp.sum(share_B * real_B), questions),
            "exact": Mean(jnp.sum((share_B == 1.0) * real_B), questions),
        }, state
