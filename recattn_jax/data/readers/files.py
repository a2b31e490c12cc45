"""What all readers share: files read whole, faults that name their line, the way to a source."""

import dataclasses
import functools
import gzip
import hashlib
import io
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from absl import logging

from recattn_jax import untrusted
from recattn_jax.data.builders import RecordsBuilder, open_or_prepare
from recattn_jax.data.records import SPLITS, Content, Records, Source, with_validation
from recattn_jax.errors import UserError

Path = str | pathlib.Path
Given = TypeVar("Given")

# The share of the training examples that becomes "validation" where no such file is given.
CARVED = 0.1

# Raise it when the same files make other records.
_RECIPE = 1
_CHUNK = 1 << 16


@dataclasses.dataclass(frozen=True)
class File:
    """A file that was read whole, unpacked where its name ends in .gz.

    Args:
        path: where it was.
        data: its content.
    """

    path: pathlib.Path
    data: bytes

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the content, which does not depend on how it was packed."""
        return hashlib.sha256(self.data).hexdigest()

    def fault(self, line: int, what: str) -> NoReturn:
        """Raises the UserError that names this file and the line (from 1)."""
        raise UserError(f"{self.path}:{line}: {what}")

    def text(self, encoding: str = "utf-8") -> str:
        """Returns the content; UserError if it is empty or not in this encoding."""
        try:
            # Some editors mark UTF-8 with a first character that is no text.
            text = self.data.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = self.data.count(b"\n", 0, error.start) + 1
            column = error.start - (self.data.rfind(b"\n", 0, error.start) + 1) + 1
            self.fault(
                line,
                f"not {encoding.upper()} at byte {column} of the line "
                f"(0x{self.data[error.start]:02x}); convert the file to {encoding.upper()}",
            )
        if not text.strip():
            self.fault(1, "the file is empty; give one with some text")
        return text

    def lines(self, encoding: str = "utf-8") -> list[str]:
        """Returns the lines without their ends, which are LF or CR LF and no other character."""
        lines = self.text(encoding).split("\n")
        if not lines[-1]:
            lines.pop()
        return [line.removesuffix("\r") for line in lines]


def parsed_json(file: File, line: int, text: str) -> Any:
    """Returns what `text`, which begins at `line` of `file`, says in JSON."""
    try:
        return untrusted.parse_json(text)
    except untrusted.Unreadable as error:
        file.fault(line + error.line - 1, str(error))


def read(path: Path) -> File:
    """Reads a file; UserError where there is none, or it is a damaged or a boundless gzip."""
    place = untrusted.place(path)
    try:
        data = untrusted.read_bytes(place)
    except untrusted.Unreadable as error:
        raise UserError(f"{place}: cannot be read ({error}); give another file") from None
    return File(place, _unpacked(place, data) if place.suffix == ".gz" else data)


def find_file(folder: Path, name: str) -> pathlib.Path:
    """The file of a name in a folder, plain or packed.

    Args:
        folder: where it is.
        name: without the `.gz` that it may have.

    Returns:
        The path of `name`, or of `name.gz`.

    Raises:
        UserError: if there is neither.

    >>> _ = pathlib.Path("train.txt").write_text("to be")
    >>> find_file(".", "train.txt").name
    'train.txt'
    """
    place = untrusted.place(folder)
    for path in (place / name, place / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{place}: holds neither {name} nor {name}.gz; give the folder that does")


def checked_splits(paths: Mapping[str, Given]) -> dict[str, Given]:
    """Returns `paths` in the order of the splits; UserError without "train"."""
    if "train" not in paths or not set(paths) <= set(SPLITS):
        raise UserError(
            "paths: expected train, and if there are such files validation and test; "
            f"found {', '.join(map(str, paths)) or 'nothing'}"
        )
    return {split: paths[split] for split in SPLITS if split in paths}


def open_files(
    builder: type[RecordsBuilder],
    paths: Mapping[str, Sequence[Path | File]],
    parse: Callable[[Sequence[File]], Records],
    data_dir: Path,
    validation: float,
    settings: Sequence[str] = (),
    classes: Sequence[str] = (),
    carve: Callable[[Content, float, str], Content] = with_validation,
) -> Source:
    """Reads files, and prepares their records where that was not done before.

    Args:
        builder: of the format.
        paths: one or more files a split, or what was read from them.
        parse: from the files of a split to its records; raises a fault before anything is written.
        data_dir: where prepared sets are kept.
        validation: share of "train" where `paths` names no "validation"; 0: no such split.
        settings: all else that `parse` depends on.
        classes: the labels that the format declares.
        carve: makes "validation" from "train" where there is none.
    """
    files = {
        split: [one if isinstance(one, File) else read(one) for one in of]
        for split, of in checked_splits(paths).items()
    }
    share = 0.0 if "validation" in files else validation
    parts = [f"{split} {file.digest}" for split, of in files.items() for file in of]

    def content() -> Content:
        splits = {split: parse(of) for split, of in files.items()}
        _check(splits, {split: str(of[0].path) for split, of in files.items()})
        return carve(splits, share, str(files["train"][0].path))

    source = _prepared(builder, (str(share), *settings, *parts), content, data_dir)
    return with_warnings(dataclasses.replace(source, classes=tuple(classes)))


def open_file(
    builder: type[RecordsBuilder],
    file: File,
    parse: Callable[[], Content],
    data_dir: Path,
    validation: float,
    settings: Sequence[str],
) -> Source:
    """Does what `open_files` does, for one file that holds all splits.

    Args:
        builder: of the format.
        file: what was read.
        parse: to the records of its splits; raises a fault before anything is written.
        data_dir: where prepared sets are kept.
        validation: share of "train" where `parse` gives no "validation"; 0: no such split.
        settings: all else that `parse` depends on.
    """

    def content() -> Content:
        splits = parse()
        _check(splits, dict.fromkeys(splits, str(file.path)))
        return with_validation(splits, validation, str(file.path))

    recipe = (str(validation), *settings, file.digest)
    return with_warnings(_prepared(builder, recipe, content, data_dir))


def _check(splits: Content, where: Mapping[str, str]) -> None:
    """Sees to it that text is Unicode, and that the steps of all series are of one kind."""
    first = None
    for split, records in splits.items():
        for number, record in enumerate(records):
            for value in record.values():
                texts = value if isinstance(value, list) else [value]
                for text in texts:
                    if isinstance(text, str) and not _is_unicode(text):
                        raise UserError(
                            f"{where[split]}: {text!r:.60} in example {number} of {split} is not"
                            " UTF-8; rename or convert it"
                        )
            series = record.get("series")
            if series is None:
                continue
            steps = series.dtype, series.shape[1:]
            first = first or steps
            if steps != first:
                raise UserError(
                    f"{where[split]}: series {number} of {split} has steps of"
                    f" {steps[0]}{list(steps[1])}, the first series {first[0]}{list(first[1])};"
                    " give series of one kind"
                )


def _is_unicode(text: str) -> bool:
    try:
        return bool(text.encode("utf-8")) or not text
    except UnicodeEncodeError:
        return False


def _prepared(
    builder: type[RecordsBuilder],
    recipe: Sequence[str],
    content: Callable[[], Content],
    data_dir: Path,
) -> Source:
    said = "\n".join((str(_RECIPE), builder.name, *recipe))
    key = hashlib.sha256(said.encode("utf-8")).hexdigest()
    return open_or_prepare(builder, key, content, data_dir)


def with_warnings(source: Source) -> Source:
    """Returns `source`, after a line in the log for classes that training will never see."""
    for field, names in source.missing.items():
        where = {
            name: [split for split, found in source.counts[field].items() if name in found]
            for name in names
        }
        told = ", ".join(
            f"{untrusted.one_line(name)} ({' and '.join(where[name]) or 'nowhere'})"
            for name in names
        )
        logging.warning("%s: no training example has these of %s: %s", source.name, field, told)
    return source


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the error's name where it has none."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _unpacked(path: pathlib.Path, packed: bytes) -> bytes:
    parts: list[bytes] = []
    left = untrusted.unpacked_most(len(packed))
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        try:
            while part := file.read1(_CHUNK):
                parts.append(part)
                left -= len(part)
                if left < 0:
                    raise UserError(
                        f"{path}: its {len(packed)} bytes unpack to more than"
                        f" {untrusted.unpacked_most(len(packed))}; unpack it yourself if that is"
                        " meant"
                    )
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            line = sum(part.count(b"\n") for part in parts) + 1
            what = "is cut off" if isinstance(error, EOFError) else f"is damaged ({error})"
            raise UserError(
                f"{path}:{line}: the gzip data {what} here; fetch or pack the file again"
            ) from None
    return b"".join(parts)
