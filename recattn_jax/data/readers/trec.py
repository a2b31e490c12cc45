"""Questions with the kind of their answer: TREC question classification."""

import re
from collections.abc import Sequence

from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import CARVED, File, Path, find_file, open_files
from recattn_jax.data.records import LABELLED, Record, Source

_COARSE = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
_FILES = {"train": "train_5500.label", "test": "TREC_10.label"}
_LINE = re.compile(rf"(({'|'.join(_COARSE)}):\w+) (.*)")


class RecattnTrec(RecordsBuilder):
    """Questions, with the kind of their answer."""

    about = "TREC question classification."
    fields = LABELLED


def trec(folder: Path, data_dir: Path, fine: bool, validation: float = CARVED) -> Source:
    """Questions; a line is COARSE:fine, a space, and the words.

    Args:
        folder: holds train_5500.label and TREC_10.label, perhaps as .gz.
        data_dir: where prepared sets are kept.
        fine: whether a label is one of 50 kinds, such as "NUM:date", or of 6, such as "NUM".
        validation: the share of "train" that becomes "validation"; 0: no such split.

    Returns:
        Records of "text", whose words are separated by spaces, and "label".

    Raises:
        UserError: names file, line and fault.
        StorageError: if `data_dir` cannot be written.

    >>> source = trec("trec", "data", fine=False)  # doctest: +SKIP
    >>> question = source.texts("train")[0]  # doctest: +SKIP

    Source: Li and Roth, "Learning question classifiers", 2002.
    """

    def parse(files: Sequence[File]) -> list[Record]:
        # The published files are in this encoding: one word of theirs is no UTF-8.
        lines = enumerate(files[0].lines("latin-1"), 1)
        return [_record(files[0], number, line, fine) for number, line in lines]

    paths = {split: [find_file(folder, name)] for split, name in _FILES.items()}
    classes = () if fine else _COARSE
    return open_files(RecattnTrec, paths, parse, data_dir, validation, (str(fine),), classes)


def _record(file: File, number: int, line: str, fine: bool) -> Record:
    found = _LINE.fullmatch(line)
    if found is None or not found[3].strip():
        file.fault(
            number,
            f"expected KIND:kind with one of {', '.join(_COARSE)}, a space and words, "
            f"found {line!r:.60}",
        )
    return {"text": found[3].strip(), "label": found[1] if fine else found[2]}
