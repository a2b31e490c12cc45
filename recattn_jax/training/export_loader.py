"""Runs an exported model, with jax, flatbuffers, numpy and safetensors, and nothing else.

    from load import Exported

    model = Exported()                                   # of the folder that this file lies in
    (logits,) = model.whole(inputs)                      # of rows of any length
    logits, state = model.step(tokens, model.zero_state(batch))

A language model that streams goes on from a prompt, greedily, and a classifier says how likely each
label is; of bytes, characters or words, not of subwords or features:

    python load.py "Once upon a time" --tokens=200
    python load.py "How many legs has a spider ?"

`model.json` says what each function takes and gives, and `vocabularies.json` what the ids mean.
"""

import argparse
import codecs
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

FORMAT = 1


class Exported:
    """A model in a folder; `description` is its `model.json`.

    Args:
      folder: what `launch.export` wrote.

    Example:
      model = Exported("exported")
    """

    def __init__(self, folder: str | Path = Path(__file__).parent):
        folder = Path(folder)
        self.description = json.loads((folder / "model.json").read_text("utf-8"))
        if self.description["format"] != FORMAT:
            raise ValueError(f"{folder}: this reads format {FORMAT}; take the load.py beside it")
        self.vocabularies = json.loads((folder / "vocabularies.json").read_text("utf-8"))
        weights = load_file(folder / "weights.safetensors")
        order = self.description["weights"]
        self._weights = [jax.numpy.asarray(weights[each["name"]]) for each in order]
        functions = self.description["functions"]
        self._wholes = [(each, _compiled(folder / each["file"])) for each in functions["whole"]]
        self._step = _compiled(folder / functions["step"]["file"]) if "step" in functions else None

    def whole(self, inputs: Any, segments: Any = None) -> list[jax.Array]:
        """Predicts from whole rows.

        Args:
          inputs: `[b, t]` ids, or what `model.json` says that a step is.
          segments: int32 `[b, t]`, the number of the document that each step belongs to, 1 and up;
            0 for padding; None where each row is one document.

        Returns:
          Logits, those of every step cut to the length of the inputs.

        Raises:
          ValueError: the rows are longer than the exported lengths.
        """
        inputs = np.asarray(inputs)
        length = inputs.shape[1]
        segments = np.ones(inputs.shape[:2]) if segments is None else np.asarray(segments)
        for described, whole in self._wholes:
            multiple, most = described["multiple"], described["most"]
            filled = max(1, -(-length // multiple)) * multiple
            if most is not None and filled > most:
                continue
            # Padding is no step, and changes nothing before it.
            steps = ((0, 0), (0, filled - length))
            inputs = np.pad(inputs, (*steps, *((0, 0),) * (inputs.ndim - 2)))
            inputs = inputs.astype(described["arguments"][1]["dtype"])
            found = whole(self._weights, inputs, np.pad(segments, steps).astype(np.int32))
            results = zip(found, described["results"], strict=True)
            return [y[:, :length] if result["each_step"] else y for y, result in results]
        raise ValueError(f"rows of {length} steps; {most} is the longest that was exported")

    def zero_state(self, batch: int) -> list[jax.Array]:
        """The state of rows of which nothing was read yet; see `step`."""
        if self._step is None:
            raise ValueError("this model has no step; use whole")
        return [
            jax.numpy.zeros([batch if n == "b" else n for n in leaf["shape"]], leaf["dtype"])
            for leaf in self.description["functions"]["step"]["state"]
        ]

    def step(self, tokens: Any, state: list[Any]) -> tuple[jax.Array, list[jax.Array]]:
        """Reads one token a row; the first of a document is the separator.

        Args:
          tokens: int32 `[b]`.
          state: of the step before, or `zero_state(b)`.

        Returns:
          Logits `[b, V]` of the next token, and the state.

        Raises:
          ValueError: the model does not stream, or predicts no tokens.
        """
        if self._step is None:
            raise ValueError("this model has no step; use whole")
        logits, state = self._step(self._weights, state, np.asarray(tokens, np.int32))
        return logits, state

    def generate(self, prompt: Sequence[int], count: int) -> Iterator[int]:
        """Goes on from ids, always with the most likely one."""
        state = self.zero_state(1)
        logits: Any = None
        for token in (self.description["input"]["separator"], *prompt):
            logits, state = self.step([token], state)
        for _ in range(count):
            token = int(np.argmax(logits[0]))
            yield token
            logits, state = self.step([token], state)

    def classify(self, text: str) -> dict[str, float]:
        """The probability of each label of a text, the most likely first.

        Raises:
          ValueError: the model does not classify, or reads no such text.
        """
        if self.description["task"] != "Classification":
            raise ValueError(f"this model is a {self.description['task']}, and classifies nothing")
        ids = self.encode(text) or [self.description["input"]["separator"]]
        (logits,) = self.whole([ids])
        odds = np.exp(np.asarray(logits[0], np.float64) - np.max(logits[0]))
        order = np.argsort(-odds, kind="stable")
        names = self.vocabularies["label"]["names"]
        return {names[label]: float(odds[label] / odds.sum()) for label in order}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, of bytes, characters or words.

        Raises:
          ValueError: the model reads something else, or not all of these characters.
        """
        kind = self.description["input"]["kind"]
        if self.description["task"] == "Tagging":  # whose words come apart, and have pieces
            kind = f"{kind}, a word at a time"
        if kind == "byte":
            return list(text.encode())
        if kind == "word":
            return self._encode_words(text)
        if kind != "char":
            raise ValueError(
                f"the model reads ids of kind {kind}, and only those of bytes, characters and words"
                " are made here: make them by vocabularies.json, and call Exported().whole"
            )
        characters = self._alphabet()
        unknown = set(text) - set(characters)
        if unknown:
            raise ValueError(f"the model does not know {', '.join(map(repr, sorted(unknown)))}")
        return [characters.index(character) for character in text]

    def _encode_words(self, text: str) -> list[int]:
        import words  # type: ignore[import-not-found]  # noqa: PLC0415  (lies beside this file)

        vocabulary = self.vocabularies[self.description["input"]["vocabulary"]]
        split = words.split_spaces if vocabulary["spaced"] else words.split_words
        known = {word: index for index, word in enumerate(vocabulary["words"])}
        lowered = [word.lower() if vocabulary["lowercase"] else word for word in split(text)]
        return [known.get(word, len(known)) for word in lowered]

    def decode(self, ids: Iterable[int], after: Sequence[int] = ()) -> Iterator[str]:
        """Text as soon as ids complete it, as it follows the ids before.

        An empty line stands where another document starts.
        """
        if self.description["input"]["kind"] == "word":
            yield from self._decode_words(ids, after)
            return
        characters = self._alphabet()
        bytes_of = codecs.getincrementaldecoder("utf-8")("replace")
        for token in ids:
            if token == self.description["input"]["separator"]:
                yield bytes_of.decode(b"", final=True) + "\n\n"
            else:
                yield characters[token] if characters else bytes_of.decode(bytes([token]))
        yield bytes_of.decode(b"", final=True)

    def _decode_words(self, ids: Iterable[int], after: Sequence[int]) -> Iterator[str]:
        import words  # noqa: PLC0415  (lies beside this file)

        vocabulary = self.vocabularies[self.description["input"]["vocabulary"]]
        names = [*vocabulary["words"], "<unk>", None]
        join = words.join_spaces if vocabulary["spaced"] else words.join_words
        told, counted = itertools.tee(itertools.chain(after, ids))
        pieces = zip(join(names[token] for token in told), counted, strict=False)
        for piece, token in itertools.islice(pieces, len(after), None):
            yield piece if names[token] is not None else "\n\n"

    def _alphabet(self) -> str:
        text = self.vocabularies[self.description["input"]["vocabulary"]]
        return str(text.get("characters", ""))


def _compiled(file: Path) -> Any:
    return jax.jit(export.deserialize(bytearray(file.read_bytes())).call)


def main() -> None:
    """Writes a prompt and how it goes on, or the labels of a text."""
    parser = argparse.ArgumentParser(description="goes on from a prompt, or classifies a text")
    parser.add_argument("text")
    parser.add_argument("--tokens", type=int, default=200, help="of a continuation")
    given = parser.parse_args()
    model = Exported()
    try:
        if model.description["task"] == "Classification":
            for label, share in model.classify(given.text).items():
                print(f"{share:.4f} {label}")
            return
        prompt = model.encode(given.text)
        sys.stdout.write(given.text)
        for text in model.decode(model.generate(prompt, given.tokens), prompt):
            sys.stdout.write(text)
            sys.stdout.flush()
        print()
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
