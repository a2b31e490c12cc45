"""Series of measurements with a label: `.ts` files, and images whose rows are the steps."""

import math
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import CARVED, File, Path, open_files
from recattn_jax.data.records import SERIES, Record, Source
from recattn_jax.errors import UserError

LARGEST = float(np.finfo(np.float32).max)


class RecattnSeries(RecordsBuilder):
    """Series of one or more values a step, with a label."""

    about = "Series of measurements, each with a label."
    fields = SERIES


class RecattnImageRows(RecordsBuilder):
    """Images read row by row, with a label."""

    about = "Images whose rows are the steps of a series, each with a label."
    fields = SERIES


def labelled_series(
    paths: Mapping[str, Path], data_dir: Path, validation: float = CARVED
) -> Source:
    r"""Series of equal or unequal lengths, from `.ts` files.

    After the line `@data`, one case a line: dimensions are separated by colons, values by commas,
    and the last field is the label; `@classLabel true a b c` names the labels before it.

    Args:
        paths: a UTF-8 file a split, "train" among them; packed where the name ends in .gz.
        data_dir: where prepared sets are kept.
        validation: the share of "train" that becomes "validation" where `paths` has none; 0: no
            such split.

    Returns:
        Records of "series", float32[T, D], and "label".

    Raises:
        UserError: names file, line and fault: no `@data` or `@classLabel`, time stamps, a label
            that is not declared, another number of dimensions than in the first case, dimensions of
            unequal length, a value that is missing or no finite number.
        StorageError: if `data_dir` cannot be written.

    >>> from pathlib import Path
    >>> _ = Path("train.ts").write_text("@classLabel true up down\n@data\n1,2,3:0,0,0:up\n")
    >>> source = labelled_series({"train": "train.ts"}, "data", validation=0.0)
    >>> source.splits["train"][0]["series"].shape
    (3, 2)
    """
    ways = {split: [path] for split, path in paths.items()}
    return open_files(RecattnSeries, ways, _cases, data_dir, validation)


def image_rows(
    paths: Mapping[str, Path],
    data_dir: Path,
    rows: int,
    validation: float = CARVED,
) -> Source:
    r"""Images as series of their rows; a line has the pixels, row by row, and then the label.

    Args:
        paths: a file a split, "train" among them; packed where the name ends in .gz.
        data_dir: where prepared sets are kept.
        rows: T, how many rows an image has; the pixels of a line must be a multiple of it.
        validation: the share of "train" that becomes "validation" where `paths` has none; 0: no
            such split.

    Returns:
        Records of "series", float32[T, D], and "label".

    Raises:
        UserError: names file, line and fault: another number of values than in the first line, a
            value that is missing or no finite number, no label.
        StorageError: if `data_dir` cannot be written.

    >>> from pathlib import Path
    >>> _ = Path("digits.tra").write_text("0,1,1,0,7\n")
    >>> source = image_rows({"train": "digits.tra"}, "data", rows=2, validation=0.0)
    >>> source.splits["train"][0]["series"].tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    if rows < 1:
        raise UserError(f"rows: expected 1 or more, found {rows}")

    def parse(files: Sequence[File]) -> list[Record]:
        return _images(files[0], rows)

    ways = {split: [path] for split, path in paths.items()}
    return open_files(RecattnImageRows, ways, parse, data_dir, validation, (str(rows),))


def numbers(file: File, line: int, fields: Sequence[str], where: str = "") -> list[float]:
    """The finite numbers that fields of a line hold; a fault for any other field.

    Args:
        file: for the fault.
        line: from 1.
        fields: as they stand.
        where: in the line, for the fault, such as "dimension 2, ".
    """
    values = []
    for place, field in enumerate(fields, 1):
        try:
            value = float(field)
        except ValueError:
            value = math.nan
        if not abs(value) <= LARGEST:
            file.fault(
                line,
                f"{where}value {place} is {field.strip()!r:.30}, expected a finite number (of 32"
                " bits); fill what is missing, or leave the line out",
            )
        values.append(value)
    return values


def _cases(files: Sequence[File]) -> list[Record]:
    file = files[0]
    lines = file.lines()
    first, labels = _header(file, lines)
    records: list[Record] = []
    for number, line in enumerate(lines[first:], first + 1):
        if not line.strip():
            continue
        *dimensions, label = line.split(":")
        if label.strip() not in labels:
            file.fault(
                number, f"label {label.strip()!r:.40} is none of @classLabel: {', '.join(labels)}"
            )
        values = [
            numbers(file, number, dimension.split(","), f"dimension {place}, ")
            for place, dimension in enumerate(dimensions, 1)
        ]
        known = records[0]["series"].shape[1] if records else len(values)
        if len(values) != known or not values:
            file.fault(number, f"{len(values)} dimensions, expected {known or 'at least one'}")
        if len(set(map(len, values))) > 1:
            lengths = ", ".join(str(len(dimension)) for dimension in values)
            file.fault(number, f"the dimensions of one case have unequal lengths: {lengths}")
        records.append({"series": np.array(values, np.float32).T, "label": label.strip()})
    if not records:
        file.fault(first, "no cases follow @data")
    return records


def _header(file: File, lines: Sequence[str]) -> tuple[int, list[str]]:
    """Returns how many lines come before the cases, and the labels that are declared."""

    def missing(what: str) -> NoReturn:
        file.fault(len(lines), f"no line begins with {what}; give a .ts file with labelled cases")

    labels: list[str] = []
    for number, line in enumerate(lines, 1):
        key, *values = line.split() or [""]
        match key.lower():
            case "@data":
                return (number, labels) if labels else missing("@classLabel true")
            case "@classlabel" if values[:1] == ["true"]:
                labels = values[1:]
            case "@timestamps" if values[:1] == ["true"]:
                file.fault(number, "time stamps are not read; give values at equal steps of time")
            case _ if key and key[0] not in "#@":
                file.fault(number, f"expected # or @ before @data, found {line!r:.40}")
    missing("@data")


def _images(file: File, rows: int) -> list[Record]:
    records: list[Record] = []
    count = None
    for number, line in enumerate(file.lines(), 1):
        *pixels, label = (field.strip() for field in line.split(","))
        count = count or len(pixels)
        if len(pixels) != count or count % rows or not pixels:
            file.fault(
                number,
                f"{len(pixels)} pixels before the label, expected"
                f" {f'a multiple of {rows}' if number == 1 else count}",
            )
        if not label:
            file.fault(number, "the label, the last value, is empty")
        values = np.array(numbers(file, number, pixels), np.float32)
        records.append({"series": values.reshape(rows, -1), "label": label})
    return records
