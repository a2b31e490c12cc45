"""Transcription: symbols that follow from many more steps in their order, by way of CTC."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from recattn_jax.data import Record
from recattn_jax.layers.base import Context
from recattn_jax.shapes import Array, Int, State
from recattn_jax.tasks.base import Apply, Batch, Mean, Metrics, read_inputs
from recattn_jax.tasks.text_scores import distance

_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Transcription:
    """Symbols in the order of the steps, from logits at every step (CTC).

    `p(y | x) = sum over paths that say y of prod_t softmax(logits_t)[path_t]`, where a path has a
    symbol or a blank at every step, and says what is left when repetitions are merged and then
    blanks removed.

    Metrics: `loss`, nats a symbol. Scores of the path that is best at every step:
    `symbol_error_rate` and `word_error_rate`, edits over the length of what was said; `exact`, the
    share of texts without any.

    Attributes:
      symbols: K, how many there are; the last one is the blank.
      headline: `loss`, or a score.

    A batch holds `inputs`, float32 `[B, T, D]`, `segments`, int32 `[B, T]`, and `symbols`, int32
    `[B, U]`, -1 on padding; one series and its text a row. The model gives logits `[B, T, K]`.

    >>> Transcription(symbols=27).headline
    'loss'

    Graves et al., Connectionist temporal classification: labelling unsegmented sequence data with
    recurrent neural networks, 2006.
    """

    symbols: int
    headline: str = "loss"

    @property
    def maximise(self) -> bool:
        """Only `exact` is better where it is more."""
        return self.headline == "exact"

    def __call__(self, apply: Apply, batch: Batch, state: State | None) -> tuple[Metrics, State]:
        """Sums the losses of a batch; see `Task`."""
        context = Context(segments=batch["segments"])
        logits_BTK, state = apply(batch["inputs"], state, context)
        if logits_BTK.shape != (*batch["segments"].shape, self.symbols):
            raise ValueError(
                f"Transcription: the model predicts {list(logits_BTK.shape)}, expected"
                f" {[*batch['segments'].shape, self.symbols]}"
            )
        said_BU = batch["symbols"] >= 0
        # It picks log-probabilities by products with ones and zeros, which must not round them.
        with jax.default_matmul_precision("highest"):
            loss_B = optax.ctc_loss(
                logits_BTK.astype(jnp.float32),
                (batch["segments"] == 0).astype(jnp.float32),
                jnp.maximum(batch["symbols"], 0),
                1.0 - said_BU,
                blank_id=self.symbols - 1,
            )
        real_B = jnp.any(said_BU, axis=1)
        total = jnp.sum(jnp.where(real_B, loss_B, 0.0))
        return {"loss": Mean(total, jnp.sum(said_BU).astype(jnp.float32))}, state

    def predict(self, model: nn.Module, variables: Any, batch: Batch) -> Int[Array, "B T"]:
        """The best symbol of each step, -1 on padding; see `Scored`."""
        context = Context(segments=batch["segments"])
        logits_BTK, _ = model.apply(variables, batch["inputs"], None, context)
        best_BT = jnp.argmax(logits_BTK, axis=-1)
        return jnp.where(batch["segments"] > 0, best_BT, -1).astype(jnp.int32)

    def score(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> dict[str, float]:
        """Edits of symbols and of words; see `Scored`."""
        tokenizer = vocabularies["text"]
        symbols, words, exact = np.zeros(2), np.zeros(2), []
        for prediction, record in zip(predictions, records, strict=True):
            wanted = tokenizer.encode(record["text"]).tolist()
            found = self._said(prediction, tokenizer)
            symbols += distance(found, wanted), len(wanted)
            pair = tokenizer.decode(found).split(), tokenizer.decode(wanted).split()
            words += distance(*pair), len(pair[1])
            exact.append(found == wanted)
        rates = {"symbol_error_rate": symbols, "word_error_rate": words}
        values = {name: float(edits / of) for name, (edits, of) in rates.items() if of}
        return values | ({"exact": float(np.mean(exact))} if exact else {})

    def explain(
        self,
        predictions: Sequence[Any],
        records: Sequence[Record],
        vocabularies: Mapping[str, Any],
    ) -> str:
        """The first few texts that are not as they should be; see `Scored`."""
        lines: list[str] = []
        for prediction, record in zip(predictions, records, strict=True):
            found = self.write(prediction, "", vocabularies)
            if found != record["text"] and len(lines) < _SHOWN:
                lines.append(f"{record['text']!r} was read as {found!r}")
        return "\n".join(lines)

    def read(self, line: str, vocabularies: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The series of a line, such as the path of a wav file; see `Scored`."""
        return read_inputs(line, vocabularies)

    def write(self, prediction: Any, line: str, vocabularies: Mapping[str, Any]) -> str:
        """The text; see `Scored`."""
        del line
        tokenizer = vocabularies["text"]
        return str(tokenizer.decode(self._said(prediction, tokenizer)))

    def _said(self, path: Int[np.ndarray, "T"], tokenizer: Any) -> list[int]:
        """What a path says: repetitions merged, then all removed that is no symbol of a text."""
        steps = np.asarray(path)
        first = np.concatenate([[True], steps[1:] != steps[:-1]])
        said = range(min(self.symbols - 1, tokenizer.vocabulary_size))
        return [int(s) for s in steps[first] if s in said and s != tokenizer.separator]
