"""Spoken commands with their intent and its slots, in the layout of the Snips benchmark."""

import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recattn_jax import untrusted
from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import CARVED, File, Path, open_files, parsed_json
from recattn_jax.data.records import TAGGED_WITH_INTENT, Record, Source
from recattn_jax.data.words import split_words
from recattn_jax.errors import UserError

_PUBLISHED = {"train": r"train_(\w+)_full\.json", "test": r"validate_(\w+)\.json"}
# In the published set one emoji of this file is two halves of a surrogate pair, each as UTF-8.
_HALVES = "train_PlayMusic_full.json"


class RecattnIntentSlots(RecordsBuilder):
    """Commands, with an intent and the slots that it needs."""

    about = "Commands with intents and slots."
    fields = TAGGED_WITH_INTENT


def intent_slots(
    folder_or_paths: Path | Mapping[str, Path], data_dir: Path, validation: float = CARVED
) -> Source:
    """Commands as JSON: {intent: [{"data": [{"text": ..., "entity": ...}, ...]}, ...], ...}.

    The pieces of "data", joined, are the command; those with an "entity" are slots. Words are those
    of `split_words`, and never go over the end of a piece.

    Args:
        folder_or_paths: a folder with train_INTENT_full.json, which becomes "train", and
            validate_INTENT.json, which becomes "test", for any number of intents; or a UTF-8 file
            a split, "train" among them. Packed where a name ends in .gz.
        data_dir: where prepared sets are kept.
        validation: the share of "train" that becomes "validation" where there is none; 0: no such
            split.

    Returns:
        Records of "tokens", "tags" (IOB2, types are those of "entity") and "label", the intent.

    Raises:
        UserError: names file, line and fault (within good JSON, the intent and the example).
        StorageError: if `data_dir` cannot be written.

    >>> import json
    >>> from pathlib import Path
    >>> said = {"GoTo": [{"data": [{"text": "to "}, {"text": "Rome", "entity": "place"}]}]}
    >>> _ = Path("train.json").write_text(json.dumps(said))
    >>> intent_slots({"train": "train.json"}, "data", validation=0.0).splits["train"][0]["tags"]
    ['O', 'B-place']

    Source: Coucke et al., "Snips Voice Platform", arXiv 1805.10190, 2018.
    """
    if isinstance(folder_or_paths, Mapping):
        paths = {split: [path] for split, path in folder_or_paths.items()}
    else:
        paths = _published(untrusted.place(folder_or_paths))

    def parse(files: Sequence[File]) -> list[Record]:
        return [record for file in files for record in _records(file)]

    return open_files(RecattnIntentSlots, paths, parse, data_dir, validation)


def _published(folder: pathlib.Path) -> dict[str, list[Path]]:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    found: dict[str, list[Path]] = {
        split: [folder / name for name in names if re.fullmatch(pattern + r"(\.gz)?", name)]
        for split, pattern in _PUBLISHED.items()
    }
    for split, files in found.items():
        if not files:
            raise UserError(
                f"{folder}: holds no file like {_PUBLISHED[split]} (or .gz); give the folder that "
                "does, or a file a split"
            )
    return found


def _records(file: File) -> Iterator[Record]:
    intents = parsed_json(file, 1, _text(file))
    if not (isinstance(intents, dict) and intents) or any(
        not isinstance(examples, list) for examples in intents.values()
    ):
        file.fault(1, 'expected {"intent": [example, ...], ...}, with at least one intent')
    for intent, examples in intents.items():
        if not examples:
            file.fault(1, f"intent {intent!r} has no examples")
        for number, example in enumerate(examples):
            record = _record(example, intent)
            if record is None:
                file.fault(
                    1,
                    f'intent {intent!r}, example {number} (from 0): expected {{"data": '
                    '[{"text": ..., "entity": ... where it is a slot}, ...]} with some words, '
                    f"and words in every slot, found {example!r:.60}",
                )
            yield record


def _record(example: Any, intent: str) -> Record | None:
    """Returns the record of an example, or None where it has another shape."""
    tokens: list[str] = []
    tags: list[str] = []
    pieces = example.get("data") if isinstance(example, dict) else None
    for piece in pieces if isinstance(pieces, list) else []:
        match piece:
            case {"text": str(text), "entity": str(entity)} if text.strip() and entity.strip():
                words = split_words(text)
                tags += [f"B-{entity}", *[f"I-{entity}"] * (len(words) - 1)]
            case {"text": str(text)} if "entity" not in piece:
                words = split_words(text)
                tags += ["O"] * len(words)
            case _:
                return None
        tokens += words
    return {"tokens": tokens, "tags": tags, "label": intent} if tokens else None


def _text(file: File) -> str:
    if file.path.name.removesuffix(".gz") != _HALVES:
        return file.text()
    try:
        halves = file.data.decode("utf-8", "surrogatepass")
        return halves.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return file.text()  # names the place
