"""SCAN: commands in simple English, and the actions that they stand for."""

import re
from collections.abc import Mapping, Sequence

from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import CARVED, File, Path, open_files
from recattn_jax.data.records import PAIRS, Record, Source

# Nothing here may be tried in two ways: a line may be a megabyte long.
_LINE = re.compile(r"IN: (.*) OUT: (.*)")


class RecattnScan(RecordsBuilder):
    """Commands and actions."""

    about = "SCAN: commands and the actions that they stand for."
    fields = PAIRS


def scan(paths: Mapping[str, Path], data_dir: Path, validation: float = CARVED) -> Source:
    r"""Commands and actions; a line is "IN: walk twice OUT: I_WALK I_WALK".

    Args:
        paths: a file a split, "train" among them; packed where the name ends in .gz.
        data_dir: where prepared sets are kept.
        validation: the share of "train" that becomes "validation" where `paths` has none; 0: no
            such split.

    Returns:
        Records of "source" and "targets", a list of one; words are separated by spaces.

    Raises:
        UserError: names file, line and fault.
        StorageError: if `data_dir` cannot be written.

    >>> from pathlib import Path
    >>> _ = Path("train.txt").write_text("IN: walk twice OUT: I_WALK I_WALK\n")
    >>> scan({"train": "train.txt"}, "data", validation=0.0).splits["train"][0]["targets"]
    ['I_WALK I_WALK']

    Source: Lake and Baroni, "Generalization without systematicity", arXiv 1711.00350, 2018.
    """
    ways = {split: [path] for split, path in paths.items()}
    return open_files(RecattnScan, ways, _records, data_dir, validation)


def _records(files: Sequence[File]) -> list[Record]:
    records: list[Record] = []
    for number, line in enumerate(files[0].lines(), 1):
        found = _LINE.fullmatch(line)
        if found is None or not all(side.strip() for side in found.groups()):
            files[0].fault(number, f"expected IN: command OUT: actions, found {line!r:.60}")
        records.append({"source": found[1].strip(), "targets": [found[2].strip()]})
    return records
