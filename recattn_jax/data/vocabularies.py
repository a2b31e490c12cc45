"""Vocabularies that are made from training data: words, subwords, names of classes, scales."""

import base64
import codecs
import collections
import dataclasses
import functools
import io
import json
import operator
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, SupportsIndex

import numpy as np
import sentencepiece
from jaxtyping import Int

from recattn_jax import untrusted
from recattn_jax.data import steps, tokenizers
from recattn_jax.data.steps import Steps
from recattn_jax.data.tokenizers import Tokenizer
from recattn_jax.data.word_features import WordFeatureTokenizer
from recattn_jax.data.words import join_spaces, join_words, split_spaces, split_words
from recattn_jax.errors import StorageError, UserError
from recattn_jax.files import write_atomically

# What stands for a word that is not in the vocabulary, also in corpora that come with it.
UNKNOWN = "<unk>"
_SPACE = "\u2581"  # what sentencepiece writes for a space
_MOST_IDS = 1 << 16  # of a word, in a file; more are only a mistake


@dataclasses.dataclass(frozen=True)
class WordTokenizer:
    r"""One id for each of `words`, in their order; then one for unknown words, and the separator.

    Text is cut by `split_words` (or at white space) into words and "\n" for a line end, and put
    together by `join_words`, which follows the habits of punctuation and is no exact inverse. A
    word that says "<unk>" is an unknown word.

    Args:
        words: each once, "<unk>" not among them.
        lowercase: whether text is lower-cased first.
        spaced: whether text comes with its words separated by white space, as SST, SCAN and
            WikiText do; nothing else then separates, and decoding puts one space between words.

    Raises:
        ValueError: for no words, or a word that no text can give.

    >>> tokenizer = WordTokenizer.of(["Who was it?", "It was she."], 4, lowercase=True)
    >>> tokenizer.words
    ('it', 'was', '.', '?')
    >>> tokenizer.encode("was it you?").tolist()
    [1, 0, 4, 3]
    """

    words: tuple[str, ...]
    lowercase: bool
    spaced: bool = False

    symbol = "word"

    def __post_init__(self) -> None:
        distinct = set(self.words)
        if not distinct or len(distinct) != len(self.words) or distinct & {"", UNKNOWN}:
            raise ValueError(f"words must be distinct, none empty or {UNKNOWN}, at least one")

    @classmethod
    def of(
        cls, texts: Iterable[str], size: int, lowercase: bool, spaced: bool = False
    ) -> "WordTokenizer":
        """Returns the tokenizer of the `size` most frequent words of `texts`, most frequent first.

        Of equally frequent words the first in code point order come first. The vocabulary has two
        more ids: unknown words, and the separator.
        """
        split = split_spaces if spaced else split_words
        words = (word for text in texts for word in split(text))
        return cls.of_words(words, size, lowercase, spaced)

    @classmethod
    def of_words(
        cls, words: Iterable[str], size: int, lowercase: bool, spaced: bool = False
    ) -> "WordTokenizer":
        """Returns the tokenizer as `of` does, from text that comes in words."""
        if size < 1:
            raise UserError(f"size of the vocabulary: expected at least 1 word, found {size}")
        counts = collections.Counter(word.lower() if lowercase else word for word in words)
        del counts[UNKNOWN]
        if not counts:
            raise UserError("words: the texts have none; give some text")
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(tuple(ranked[:size]), lowercase, spaced)

    @property
    def vocabulary_size(self) -> int:
        """The number of words, one for unknown words, and one for the separator."""
        return len(self.words) + 2

    @property
    def unknown(self) -> int:
        """The id of every word that is not in the vocabulary."""
        return len(self.words)

    @property
    def separator(self) -> int:
        """The last id."""
        return len(self.words) + 1

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns one id a word of `text`."""
        return self.encode_words(split_spaces(text) if self.spaced else split_words(text))

    def encode_words(self, words: Iterable[str]) -> Int[np.ndarray, "N"]:
        """Returns one id for each of `words`, which are not cut any further."""
        known, unknown = self._ids, self.unknown
        lowered = (word.lower() for word in words) if self.lowercase else words
        return np.fromiter((known.get(word, unknown) for word in lowered), np.int32)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Returns words with spaces where they usually stand; separators become nothing."""
        return "".join(self.decode_stream(ids))

    def decode_stream(self, ids: Iterable[SupportsIndex]) -> Iterator[str]:
        """Yields one word an id, with the space before it."""
        words = (self._word(operator.index(value)) for value in ids)
        joined = join_spaces(words) if self.spaced else join_words(words)
        return (piece for piece in joined if piece)

    def _word(self, value: int) -> str | None:
        _check_id(value, self.vocabulary_size)
        if value < len(self.words):
            return self.words[value]
        return UNKNOWN if value == self.unknown else None

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` makes the same tokenizer from."""
        options = {"lowercase": self.lowercase, "spaced": self.spaced}
        return {"kind": "word", "words": list(self.words), **options}


@dataclasses.dataclass(frozen=True)
class SubwordTokenizer:
    """Frequent sequences of characters, by sentencepiece's byte-pair encoding.

    Characters that training did not show are written in bytes, so nothing is unknown. Decoding is
    an exact inverse of encoding, but that U+2581, which stands for a space, becomes one.

    Args:
        model: of sentencepiece, as `of` trains it.
        lowercase: whether text is lower-cased first; decoding then is an inverse up to case.

    Raises:
        ValueError: for another model.

    >>> tokenizer = SubwordTokenizer.of(["believe it or believe it not"] * 9, 280, lowercase=False)
    >>> tokenizer.decode(tokenizer.encode("unbelievable"))
    'unbelievable'

    Paper: Kudo and Richardson, "SentencePiece", arXiv 1808.06226, 2018.
    """

    model: bytes = dataclasses.field(repr=False)
    lowercase: bool

    symbol = "subword"
    separator = 1

    def __post_init__(self) -> None:
        try:
            fits = self._processor.bos_id() == self.separator and self._pieces
        except RuntimeError as error:
            raise ValueError("model: sentencepiece cannot read it") from error
        if not fits:
            raise ValueError("model: was not trained by SubwordTokenizer.of")

    @classmethod
    def of(cls, texts: Iterable[str], size: int, lowercase: bool) -> "SubwordTokenizer":
        """Trains on `texts`, and returns the tokenizer with `size` ids.

        The same texts and size give the same model. 258 ids are bytes, the separator and one that
        is never used; the characters of the texts need one each.
        """
        lowered = (text.lower() if lowercase else text for text in texts)
        lines = [line for text in lowered for line in text.split("\n") if line]
        if not lines:
            raise UserError("subwords: the texts are empty; give some text")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                vocab_size=size,
                model_type="bpe",
                byte_fallback=True,
                character_coverage=1.0,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                # A longer line would be left out; this is the most that it takes.
                max_sentence_length=1 << 30,
                unk_id=0,
                bos_id=cls.separator,
                bos_piece="<separator>",
                eos_id=-1,
                pad_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            # It begins with places in the source of sentencepiece, in brackets.
            reason = " ".join(str(error).rsplit("] ", 1)[-1].split()).split(". Increase")[0]
            raise UserError(f"subwords: a vocabulary of {size} cannot be made: {reason}") from None
        return cls(model.getvalue(), lowercase)

    @property
    def vocabulary_size(self) -> int:
        """How many ids the model has, the separator among them."""
        return len(self._pieces)

    @functools.cached_property
    def _processor(self) -> Any:
        return sentencepiece.SentencePieceProcessor(model_proto=self.model)

    @functools.cached_property
    def _pieces(self) -> tuple[str | bytes, ...]:
        """What each id says: text, or one byte of a character."""
        model = self._processor
        return tuple(
            bytes((int(model.id_to_piece(value)[3:5], 16),))
            if model.is_byte(value)
            else model.id_to_piece(value).replace(_SPACE, " ")
            for value in range(model.vocab_size())
        )

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the ids of the pieces of `text`."""
        tokenizers.checked_text(text)
        return np.array(self._processor.encode(text.lower() if self.lowercase else text), np.int32)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Returns the text of `ids`; separators become nothing."""
        return "".join(self.decode_stream(ids))

    def decode_stream(self, ids: Iterable[SupportsIndex]) -> Iterator[str]:
        """Yields whole characters only: the first bytes of one wait for its last."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        begins = True
        for value in map(operator.index, ids):
            _check_id(value, self.vocabulary_size)
            piece = self._pieces[value]
            if value == self.separator:
                text = decoder.decode(b"", final=True)
            elif isinstance(piece, bytes):
                text = decoder.decode(piece)
            else:
                text = decoder.decode(b"", final=True) + (piece if value else "\ufffd")
            # Encoding put a space before the text.
            shown = text.removeprefix(" ") if begins else text
            begins = value == self.separator or begins and not text
            if shown:
                yield shown
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` makes the same tokenizer from."""
        model = base64.b64encode(self.model).decode("ascii")
        return {"kind": "subword", "model": model, "lowercase": self.lowercase}


@dataclasses.dataclass(frozen=True)
class Labels:
    """The names of classes or tags; an id is a place among them.

    Args:
        names: each once.

    Raises:
        ValueError: for no names, or a repeated one.

    >>> labels = Labels.of(["NUM", "LOC", "NUM"])
    >>> labels.names, labels.index("NUM")
    (('LOC', 'NUM'), 1)
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"names must be distinct, at least one: {self.names!r:.80}")

    @classmethod
    def of(cls, names: Iterable[str]) -> "Labels":
        """Returns the labels of all that occurs in `names`, sorted."""
        found = sorted(set(names))
        if not found:
            raise UserError("labels: there are none; give labelled examples")
        return cls(tuple(found))

    @property
    def vocabulary_size(self) -> int:
        """How many names there are."""
        return len(self.names)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Returns the id of a name; UserError, with the known ones, where it is none of them."""
        if name not in self._ids:
            raise UserError(
                f"label {name!r:.60} was not in training; known are: {', '.join(self.names):.400}"
            )
        return self._ids[name]

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` makes the same labels from."""
        return {"kind": "labels", "names": list(self.names)}


