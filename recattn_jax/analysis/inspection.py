"""Inspection of a trained run: what was seen inside of it on a text, with names for all axes."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recattn_jax.analysis.attribution import Attribution, NotEmbedded, Say, Scores, attribute
from recattn_jax.analysis.inside import AttentionMap, RecurrenceTrace, look_inside
from recattn_jax.analysis.tokens import blank, pieces
from recattn_jax.data import (
    ByteTokenizer,
    CharTokenizer,
    SubwordTokenizer,
    Tokenizer,
    WordFeatureTokenizer,
    WordTokenizer,
)
from recattn_jax.errors import UserError
from recattn_jax.files import write_arrays
from recattn_jax.shapes import Array, Float, Int
from recattn_jax.tasks import Classification, LanguageModel, SequenceToSequence, Tagging, Task
from recattn_jax.tasks.base import encoded
from recattn_jax.training.loading import Run

MOST_TOKENS = 512
"""Of a text: maps grow with the square of their number."""
_TOLERANCE = {4: 1e-5, 2: 3e-2}
"""By bytes of a number of the activations: rounding, of logits of size 1. In float32 it was 3e-7
over one block of the default experiment, trained, and 2e-6 over four; in float64 all agrees."""
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
    if isinstance(task, Tagging) and isinstance(vocabularies.get("text"), WordFeatureTokenizer):
        return True
    if not isinstance(task, LanguageModel | Classification | SequenceToSequence | Tagging):
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
      labels: by axis (`input`, or `source` and `target`), the tokens as text; by `tag`, the tags.
      axes: by path of an attention map, the axes of its rows and of its columns; those of memory
        slots, and the single row of pooling, have no labels.
      losses: `[T]`, nats of the token that comes next at each step, or of each tag; None
        of a classifier.
      expected: those tokens, or tags.
      prediction: a classifier's label, a translator's text, or words with their tags.
      probability: of the label; None where there is none.
      difference: how far logits are from those of the kernels that are used otherwise, at most.
      tolerance: how far they may be.
      attribution: what each output owes to the tokens of each axis of inputs, in their order; None
        where that was not asked for, or cannot be said.
      ids: what the model was given, `[T]` or `[T, K]` for each of these axes.

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
    attribution: Attribution | None = None
    ids: tuple[Int[np.ndarray, "_ ..."], ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The axes of the model's inputs, in their order."""
        return tuple(axis for axis in self.labels if axis != "tag")

    @property
    def outputs(self) -> Sequence[str]:
        """What attributions explain: each that is expected, or the one prediction."""
        return self.expected or (self.prediction or "",)

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
        return next(axis for axis in ("tag", "input", "target") if axis in self.labels)

    def axis(self, path: str) -> str:
        """The axis of the steps of a recurrent layer."""
        return _axis(path, self.labels)

    def save(self, file: Path) -> None:
        """Writes all numbers into one `.npz`.

        Names: `attention/PATH` `[H, T, S]`, `gates/PATH/NAME` `[T, H]`, `carries/PATH/K` `[T, H]`
        (K from 0, the hidden state first), `labels/AXIS`, `axes/PATH` (of the rows and of the
        columns of a map), `kind/PATH` of a map, `losses` and `expected`, `probability`,
        `prediction`, `difference`; `gradient_norm/AXIS` and `gradient_x_input/AXIS` `[O, T]` of all
        outputs; `integrated_gradients/AXIS` `[T]` of the output `integrated_gradients_of`, with
        `integrated_gradients_change`, by how much its score moves on the path, and
        `integrated_gradients_error`, by how much their sum is off that.

        Args:
          file: its name ends in `.npz`.

        Raises:
          StorageError: it cannot be written.
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
        if (found := self.attribution) is not None:
            for index, axis in enumerate(self.inputs):
                arrays[f"gradient_norm/{axis}"] = found.norms[index]
                arrays[f"gradient_x_input/{axis}"] = found.gradients[index]
                arrays[f"integrated_gradients/{axis}"] = found.integrated[index]
            for name in ("of", "change", "error"):
                arrays[f"integrated_gradients_{name}"] = getattr(found, name)
        for name in ("prediction", "probability"):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        write_arrays(file, arrays)


class _Read(NamedTuple):
    """A text as a model reads it.

    Attributes:
      seen: what was seen.
      scores: log-probabilities of the outputs, from the model's predictions.
    """

    seen: Inspection
    scores: Scores


def inspect_run(
    run: Run,
    text: str,
    target: str | None = None,
    *,
    of: int | None = None,
    attributed: bool = True,
    say: Say | None = None,
) -> Inspection:
    """Runs a model on a text and keeps what its layers show of themselves.

    Args:
      run: of a language model, a classifier or tagger of texts, or a translator from text to text.
      text: what a language model predicts, token after token; or what the others read.
      target: what a translator is to write, token after token, or the tags of the words; None for
        the run's own answer.
      of: the output that integrated gradients explain, from 0; None for the last.
      attributed: whether outputs are explained by input tokens, which takes a backward pass each.
      say: is told how many of those passes are done.

    Returns:
      What was seen.

    Raises:
      UserError: the run is of another kind, the text is empty or too long, there is no such output,
        or a target is given where none is written or does not fit.

    >>> seen = inspect_run(load_run("runs/a"), "To be, or not to be")  # doctest: +SKIP
    >>> seen.attention[0].weights.shape  # heads, tokens, tokens  # doctest: +SKIP
    (4, 19, 19)
    """
    read = _read(run, text, target)
    outputs = len(read.seen.outputs)
    if of is not None and not 0 <= of < outputs:
        raise UserError(f"there is no output {of}: this text has {outputs}, counted from 0")
    if not attributed or not read.seen.exact:
        return read.seen
    model, variables = run.experiment.model, {"params": run.params}
    names = ("text",) if len(read.seen.ids) == 1 else ("source", "target")
    tokenizers: list[Any] = [run.vocabularies[name] for name in names]
    rows = [jnp.asarray(ids)[None] for ids in read.seen.ids]
    blanks = [
        jnp.asarray(blank(tokenizer, ids))[None]
        for tokenizer, ids in zip(tokenizers, read.seen.ids, strict=True)
    ]
    of = outputs - 1 if of is None else of
    try:
        found = attribute(model, variables, rows, blanks, read.scores, of, say)
    except NotEmbedded as reason:
        left_out = (*read.seen.left_out, f"what outputs owe to input tokens: {reason}")
        return dataclasses.replace(read.seen, left_out=left_out)
    return dataclasses.replace(read.seen, attribution=found)


def _read(run: Run, text: str, target: str | None) -> _Read:
    task = run.experiment.task
    if target is not None and not isinstance(task, SequenceToSequence | Tagging):
        raise UserError(f"a target is for a run that translates or tags; {run.path} does neither")
    if isinstance(task, LanguageModel):
        return _language_model(run, text)
    if isinstance(task, Classification):
        return _classifier(run, text)
    if isinstance(task, Tagging):
        return _tagger(run, task, text, target)
    if isinstance(task, SequenceToSequence):
        return _translator(run, task, text, target)
    raise UserError(
        f"{run.path} is a run of {type(task).__name__}; language models, classifiers and taggers of"
        " texts, and translators are looked into"
    )


def _language_model(run: Run, text: str) -> _Read:
    tokenizer = _tokenizer(run, "text")
    wanted_T = _ids(tokenizer, text, "the text")
    inputs_T = np.concatenate([[tokenizer.separator], wanted_T[:-1]]).astype(np.int32)
    labels = {"input": pieces(tokenizer, inputs_T)}
    return _look(run, labels, [inputs_T], _of_steps(wanted_T), pieces(tokenizer, wanted_T), None)


def _classifier(run: Run, text: str) -> _Read:
    tokenizer = _tokenizer(run, "text")
    inputs_T = _ids(tokenizer, text, "the text")
    logits_C = _predictions(run, [inputs_T])[0]
    best = int(np.argmax(logits_C))
    names: Any = run.vocabularies["label"]
    label = str(names.names[best])

    def scores(logits_BC: Any) -> Float[Array, " O"]:
        return jax.nn.log_softmax(logits_BC[0])[best][None]

    labels = {"input": pieces(tokenizer, inputs_T)}
    read = _look(run, labels, [inputs_T], scores, (), label)
    probability = float(np.exp(scores(jnp.asarray(logits_C)[None])[0]))
    seen = dataclasses.replace(read.seen, losses=None, probability=probability)
    return read._replace(seen=seen)


def _tagger(run: Run, task: Tagging, text: str, target: str | None) -> _Read:
    tokenizer = run.vocabularies.get("text")
    if not isinstance(tokenizer, WordFeatureTokenizer):
        tokenizer = _tokenizer(run, "text")
    words, names = text.split(), run.vocabularies["tag"].names  # type: ignore[union-attr]
    if not words:
        raise UserError("the text is empty; give some")
    batch = task.read(text, run.vocabularies)
    inputs_T, at_words = batch["inputs"], np.flatnonzero(batch["tags"] >= 0)
    _check(len(inputs_T), "the text", least=1)
    rows = {name: jnp.asarray(leaf)[None] for name, leaf in batch.items()}
    own = task.predict(run.experiment.model, {"params": run.params}, rows)
    own_T = np.asarray(own[0] if task.intents else own)[0]
    tags = [names[i] for i in own_T[at_words]] if target is None else target.split()
    if len(tags) != len(words) or not set(tags) <= set(names):
        raise UserError(
            f"the target is to be {len(words)} tags, one a word, of {', '.join(names)}; it is"
            f" {target!r:.80}"
        )
    wanted = np.array([names.index(tag) for tag in tags])

    def scores(predictions: Any) -> Float[Array, " O"]:
        logits_BTK = predictions[0] if task.intents else predictions
        return _log_shares(logits_BTK[0, at_words], wanted)

    given = words if inputs_T.ndim == 2 else pieces(tokenizer, inputs_T)
    prediction = task.write(jax.tree.map(lambda a: np.asarray(a)[0], own), text, run.vocabularies)
    return _look(run, {"input": given, "tag": tags}, [inputs_T], scores, tags, prediction)


def _translator(run: Run, task: SequenceToSequence, text: str, target: str | None) -> _Read:
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
    expected, prediction = pieces(to_text, wanted_T), to_text.decode(target_T)
    return _look(run, labels, [source_S, inputs_T], _of_steps(wanted_T), expected, prediction)


def _of_steps(wanted_T: Int[np.ndarray, " T"]) -> Scores:
    return lambda logits_BTV: _log_shares(logits_BTV[0], wanted_T)


def _log_shares(logits_TV: Array, wanted_T: Int[np.ndarray, " T"]) -> Float[Array, " T"]:
    """The log-probability of what is wanted at each step."""
    shares_TV = jax.nn.log_softmax(logits_TV)
    return jnp.take_along_axis(shares_TV, jnp.asarray(wanted_T)[:, None], axis=1)[:, 0]


def _predictions(run: Run, inputs: Sequence[np.ndarray]) -> Any:
    """Of the kernels that are used otherwise."""
    rows = [jnp.asarray(each)[None] for each in inputs]
    apply = jax.jit(run.experiment.model.apply)
    return jax.device_get(apply({"params": run.params}, *rows)[0])


def _look(
    run: Run,
    labels: Mapping[str, Sequence[str]],
    inputs: Sequence[np.ndarray],
    scores: Scores,
    expected: Sequence[str],
    prediction: str | None,
) -> _Read:
    """What is seen, and how far that is from what the kernels say that are used otherwise."""
    rows = [jnp.asarray(each)[None] for each in inputs]
    seen = look_inside(run.experiment.model, {"params": run.params}, *rows)
    fast = _predictions(run, inputs)
    pairs = list(zip(jax.tree.leaves(fast), jax.tree.leaves(seen.output), strict=True))
    difference = max(float(np.max(np.abs(a - b))) for a, b in pairs)
    scale = max(1.0, *(float(np.max(np.abs(a))) for a, _ in pairs))
    axes = {each.path: _axes(each, labels) for each in seen.attention}
    tolerance = _TOLERANCE[max(2, min(4, seen.dtype.itemsize))] * scale
    losses = -np.asarray(scores(jax.tree.map(jnp.asarray, fast)))
    seen_now = Inspection(
        seen.attention, seen.recurrence, seen.left_out, labels, axes, losses,
        expected, prediction, None, difference, tolerance, ids=tuple(inputs),
    )  # fmt: skip
    return _Read(seen_now, scores)


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
