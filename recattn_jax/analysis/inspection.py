"""Inspection of a trained run: what was seen inside of it on a text, with names for all axes."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recattn_jax.analysis.inside import AttentionMap, RecurrenceTrace, look_inside
from recattn_jax.data import (
    ByteTokenizer,
    CharTokenizer,
    SubwordTokenizer,
    Tokenizer,
    WordTokenizer,
)
from recattn_jax.errors import UserError
from recattn_jax.shapes import Float, Int
from recattn_jax.tasks import Classification, LanguageModel, SequenceToSequence, Task
from recattn_jax.tasks.base import encoded
from recattn_jax.training.loading import Run

MOST_TOKENS = 512
"""Of a text: maps grow with the square of their number."""
_TOLERANCE = {4: 1e-5, 2: 3e-2}
"""By bytes of a number of the activations: rounding, of logits of size 1."""
_TOKENIZERS = (ByteTokenizer, CharTokenizer, SubwordTokenizer, WordTokenizer)


def can_inspect(task: Task, vocabularies: Mapping[str, Any], text: str) -> bool:
    """Whether a run of this task can be looked into while it reads this text.

    Args:
      task: of its experiment.
      vocabularies: of the run.
      text: to read.

    Returns:
      True where `inspect_run` would not refuse.

    >>> from recattn_jax.tasks import losses
    >>> vocabularies = {"text": ByteTokenizer()}
    >>> can_inspect(Classification(2, losses.NATS), vocabularies, "To be")
    True
    """
    if not isinstance(task, LanguageModel | Classification | SequenceToSequence):
        return False
    names = ("source", "target") if isinstance(task, SequenceToSequence) else ("text",)
    first, *others = (vocabularies.get(name) for name in names)
    if not isinstance(first, _TOKENIZERS) or not all(isinstance(o, _TOKENIZERS) for o in others):
        return False
    try:
        first.encode(text)
    except UserError:  # of a character that it does not know
        return False
    return True


@dataclasses.dataclass(frozen=True, eq=False)
class Inspection:
    """What a run does with a text.

    Attributes:
      attention: a map for each layer of attention.
      recurrence: a trace for each recurrent layer.
      left_out: a line for each layer that cannot be shown, with the reason.
      labels: by axis (`input`, or `source` and `target`), the tokens as text.
      axes: by path of an attention map, the axes of its rows and of its columns; those of memory
        slots, and the single row of pooling, have no labels.
      losses: `[T]`, nats of the token that comes next at each step; None of a classifier.
      expected: those tokens as text.
      prediction: a classifier's label, or a translator's text.
      probability: of the label; None where there is none.
      difference: how far logits are from those of the kernels that are used otherwise, at most.
      tolerance: how far they may be.

    >>> seen = inspect_run(run, "To be, or not to be")  # doctest: +SKIP
    >>> seen.exact, seen.attention[0].weights.shape  # doctest: +SKIP
    (True, (4, 19, 19))
    """

    attention: tuple[AttentionMap, ...]
    recurrence: tuple[RecurrenceTrace, ...]
    left_out: tuple[str, ...]
    labels: Mapping[str, Sequence[str]]
    axes: Mapping[str, tuple[str, str]]
    losses: Float[np.ndarray, " T"] | None
    expected: Sequence[str]
    prediction: str | None
    probability: float | None
    difference: float
    tolerance: float

    @property
    def exact(self) -> bool:
        """Whether what was seen is what the run computes otherwise."""
        return self.difference < self.tolerance

    @property
    def exactness(self) -> str:
        """A sentence on the kernels that were used, and on the difference that was found."""
        return (
            f"seen through reference kernels; logits differ by at most {self.difference:.1e} from"
            f" those of the fast ones ({self.tolerance:.1e} may be)"
        )

    @property
    def answer(self) -> str | None:
        """The prediction and its probability, as far as there are such."""
        if self.prediction is None or self.probability is None:
            return self.prediction
        return f"{self.prediction} (probability {self.probability:.3f})"

    @property
    def output_axis(self) -> str:
        """The axis of the losses."""
        return "input" if "input" in self.labels else "target"

    def axis(self, path: str) -> str:
        """The axis of the steps of a recurrent layer."""
        return _axis(path, self.labels)

    def save(self, file: Path) -> None:
        """Writes all numbers into one `.npz`.

        Names: `attention/PATH` `[H, T, S]`, `gates/PATH/NAME` `[T, H]`, `carries/PATH/K` `[T, H]`
        (K from 0, the hidden state first), `labels/AXIS`, `axes/PATH` (of the rows and of the
        columns of a map), `kind/PATH` of a map, `losses` and `expected`, `probability`,
        `prediction`, `difference`.

        Args:
          file: its name ends in `.npz`.
        """
        arrays: dict[str, Any] = {"difference": self.difference}
        for each in self.attention:
            arrays[f"attention/{each.path}"] = each.weights
            arrays[f"kind/{each.path}"] = each.kind
            arrays[f"axes/{each.path}"] = list(self.axes[each.path])
        for trace in self.recurrence:
            arrays |= {f"gates/{trace.path}/{name}": a for name, a in trace.gates.items()}
            arrays |= {f"carries/{trace.path}/{k}": a for k, a in enumerate(trace.carries)}
        arrays |= {f"labels/{axis}": list(names) for axis, names in self.labels.items()}
        if self.losses is not None:
            arrays |= {"losses": self.losses, "expected": list(self.expected)}
        for name in ("prediction", "probability"):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        np.savez_compressed(file, allow_pickle=False, **arrays)


def inspect_run(run: Run, text: str, target: str | None = None) -> Inspection:
    """Runs a model on a text and keeps what its layers show of themselves.

    Args:
      run: of a language model, a classifier of texts, or a translator from text to text.
      text: what a language model predicts, token after token; or what the others read.
      target: what a translator is to write, token after token; None for its own answer.

    Returns:
      What was seen.

    Raises:
      UserError: the run is of another kind, the text is empty or too long, or a target is given
        where none is written.

    >>> seen = inspect_run(load_run("runs/a"), "To be, or not to be")  # doctest: +SKIP
    >>> seen.attention[0].weights.shape  # heads, tokens, tokens  # doctest: +SKIP
    (4, 19, 19)
    """
    task = run.experiment.task
    if target is not None and not isinstance(task, SequenceToSequence):
        raise UserError(f"a target is for a run that translates; {run.path} writes none")
    if isinstance(task, LanguageModel):
        return _language_model(run, text)
    if isinstance(task, Classification):
        return _classifier(run, text)
    if isinstance(task, SequenceToSequence):
        return _translator(run, task, text, target)
    raise UserError(
        f"{run.path} is a run of {type(task).__name__}; language models, classifiers of texts and"
        " translators are looked into"
    )


def _language_model(run: Run, text: str) -> Inspection:
    tokenizer = _tokenizer(run, "text")
    wanted_T = _ids(tokenizer, text, "the text")
    inputs_T = np.concatenate([[tokenizer.separator], wanted_T[:-1]]).astype(np.int32)
    labels = {"input": pieces(tokenizer, inputs_T)}
    seen, logits = _look(run, labels, inputs_T)
    return dataclasses.replace(
        seen, losses=_nats(logits[0], wanted_T), expected=pieces(tokenizer, wanted_T)
    )


def _classifier(run: Run, text: str) -> Inspection:
    tokenizer = _tokenizer(run, "text")
    inputs_T = _ids(tokenizer, text, "the text")
    seen, logits = _look(run, {"input": pieces(tokenizer, inputs_T)}, inputs_T)
    shares_C = np.asarray(jax.nn.softmax(logits[0]))
    best = int(np.argmax(shares_C))
    names: Any = run.vocabularies["label"]
    return dataclasses.replace(
        seen, prediction=str(names.names[best]), probability=float(shares_C[best])
    )


def _translator(run: Run, task: SequenceToSequence, text: str, target: str | None) -> Inspection:
    from_text, to_text = (_tokenizer(run, name) for name in ("source", "target"))
    source_S = _ids(from_text, text, "the source")
    if target is None:
        source_BS = jnp.asarray(source_S)[None]
        batch = {"source": source_BS, "source_segments": jnp.ones_like(source_BS)}
        variables = {"params": run.params}
        written = np.asarray(task.predict(run.experiment.model, variables, batch))[0]
        ends = np.flatnonzero(written == task.stop)
        target_T = written[: ends[0]] if len(ends) else written
        _check(len(target_T), "the answer", least=0)
    else:
        target_T = _ids(to_text, target, "the target")
    inputs_T = np.concatenate([[to_text.separator], target_T]).astype(np.int32)
    wanted_T = np.concatenate([target_T, [task.stop]]).astype(np.int32)
    labels = {"source": pieces(from_text, source_S), "target": pieces(to_text, inputs_T)}
    seen, logits = _look(run, labels, source_S, inputs_T)
    return dataclasses.replace(
        seen,
        losses=_nats(logits[0], wanted_T),
        expected=pieces(to_text, wanted_T),
        prediction=to_text.decode(target_T),
    )


def _look(
    run: Run, labels: Mapping[str, Sequence[str]], *inputs: np.ndarray
) -> tuple[Inspection, np.ndarray]:
    """What is seen, and the logits of the kernels that are used otherwise."""
    model, variables = run.experiment.model, {"params": run.params}
    rows = [jnp.asarray(each)[None] for each in inputs]
    seen = look_inside(model, variables, *rows)
    logits = np.asarray(jax.jit(model.apply)(variables, *rows)[0])
    difference = float(np.max(np.abs(logits - np.asarray(seen.output))))
    scale = max(1.0, float(np.max(np.abs(logits))))
    axes = {each.path: _axes(each, labels) for each in seen.attention}
    tolerance = _TOLERANCE[max(2, min(4, seen.dtype.itemsize))] * scale
    return (
        Inspection(
            seen.attention, seen.recurrence, seen.left_out, labels, axes,
            None, (), None, None, difference, tolerance,
        ),
        logits,
    )  # fmt: skip


def _axis(path: str, labels: Mapping[str, Sequence[str]]) -> str:
    if "input" in labels:
        return "input"
    return "source" if path.split("/")[0] == "encoder" else "target"


def _axes(each: AttentionMap, labels: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    own = _axis(each.path, labels)
    return {
        "self": (own, own),
        "cross": (own, "source"),
        "location": (own, "source"),
        "slots": (own, "slot"),
        "pooling": ("row", own),
    }[each.kind]


def _nats(logits_TV: np.ndarray, wanted_T: Int[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    shares_TV = np.asarray(jax.nn.log_softmax(jnp.asarray(logits_TV), axis=-1))
    return -shares_TV[np.arange(len(wanted_T)), wanted_T]


def _tokenizer(run: Run, name: str) -> Tokenizer:
    tokenizer = run.vocabularies.get(name)
    if not isinstance(tokenizer, _TOKENIZERS):
        raise UserError(
            f"{run.path} reads no text of bytes, characters, words or subwords; runs of series,"
            " sound and tables are not looked into"
        )
    return tokenizer


def _ids(tokenizer: Tokenizer, text: str, what: str) -> Int[np.ndarray, " T"]:
    if not text.strip():
        raise UserError(f"{what} is empty; give some")
    ids = encoded(tokenizer, text)
    _check(len(ids), what, least=1)
    return ids


def _check(tokens: int, what: str, least: int) -> None:
    if not least <= tokens <= MOST_TOKENS:
        raise UserError(
            f"{what} has {tokens} tokens; maps, which grow with the square of that, are made of at"
            f" most {MOST_TOKENS}: give a part of it"
        )


def pieces(tokenizer: Tokenizer, ids: Int[np.ndarray, " T"]) -> list[str]:
    """Each token as text: what it says by itself.

    Args:
      tokenizer: of the run.
      ids: `[T]`, the tokens.

    Returns:
      As many texts; numbers and names in angle brackets are of those that say nothing.

    >>> pieces(ByteTokenizer(), np.array([97, 32, 195, 256]))
    ['a', ' ', '<195>', '<separator>']
    """

    def say(token: int) -> str:
        if token == tokenizer.separator:
            return "<separator>"
        text = tokenizer.decode([token])
        return f"<{token}>" if not text or "\ufffd" in text else text

    return [say(int(token)) for token in ids]