Vocabulary = Tokenizer | Labels | Steps
"""What turns a field of a record into numbers."""


def from_json(data: Any) -> Vocabulary:
    """Returns the vocabulary whose `to_json()` is `data`; ValueError for anything else."""
    match data:
        case {"kind": "word", "words": [*words], "lowercase": bool(low), "spaced": bool(spaced)}:
            return WordTokenizer(_strings(words), low, spaced)
        case {"kind": "subword", "model": str(model), "lowercase": bool(low)}:
            return SubwordTokenizer(base64.b64decode(model, validate=True), low)
        case {"kind": "word features", "names": [*names], "most": int(most)} if most <= _MOST_IDS:
            return WordFeatureTokenizer(_strings(names), most)
        case {"kind": "labels", "names": [*names]}:
            return Labels(_strings(names))
    return steps.from_json(data) or tokenizers.from_json(data)


def _strings(values: Iterable[Any]) -> tuple[str, ...]:
    found = tuple(values)
    for value in found:
        if not isinstance(value, str):
            raise ValueError(f"expected a name or a word, found {value!r:.40}")
    return found


def save_vocabularies(vocabularies: Mapping[str, Vocabulary], path: str | pathlib.Path) -> None:
    """Writes vocabularies to a JSON file.

    Args:
        vocabularies: by name.
        path: the file.

    Raises:
        StorageError: if it cannot be written.

    >>> save_vocabularies({"label": Labels(("bad", "good"))}, "vocabularies.json")
    """
    data = {name: vocabulary.to_json() for name, vocabulary in vocabularies.items()}
    write_atomically(pathlib.Path(path), json.dumps(data, ensure_ascii=True) + "\n")


def load_vocabularies(path: str | pathlib.Path) -> dict[str, Vocabulary]:
    """Reads what `save_vocabularies` wrote.

    Args:
        path: the file.

    Returns:
        The vocabularies by name.

    Raises:
        StorageError: if none can be read from it.

    >>> save_vocabularies({"label": Labels(("bad", "good"))}, "vocabularies.json")
    >>> load_vocabularies("vocabularies.json")
    {'label': Labels(names=('bad', 'good'))}
    """
    try:
        data = untrusted.read_object(pathlib.Path(path))
        return {name: from_json(value) for name, value in data.items()}
    except (ValueError, UserError) as error:
        raise StorageError(
            f"{path}: no vocabularies can be read from it ({error}); take that of another copy of"
            " the run"
        ) from error


def _check_id(value: int, size: int) -> None:
    if not 0 <= value < size:
        raise ValueError(f"id {value} is not in 0 .. {size - 1}")
