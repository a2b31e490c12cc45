"""Sound with a label: folders or archives of wav files."""

import dataclasses
import lzma
import pathlib
import re
import tarfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import CARVED, File, Path, first_line, open_files, read
from recattn_jax.data.records import SERIES, Record, Source
from recattn_jax.data.wav import wave_samples
from recattn_jax.errors import UserError

FOLDER = r"([^/]+)/[^/]+$"
"""Labels are names of folders."""


class RecattnWaves(RecordsBuilder):
    """Recordings of one channel, with a label."""

    about = "Recordings of sound, each with a label."
    fields = SERIES


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

    Example:
        index = {"test": r"_[0-4]\.wav$"}         # of recordings/7_jackson_0.wav
        source = labelled_waves("fsdd.tar.xz", "data", 8000, r"(\d)_\w+_\d+\.wav$", index)
    """
    patterns = {name: _pattern(name, pattern) for name, pattern in (splits or {}).items()}
    labelled = _pattern("label", label)
    found: dict[str, list[_WavFile]] = {"train": []}
    for file in _wav_files(pathlib.Path(path).expanduser()):
        split = next((name for name, p in patterns.items() if p.search(file.name)), "train")
        found.setdefault(split, []).append(file)
    for name in ("train", *patterns):
        if not found.get(name):
            raise UserError(f"{path}: no wav file is left for {name}; give other files or patterns")

    def parse(files: Sequence[File]) -> list[Record]:
        return [{"series": _samples(file, rate), "label": _label(file, labelled)} for file in files]

    names = [file.name for of in found.values() for file in of]
    settings = (str(rate), label, *names)
    return open_files(RecattnWaves, found, parse, data_dir, validation, settings)


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
        with tarfile.open(place) as archive:
            members = [
                m for m in archive if (m.isfile() or m.islnk()) and m.name.lower().endswith(".wav")
            ]
            members.sort(key=lambda member: member.name)
            return [
                _WavFile(place / m.name, opened.read(), m.name)
                for m in members
                if (opened := archive.extractfile(m)) is not None
            ]
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        raise UserError(
            f"{place}: neither a folder nor a whole tar archive ({first_line(error)})"
        ) from None


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


def _label(file: File, pattern: re.Pattern[str]) -> str:
    assert isinstance(file, _WavFile)
    found = pattern.search(file.name)
    if found is None or not found.groups() or not found[1]:
        raise UserError(
            f"{file.path}: no label in {file.name!r} by {pattern.pattern!r}; give a regular"
            " expression whose group is the label"
        )
    return found[1]
