"""What turns parts of a record into numbers, and the file of a run that keeps them."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from recattn_jax.data.tokenizers import Tokenizer, from_json
from recattn_jax.errors import StorageError, UserError


@dataclasses.dataclass(frozen=True)
class Labels:
    """Names of classes or tags; the number of one is its place.

    Args:
        names: each once.

    Example:
        labels = Labels(("bad", "good"))
        labels.index("good")      # 1
    """

    names: tuple[str, ...]

    @property
    def vocabulary_size(self) -> int:
        """How many there are."""
        return len(self.names)

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Returns the number of `name`; UserError lists the known ones where it is none."""
        if name not in self._places:
            raise UserError(f"unknown label {name!r}; the known ones are {', '.join(self.names)}")
        return self._places[name]

    def to_json(self) -> dict[str, Any]:
        """Returns what `load_vocabularies` makes the same labels from."""
        return {"kind": "labels", "names": list(self.names)}


Vocabulary = Tokenizer | Labels


def save_vocabularies(vocabularies: Mapping[str, Vocabulary], path: str | pathlib.Path) -> None:
    """Writes vocabularies by name to the JSON file `path`."""
    data = {name: vocabulary.to_json() for name, vocabulary in vocabularies.items()}
    pathlib.Path(path).write_text(json.dumps(data, ensure_ascii=True) + "\n", encoding="ascii")


def load_vocabularies(path: str | pathlib.Path) -> dict[str, Vocabulary]:
    """Returns the vocabularies saved at `path`; StorageError if none can be read from it."""
    try:
        data = json.loads(pathlib.Path(path).read_text(encoding="ascii"))
        return {name: _from_json(value) for name, value in data.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise StorageError(f"{path}: no vocabularies can be read from it ({error})") from error


def _from_json(data: Any) -> Vocabulary:
    match data:
        case {"kind": "labels", "names": [*names]}:
            return Labels(tuple(_names(names)))
    return from_json(data)


def _names(names: Sequence[Any]) -> Sequence[str]:
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"describes no labels: {names!r:.80}")
    return names
