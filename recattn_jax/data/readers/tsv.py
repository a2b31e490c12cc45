"""Labelled text in columns that tabs separate."""

from collections.abc import Mapping, Sequence

from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import CARVED, File, Path, open_files
from recattn_jax.data.records import LABELLED, Record, Source


class RecattnLabelledTsv(RecordsBuilder):
    """Texts with a label each, in columns."""

    about = "Labelled text from columns separated by tabs."
    fields = LABELLED


def labelled_tsv(
    paths: Mapping[str, Path],
    data_dir: Path,
    text: str | int,
    label: str | int,
    validation: float = CARVED,
) -> Source:
    r"""One example a line; columns are separated by single tabs, and nothing is quoted.

    Args:
        paths: a UTF-8 file a split, "train" among them; packed where the name ends in .gz.
        data_dir: where prepared sets are kept.
        text: the column that holds the text: its name, where the first line holds names, or its
            number from 0, where it does not.
        label: the column that holds the label, said in the same way.
        validation: the share of "train" that becomes "validation" where `paths` has none; 0: no
            such split.

    Returns:
        Records of "text" and "label".

    Raises:
        UserError: names file, line and fault: another number of columns than in the first line, an
            empty text or label, no such column, not UTF-8, a cut file.
        StorageError: if `data_dir` cannot be written.

    >>> from pathlib import Path
    >>> _ = Path("train.tsv").write_text("good\tfine\n")
    >>> source = labelled_tsv({"train": "train.tsv"}, "data", text=1, label=0, validation=0.0)
    >>> source.splits["train"][0]["label"]
    'good'
    """

    def parse(files: Sequence[File]) -> list[Record]:
        return _records(files[0], text, label)

    ways = {split: [path] for split, path in paths.items()}
    return open_files(
        RecattnLabelledTsv, ways, parse, data_dir, validation, (repr(text), repr(label))
    )


def _records(file: File, text: str | int, label: str | int) -> list[Record]:
    lines = file.lines()
    first = lines[0].split("\t")
    wanted = {"text": text, "label": label}
    place = {field: _column(file, first, column) for field, column in wanted.items()}
    named = any(isinstance(column, str) for column in wanted.values())
    records: list[Record] = []
    for number, line in enumerate(lines[named:], 1 + named):
        columns = line.split("\t")
        if len(columns) != len(first):
            file.fault(
                number,
                f"expected {len(first)} columns separated by tabs, as in the first line, "
                f"found {len(columns)}",
            )
        record = {field: columns[index].strip() for field, index in place.items()}
        for field, value in record.items():
            if not value:
                file.fault(number, f"column {wanted[field]!r}, the {field}, is empty")
        records.append(record)
    if not records:
        file.fault(1, "no examples follow the line with the names of the columns")
    return records


def _column(file: File, first: Sequence[str], column: str | int) -> int:
    if isinstance(column, int):
        if not 0 <= column < len(first):
            file.fault(1, f"no column {column}: there are {len(first)}, numbered from 0")
        return column
    if first.count(column) != 1:
        file.fault(
            1,
            f"expected one column named {column!r}, found {', '.join(map(repr, first))}; "
            "give a number from 0 where the first line holds no names",
        )
    return first.index(column)
