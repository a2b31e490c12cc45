"""Sound with a label: folders or archives of wav files."""

import bz2
import dataclasses
import gzip
import io
import itertools
import lzma
import pathlib
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from recattn_jax import untrusted
from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import CARVED, File, Path, first_line, open_files, read
from recattn_jax.data.records import SERIES, TRANSCRIBED, Record, Source
from recattn_jax.data.wav import wave_samples
from recattn_jax.errors import UserError

FOLDER = r"([^/]+)/[^/]+$"
"""Labels are names of folders."""


class RecattnWaves(RecordsBuilder):
    """Recordings of one channel, with a label."""

    about = "Recordings of sound, each with a label."
    fields = SERIES


class RecattnTranscribedWaves(RecordsBuilder):
    """Recordings of one channel, with what is said in them."""

    about = "Recordings of sound, each with a text."
    fields = TRANSCRIBED


def labelled_waves(
    path: Path,
    data_dir: Path,
    rate: int,
    label: str = FOLDER,
    splits: Mapping[str, str] | None = None,
    validation: float = CARVED,
) -> Source:
    r"""Recordings from the wav files of a folder and its folders, or of a tar archive of them.

    Args:
        path: the folder, or the archive, packed where its name says so.
        data_dir: where prepared sets are kept.
        rate: samples a second that every file must have; none is resampled.
        label: a regular expression that is searched in a file's path below `path`, its parts
            separated by "/"; its group is the label. By default that of the innermost folder.
        splits: for "validation" and "test" a regular expression that is searched in the same way;
            files in which none is found are for training. None: all of them are.
        validation: the share of "train" that becomes "validation" where `splits` has none; 0: no
            such split.

    Returns:
        Records of "series", int16[N], and "label", in the order of their paths.

    Raises:
        UserError: names the file and the fault: it is cut off, no wav file of 16 bits and one
            channel, of another rate, empty, or `label` is not found in its path.
        StorageError: if `data_dir` cannot be written.

    >>> index = {"test": r"_[0-4]\.wav$"}  # of recordings/7_jackson_0.wav
    >>> label = r"(\d)_\w+_\d+\.wav$"
    >>> source = labelled_waves("fsdd.tar.xz", "data", 8000, label, index)  # doctest: +SKIP
    """
    labelled = _pattern("label", label)
    found = _by_split(path, splits)

    def parse(files: Sequence[File]) -> list[Record]:
        return [{"series": _samples(file, rate), "label": _label(file, labelled)} for file in files]

    names = [file.name for of in found.values() for file in of]
    settings = (str(rate), label, *names)
    return open_files(RecattnWaves, found, parse, data_dir, validation, settings)


def transcribed_waves(
    path: Path,
    data_dir: Path,
    rate: int,
    text: Callable[[str], str],
    splits: Mapping[str, str] | None = None,
    validation: float = CARVED,
) -> Source:
    r"""Recordings as `labelled_waves` reads them, each with what is said in it.

    Args:
        path: the folder, or the archive, packed where its name says so.
        data_dir: where prepared sets are kept.
        rate: samples a second that every file must have; none is resampled.
        text: from a file's path below `path`, its parts separated by "/", to what is said there;
            a UserError of its own is told with the file. See `transcripts`.
        splits: see `labelled_waves`.
        validation: see `labelled_waves`.

    Returns:
        Records of "series", int16[N], and "text", in the order of their paths.

    Raises:
        UserError: names the file and the fault, as `labelled_waves` does, or that its text is
            empty.
        StorageError: if `data_dir` cannot be written.

    >>> texts = transcripts("texts.tsv")  # doctest: +SKIP
    >>> source = transcribed_waves("clips", "data", 16_000, texts)  # doctest: +SKIP
    """
    found = _by_split(path, splits)
    texts = {file.name: _text(file, text) for of in found.values() for file in of}

    def parse(files: Sequence[File]) -> list[Record]:
        return [{"series": _samples(f, rate), "text": texts[_name(f)]} for f in files]

    settings = (str(rate), *itertools.chain.from_iterable(texts.items()))
    return open_files(RecattnTranscribedWaves, found, parse, data_dir, validation, settings)


def transcripts(path: Path) -> Callable[[str], str]:
    r"""What is said in files, from lines of a file's path, a tab, and its text.

    Args:
        path: the file of lines.

    Returns:
        From a path to its text, for `transcribed_waves`; raises UserError for one without a line.

    Raises:
        UserError: names the line that is none such, or that has the path of another.

    >>> _ = pathlib.Path("texts.tsv").write_text("first/0001.wav\tto be\n")
    >>> transcripts("texts.tsv")("first/0001.wav")
    'to be'
    """
    file, said = read(path), {}
    for number, line in enumerate(file.lines(), 1):
        name, _, words = line.partition("\t")
        if line.count("\t") != 1 or not name or not words.strip():
            file.fault(number, "expected a path, a tab, and what is said there")
        if name in said:
            file.fault(number, f"{name!r} has a line already; remove one of them")
        said[name] = words.strip()

    def text(name: str) -> str:
        if name not in said:
            raise UserError(f"no line in {file.path}; add one, or take the file away")
        return said[name]

    return text


