"""Effective context: how much a language model gains from what stands further back."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from recattn_jax.errors import NonFiniteError, UserError
from recattn_jax.layers import Context
from recattn_jax.models import SequenceModel
from recattn_jax.shapes import Array, Float, Int

CLOSE = 0.01
"""A context is long enough where its loss is within this share of the best."""
MOST_TARGETS = 512
LEAST_TARGETS = 256
"""A context length that fewer targets have in their document is not measured."""
_TOKENS = 1 << 14  # of a batch
_LOGITS = 1 << 25  # of a batch

Rows = tuple[Int[np.ndarray, "N C"], Int[np.ndarray, " N"]]


@dataclasses.dataclass(frozen=True, eq=False)
class ContextCurve:
    """The loss of the same targets from more and more context.

    Attributes:
      lengths: `[C]`, tokens that the model was given before the target, powers of two.
      nats: `[C, N]`, of each length and each target, of which there are more than one.

    >>> curve = ContextCurve(np.array([1, 2, 4]), np.array([[3.0, 4.0], [2.0, 3.02], [2.0, 3.0]]))
    >>> curve.losses.tolist(), curve.best, curve.effective
    ([3.5, 2.51, 2.5], 2, 2)
    """

    lengths: Int[np.ndarray, " C"]
    nats: Float[np.ndarray, "C N"]

    @property
    def targets(self) -> int:
        """How many targets were scored."""
        return self.nats.shape[1]

    @property
    def losses(self) -> Float[np.ndarray, " C"]:
        """Mean nats of a target, for each length."""
        return self.nats.mean(1)

    @property
    def errors(self) -> Float[np.ndarray, " C"]:
        """Standard errors of the losses, as of other targets of the same kind."""
        return _standard_errors(self.nats)

    @property
    def paired_errors(self) -> Float[np.ndarray, " C"]:
        """Standard errors of how far the losses are above the best, target by target; 0 there."""
        return _standard_errors(self.nats - self.nats[self.best])

    @property
    def best(self) -> int:
        """Which length has the least loss."""
        return int(np.argmin(self.losses))

    @property
    def effective(self) -> int:
        """The shortest context whose loss is within `CLOSE` of the best."""
        return int(self.lengths[self.losses <= (1 + CLOSE) * self.losses.min()][0])


def _standard_errors(values_CN: Float[np.ndarray, "C N"]) -> Float[np.ndarray, " C"]:
    return np.asarray(values_CN.std(1, ddof=1) / values_CN.shape[1] ** 0.5)


def context_curve(
    model: nn.Module,
    variables: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    say: Callable[[int, int], None] | None = None,
) -> ContextCurve:
    """Scores targets of a language model from contexts of 1, 2, 4, ... tokens.

    A target is given the tokens just before it, of its own document, as a row of their own, and a
    fresh state: what is further back does not exist. Targets are spread evenly over those that have
    the longest context; it is the longest that `LEAST_TARGETS` have in the rows.

    Args:
      model: an unbound language model, `[B, T] -> [B, T, V]`.
      variables: its variables.
      batches: `inputs`, `targets` and `segments`, `[B, T]`, such as an epoch of a pipeline.
      say: is told how many lengths of how many are done.

    Returns:
      The curve.

    Raises:
      UserError: there are not enough targets.
      NonFiniteError: a loss is not finite.

    >>> from recattn_jax.layers import Embed, Identity
    >>> from recattn_jax.models import PerStep
    >>> model = SequenceModel(Embed(5, 4), Identity(), PerStep(5))
    >>> row = np.resize(np.arange(5), (32, 16))
    >>> batch = {"inputs": row, "targets": row, "segments": np.ones_like(row)}
    >>> curve = context_curve(model, model.init(jax.random.key(0), jnp.asarray(row)), [batch])
    >>> curve.lengths.tolist(), curve.effective
    ([1, 2, 4, 8], 1)

    Khandelwal et al., Sharp nearby, fuzzy far away: how neural language models use context, 2018,
    arXiv:1805.04623.
    """
    contexts_NC, targets_N = _chosen(batches)
    lengths = 2 ** np.arange(contexts_NC.shape[1].bit_length())

    @jax.jit
    def nats(
        variables: Any, inputs_BT: Array, segments_BT: Array, targets_B: Array
    ) -> Float[Array, " B"]:
        logits_BV = model.apply(variables, inputs_BT, segments_BT, method=_predict_last)
        return optax.softmax_cross_entropy_with_integer_labels(logits_BV, targets_B)

    whole = not isinstance(model, SequenceModel)
    nats_CN = []
    for done, length in enumerate(lengths):
        inputs_NT = contexts_NC[:, -length:]
        shape = jax.eval_shape(lambda v, x: model.apply(v, x)[0], variables, inputs_NT[:1])
        logits = shape.size if whole else shape.shape[-1]
        block = max(1, min(_TOKENS // length, _LOGITS // logits, len(targets_N)))
        parts = []
        for start in range(0, len(targets_N), block):
            some = np.resize(np.arange(start, min(start + block, len(targets_N))), block)
            # Segments are given: the compiler would fold, at length, what their lack stands for.
            row = np.ones((block, length), np.int32)
            parts.append(jax.device_get(nats(variables, inputs_NT[some], row, targets_N[some])))
        found = np.concatenate(parts)[: len(targets_N)].astype(np.float64)
        if not np.all(np.isfinite(found)):
            raise NonFiniteError(
                f"the loss of a token from {length} tokens of context is no number"
            )
        nats_CN.append(found)
        if say is not None:
            say(done + 1, len(lengths))
    return ContextCurve(lengths, np.stack(nats_CN))


def _predict_last(model: nn.Module, inputs: Array, segments: Array) -> Float[Array, "B V"]:
    """The logits of the last step; those of the others are not made where that can be helped."""
    context = Context(segments=segments)
    if not isinstance(model, SequenceModel):
        return model(inputs, None, context)[0][:, -1]
    x, _ = model.frontend(inputs, None, context)
    x, _ = model.body(x, None, context)
    return jnp.asarray(model.readout(x[:, -1:], Context()))[:, 0]


def _chosen(batches: Iterable[Mapping[str, np.ndarray]]) -> Rows:
    """Targets, and the tokens before each, the longest power of two that enough of them have."""
    rows = [
        row
        for batch in batches
        for row in zip(
            *(np.asarray(batch[n]) for n in ("inputs", "targets", "segments")), strict=True
        )
    ]
    # How many tokens of its document stand before each target, in its row.
    seen = [_ages(segments) for _, _, segments in rows]
    every = np.sort(np.concatenate(seen))[::-1] if seen else np.zeros(0, int)
    if len(every) < LEAST_TARGETS or every[LEAST_TARGETS - 1] < 1:
        raise UserError(
            f"effective context is measured on {LEAST_TARGETS} targets at least, and the rows have"
            f" {np.sum(every > 0)}; give more text to evaluate on"
        )
    longest = 1 << (int(every[LEAST_TARGETS - 1]).bit_length() - 1)
    places = [(n, t) for n, ages in enumerate(seen) for t in np.flatnonzero(ages >= longest)]
    spread = np.linspace(0, len(places) - 1, min(len(places), MOST_TARGETS)).round().astype(int)
    chosen = [places[index] for index in spread]
    contexts = [rows[n][0][t + 1 - longest : t + 1] for n, t in chosen]
    return np.stack(contexts), np.array([rows[n][1][t] for n, t in chosen])


def _ages(segments_T: Int[np.ndarray, " T"]) -> Int[np.ndarray, " T"]:
    """1 at the first step of a document, then 2, ...; 0 at padding."""
    steps = np.arange(len(segments_T))
    begins = np.diff(segments_T, prepend=-1) != 0
    first = np.maximum.accumulate(np.where(begins, steps, 0))
    return np.where(segments_T > 0, steps - first + 1, 0)
