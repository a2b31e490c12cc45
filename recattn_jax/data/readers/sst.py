"""The sentences of the Stanford Sentiment Treebank, in the layout `stsa.*`."""

import re
from collections.abc import Sequence

from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import File, Path, find_file, open_files
from recattn_jax.data.records import LABELLED, Record, Source
from recattn_jax.errors import UserError

_NAMES = {2: "binary", 5: "fine"}
_CLASSES = {
    2: ("negative", "positive"),
    5: ("very negative", "negative", "neutral", "positive", "very positive"),
}
_FILES = {"train": "train", "validation": "dev", "test": "test"}
_LINE = re.compile(r"([0-9]) (.*)")


class RecattnSst(RecordsBuilder):
    """Sentences of film reviews, with their sentiment."""

    about = "Stanford Sentiment Treebank, whole sentences."
    fields = LABELLED


def sst(folder: Path, data_dir: Path, classes: int) -> Source:
    """Sentences of film reviews; a line is a digit, the class, a space, and the words.

    Args:
        folder: holds `stsa.binary.*` or `stsa.fine.*` with train, dev and test, perhaps as .gz.
        data_dir: where prepared sets are kept.
        classes: 2 (negative, positive) or 5 (also neutral, and very negative and very positive).

    Returns:
        Records of "text", whose words are separated by spaces, and "label", a name; `classes` of
        the source has the names from negative to positive.

    Raises:
        UserError: names file, line and fault.
        StorageError: if `data_dir` cannot be written.

    >>> source = sst("sst", "data", classes=2)  # doctest: +SKIP
    >>> review = source.texts("train")[0]  # doctest: +SKIP

    Source: Socher et al., "Recursive deep models for semantic compositionality over a sentiment
    treebank", 2013.
    """
    if classes not in _CLASSES:
        raise UserError(f"classes: expected 2 or 5, found {classes}")
    names = _CLASSES[classes]
    paths = {
        split: [find_file(folder, f"stsa.{_NAMES[classes]}.{part}")]
        for split, part in _FILES.items()
    }

    def parse(files: Sequence[File]) -> list[Record]:
        return [_record(files[0], number, line, names) for number, line in _numbered(files[0])]

    return open_files(RecattnSst, paths, parse, data_dir, 0.0, (str(classes),), names)


def _numbered(file: File) -> list[tuple[int, str]]:
    return list(enumerate(file.lines(), 1))


def _record(file: File, number: int, line: str, names: Sequence[str]) -> Record:
    found = _LINE.fullmatch(line)
    if found is None or int(found[1]) >= len(names) or not found[2].strip():
        file.fault(
            number, f"expected a class 0 to {len(names) - 1}, a space and words, found {line!r:.60}"
        )
    return {"text": found[2].strip(), "label": names[int(found[1])]}