def _by_split(path: Path, splits: Mapping[str, str] | None) -> "dict[str, list[_WavFile]]":
    """The files for training, and those of each pattern."""
    patterns = {name: _pattern(name, pattern) for name, pattern in (splits or {}).items()}
    found: dict[str, list[_WavFile]] = {"train": []}
    for file in _wav_files(untrusted.place(path)):
        split = next((name for name, p in patterns.items() if p.search(file.name)), "train")
        found.setdefault(split, []).append(file)
    for name in ("train", *patterns):
        if not found.get(name):
            raise UserError(f"{path}: no wav file is left for {name}; give other files or patterns")
    return found


@dataclasses.dataclass(frozen=True)
class _WavFile(File):
    """A file of a folder or an archive.

    Args:
        name: its path below that.
    """

    name: str


def _wav_files(place: pathlib.Path) -> list[_WavFile]:
    if place.is_dir():
        paths = sorted(p for p in place.rglob("*") if p.suffix.lower() == ".wav" and not p.is_dir())
        return [_WavFile(p, read(p).data, p.relative_to(place).as_posix()) for p in paths]
    try:
        return _members(place, untrusted.read_bytes(place))
    except UserError:
        raise
    # tarfile and what unpacks meet damage with whatever they stumble over (ValueError, KeyError,
    # struct.error, EOFError, ...).
    except Exception as error:
        raise UserError(
            f"{place}: neither a folder nor a whole tar archive ({first_line(error)})"
        ) from None


def _members(place: pathlib.Path, data: bytes) -> list[_WavFile]:
    """The wav files in an archive, by name; nothing is written, and names are only words."""
    most = untrusted.unpacked_most(len(data))
    stream = _Bounded(_unpacking(data), most)
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        members, size = [], 0
        for member in archive:
            if (member.isfile() or member.islnk()) and member.name.lower().endswith(".wav"):
                members.append(member)
                # Of a sparse file the size says what it would be.
                size += member.size
                stream.check(size)
        # tarfile takes a header that is damaged for the end, which is a block of zeros.
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"cut off or damaged after {len(members)} wav files")
        members.sort(key=lambda member: member.name)
        return [
            _WavFile(place / m.name, opened.read(), pathlib.PurePosixPath(m.name).as_posix())
            for m in members
            if (opened := archive.extractfile(m)) is not None
        ]


def _unpacking(data: bytes) -> io.BufferedIOBase:
    packed = io.BytesIO(data)
    if data.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=packed)
    if data.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(packed)
    return bz2.BZ2File(packed) if data.startswith(b"BZh") else packed


class _Bounded(io.BufferedIOBase):
    """A stream that refuses to be longer than it may.

    Args:
        stream: that can be read and sought.
        most: its bytes.
    """

    def __init__(self, stream: io.BufferedIOBase, most: int):
        self._stream, self._most = stream, most

    def check(self, size: int) -> None:
        """Raises tarfile.ReadError where `size` is too much."""
        if size > self._most:
            raise tarfile.ReadError(
                f"it unpacks to more than {self._most} bytes; unpack it yourself if that is meant"
            )

    def read(self, size: int | None = -1) -> bytes:
        left = self._most - self._stream.tell()
        found = self._stream.read(left + 1 if size is None or size < 0 else min(size, left + 1))
        self.check(self._stream.tell())
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET, "as tarfile seeks"
        self.check(offset)
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()


def _pattern(name: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"{name}: {text!r} is no regular expression ({error})") from None


def _samples(file: File, rate: int) -> Int[np.ndarray, "N"]:
    try:
        return wave_samples(file.data, rate)
    except ValueError as error:
        raise UserError(f"{file.path}: {error}") from None


def _name(file: File) -> str:
    assert isinstance(file, _WavFile)
    return file.name


def _text(file: _WavFile, text: Callable[[str], str]) -> str:
    try:
        said = text(file.name)
    except UserError as error:
        raise UserError(f"{file.path}: {error}") from None
    if not said:
        raise UserError(f"{file.path}: its text is empty; say what is said there")
    return said


def _label(file: File, pattern: re.Pattern[str]) -> str:
    name = _name(file)
    found = pattern.search(name)
    if found is None or not found.groups() or not found[1]:
        raise UserError(
            f"{file.path}: no label in {name!r} by {pattern.pattern!r}; give a regular"
            " expression whose group is the label"
        )
    return found[1]
