"""Video with a label: all frames behind each other, and where each recording starts."""

import io
import itertools
import zipfile
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from recattn_jax import untrusted
from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import CARVED, File, Path, first_line, open_file, read
from recattn_jax.data.records import SERIES, Content, Record, Source
from recattn_jax.errors import UserError


class RecattnFrames(RecordsBuilder):
    """Recordings of frames, with a label."""

    about = "Video, each recording with a label."
    fields = SERIES


def labelled_frames(
    path: Path,
    data_dir: Path,
    frames: str,
    label: str,
    group: str,
    splits: Mapping[str, Sequence[int]],
    validation: float = CARVED,
) -> Source:
    """Recordings of unequal lengths from one NumPy archive (`.npz`).

    Besides the arrays that are named it holds `offsets`, int[n + 1]: recording i has the frames
    `offsets[i] : offsets[i + 1]`.

    Args:
        path: the archive.
        data_dir: where prepared sets are kept.
        frames: the name of the frames, `[N, ...]`, all recordings behind each other.
        label: the name of the labels, int[n].
        group: the name of what recordings are split by, int[n], such as who was filmed.
        splits: for "validation" and "test" the groups that are in it; all others are in "train".
        validation: the share of "train" that becomes "validation" where `splits` has none; 0: no
            such split.

    Returns:
        Records of "series", the frames as they are stored, `[T, ...]`, and "label".

    Raises:
        UserError: names the file and the fault: no such array, lengths that do not agree, offsets
            that do not grow, frames that are not finite, a group that no recording has.
        StorageError: if `data_dir` cannot be written.

    >>> arrays = {"frames": np.zeros((4, 2), np.float32), "offsets": np.array([0, 3, 4])}
    >>> np.savez("depth.npz", **arrays, action=np.array([0, 1]), subject=np.array([1, 2]))
    >>> people = {"test": (2,)}
    >>> source = labelled_frames("depth.npz", "data", "frames", "action", "subject", people, 0.0)
    >>> source.splits["train"][0]["series"].shape
    (3, 2)
    """
    if not set(splits) <= {"validation", "test"}:
        raise UserError(f"splits: expected validation and test alone, found {', '.join(splits)}")
    for one, two in itertools.combinations(splits, 2):
        if both := set(splits[one]) & set(splits[two]):
            raise UserError(f"splits: {group} {sorted(both)} stand in {one} and in {two}")
    file = read(path)

    def parse() -> Content:
        groups = _arrays(file, group)[group]
        _check_list(file, group, groups)
        of = {split: np.isin(groups, members) for split, members in splits.items()}
        of["train"] = ~np.any([*of.values(), np.zeros(len(groups), bool)], axis=0)
        recordings = _recordings(file, frames, label)
        if len(groups) != len(recordings):
            _fault(file, f"{len(recordings)} of {label!r}, but {len(groups)} of {group!r}")
        for split, chosen in of.items():
            if not chosen.any():
                wanted = list(splits.get(split, ())) or "that no other split has"
                _fault(file, f"no recording for {split}: {group} {wanted}")
        return {split: [recordings[i] for i in np.flatnonzero(of[split])] for split in of}

    said = [f"{split} {sorted(members)}" for split, members in sorted(splits.items())]
    return open_file(
        RecattnFrames, file, parse, data_dir, validation, (frames, label, group, *said)
    )


def _recordings(file: File, frames: str, label: str) -> list[Record]:
    arrays = _arrays(file, frames, label, "offsets")
    steps, labels, offsets = arrays[frames], arrays[label], arrays["offsets"]
    if steps.ndim < 1 or steps.dtype.kind not in "biuf":
        _fault(file, f"{frames!r} holds {steps.dtype}{list(steps.shape)}, expected real numbers")
    for name, array in arrays.items():
        if name != frames:
            _check_list(file, name, array)
    if offsets.dtype.kind not in "iu":
        _fault(file, f"'offsets' are {offsets.dtype}, expected whole numbers")
    offsets = offsets.astype(np.int64)
    if len(offsets) != len(labels) + 1:
        _fault(file, f"{len(labels)} of {label!r} and {len(offsets)} offsets, one more is expected")
    if offsets[0] != 0 or offsets[-1] != len(steps) or (np.diff(offsets) < 1).any():
        _fault(file, f"the offsets do not grow from 0 to {len(steps)}, the number of frames")
    if steps.dtype.kind == "f" and not np.isfinite(steps).all():
        where = int(np.argwhere(~np.isfinite(steps))[0][0])
        recording = int(np.searchsorted(offsets, where, "right")) - 1
        _fault(file, f"recording {recording}, frame {where - offsets[recording]} is not finite")
    return [
        {"series": steps[start:end], "label": str(name)}
        for start, end, name in zip(offsets[:-1], offsets[1:], labels, strict=True)
    ]


def _arrays(file: File, *names: str) -> dict[str, np.ndarray]:
    most = untrusted.unpacked_most(len(file.data))
    try:
        with zipfile.ZipFile(io.BytesIO(file.data)) as members:
            if sum(member.file_size for member in members.infolist()) > most:
                _fault(file, f"unpacks to more than {most} bytes; write it again, not so packed")
        with np.load(io.BytesIO(file.data), allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                known = ", ".join(archive.files)
                _fault(file, f"holds no {missing[0]!r}, only {known:.200}")
            arrays = {name: archive[name] for name in names}
    except UserError:
        raise
    # zipfile, zlib and NumPy meet damage with whatever they stumble over (struct.error,
    # NotImplementedError, RuntimeError, MemoryError for a shape that lies, ...).
    except Exception as error:
        _fault(file, f"no whole NumPy archive ({first_line(error)}); fetch or write it again")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # a member that is no array comes as its bytes
            _fault(file, f"{name!r} is no array; fetch or write it again")
    return arrays


def _check_list(file: File, name: str, array: np.ndarray) -> None:
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        _fault(
            file,
            f"{name!r} holds {array.dtype}{list(array.shape)}, expected a list of whole numbers or"
            " names",
        )
    try:
        array.tolist()
    except ValueError as error:  # numbers that are no characters
        _fault(file, f"{name!r} holds what is no name ({first_line(error)})")


def _fault(file: File, what: str) -> NoReturn:
    raise UserError(f"{file.path}: {what}")
