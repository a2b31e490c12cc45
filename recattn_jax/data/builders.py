"""Records as TFDS data sets of ours: prepared once, checked whenever they are opened."""

import abc
import contextlib
import dataclasses
import io
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from recattn_jax import untrusted
from recattn_jax.data.features import Value, value_of
from recattn_jax.data.records import Content, Lazy, Record, Records, Source, surveyed
from recattn_jax.errors import StorageError, UserError
from recattn_jax.locks import FileLock

# From an example of TFDS to the value of one field of a record.
Field = Callable[[Any], Value | np.ndarray]


class RecordsBuilder(tfds.core.GeneratorBasedBuilder, abc.ABC):
    """Abstract: writes records that are at hand, with a name that says which content it is.

    Args:
        content: records by split.
        key: what tells this content from another of the same builder.
        data_dir: where TFDS keeps prepared sets.
    """

    name: str
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, content: Content, key: str, data_dir: str):
        self.name = prepared_name(type(self), key)
        self._content = content
        super().__init__(data_dir=data_dir, file_format="array_record")

    @property
    @abc.abstractmethod
    def about(self) -> str:
        """What the records are."""

    @property
    @abc.abstractmethod
    def fields(self) -> Mapping[str, type]:
        """What each field of a record holds.

        `str`, `list` for a list of strings, `np.ndarray` for steps of one shape and dtype.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        features = {field: self._feature(field, kind) for field, kind in self.fields.items()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.about,
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(digest=surveyed(self.name, self._content).digest),
        )

    def _feature(self, field: str, kind: type) -> Any:
        if kind is np.ndarray:
            steps = self._content["train"][0][field]
            return tfds.features.Tensor(shape=(None, *steps.shape[1:]), dtype=steps.dtype)
        text = tfds.features.Text()
        return text if kind is str else tfds.features.Sequence(text)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(rows) for split, rows in self._content.items()}

    def _generate_examples(self, records: Records) -> Iterator[tuple[int, Record]]:
        yield from enumerate(records)


def prepared_name(builder: type[RecordsBuilder], key: str) -> str:
    """Returns the name of the prepared set of `builder` for the content with digest `key`."""
    return f"{builder.name}_{key[:16]}"


def open_or_prepare(
    builder: type[RecordsBuilder],
    key: str,
    content: Callable[[], Content],
    data_dir: str | pathlib.Path,
) -> Source:
    """Opens a prepared set; prepares it first where it is missing or damaged.

    Any number of processes may do so at once: one prepares and the others wait.

    Args:
        builder: whose set it is.
        key: digest of what the content is made from.
        content: makes the records; only called where it is needed, and before anything is written.
        data_dir: where prepared sets are kept.

    Raises:
        UserError: if the name of `data_dir` is no text.
        StorageError: if `data_dir` cannot be written, or does not keep what was written.
    """
    root = pathlib.Path(data_dir)
    try:
        str(root).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            f"{str(root)!r}: no folder whose name is UTF-8; choose another data_dir"
        ) from None
    path = root / prepared_name(builder, key) / str(builder.VERSION)
    source = _open_checked(path)
    if source is not None:
        return source
    records = content()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{path.parent.name}.lock"):
            # Another process may have prepared it while this one waited.
            source = _open_checked(path)
            if source is not None:
                return source
            # What is left of a damaged set, or of one that was killed in the making.
            if path.parent.exists():
                shutil.rmtree(path.parent)
            # TFDS reports to stdout, which belongs to results.
            quiet = io.StringIO()
            with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
                builder(records, key, str(root)).download_and_prepare(
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
                )
            source = _open_checked(path)
    except OSError as error:
        raise StorageError(
            f"{root}: cannot hold the prepared data ({error.strerror or error}); "
            "choose another data_dir"
        ) from error
    if source is None:
        raise StorageError(f"{path}: what was just written cannot be read back; check the disk")
    logging.info("prepared %s", source.summary())
    return source


def irregular(folder: pathlib.Path) -> pathlib.Path | None:
    """Something in a folder that is neither a file nor a folder, such as a pipe: reading it hangs.

    Args:
        folder: of a prepared set.
    """
    there = (path for path in folder.iterdir() if untrusted.is_there(path))
    return next((path for path in there if not path.is_file() and not path.is_dir()), None)


def open_prepared(path: pathlib.Path, fields: Mapping[str, Field]) -> Source:
    """Opens what TFDS prepared in the folder `path`, whoever did, without its builder's code.

    Args:
        path: the folder of one version.
        fields: of the records, each from an example to the field's value.
    """
    builder = tfds.builder_from_directory(str(path))
    splits = {
        split: _records(builder.as_data_source(split), fields, f"{path}, {split}")
        for split in builder.info.splits
    }
    return surveyed(builder.info.full_name.replace("/", "-"), splits)


def _records(examples: Any, fields: Mapping[str, Field], where: str) -> Records:
    def record(index: int) -> Record:
        example = examples[index]
        try:
            return {field: value(example) for field, value in fields.items()}
        except UnicodeDecodeError as error:
            raise UserError(
                f"{where}: example {index} is not {error.encoding} at byte {error.start} "
                f"(0x{error.object[error.start]:02x}); name the encoding that it has"
            ) from None
        except ValueError as error:
            raise UserError(f"{where}: example {index}: {error}; leave this split out") from None

    return Lazy(len(examples), record)


def _own_field(name: str, feature: Any) -> Field:
    if type(feature) is tfds.features.Tensor:
        return lambda example: np.asarray(example[name])
    value = value_of(feature, "utf-8")
    if value is None:
        raise TypeError(f"feature {name} is none of ours")
    return lambda example: value(example[name])


def _open_checked(path: pathlib.Path) -> Source | None:
    """Returns the set in `path`, or None where it is missing or is not what was written."""
    if not path.exists():
        return None
    try:
        if (stray := irregular(path)) is not None:
            raise ValueError(f"{stray.name} is no file")
        info = tfds.builder_from_directory(str(path)).info
        expected = info.metadata["digest"]
        fields = {name: _own_field(name, feature) for name, feature in info.features.items()}
        source = open_prepared(path, fields)
    # The readers meet damage with whatever their parsers raise (RuntimeError, TypeError, KeyError,
    # JSON and protobuf errors, ...); each means the same here, and is reported.
    except Exception as error:
        logging.warning("%s is damaged (%s) and will be prepared again", path, error)
        return None
    if source.digest != expected:
        logging.warning("%s is damaged (its digest differs) and will be prepared again", path)
        return None
    return dataclasses.replace(source, name=path.parent.name)
