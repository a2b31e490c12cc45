"""Corpora as TFDS data sets of ours: prepared once, checked whenever they are opened."""

import abc
import collections
import contextlib
import dataclasses
import fcntl
import hashlib
import io
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from recattn_jax.errors import StorageError, UserError

# Splits, each a list of (name, text).
Corpus = Mapping[str, Sequence[tuple[str, str]]]


class Documents(Sequence[str]):
    """The texts of one split, read from the data set when asked for.

    Args:
        records: a TFDS data source.
        feature: the text feature that is the document.
        encoding: of its bytes.
        where: names the split in messages.
    """

    def __init__(self, records: Any, feature: str, encoding: str, where: str):
        self._records = records
        self._feature = feature
        self._encoding = encoding
        self._where = where

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        data = self._records[index % len(self)][self._feature]
        try:
            return data.decode(self._encoding)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self._where}: example {index % len(self)} is not {self._encoding} at byte "
                f"{error.start} (0x{data[error.start]:02x}); name the encoding that it has"
            ) from None


@dataclasses.dataclass(frozen=True)
class Source:
    """A corpus that can be read: documents by split.

    Args:
        name: of the prepared set.
        digest: of every document, in order; equal digests mean equal text.
        splits: "train" and others.
    """

    name: str
    digest: str
    splits: Mapping[str, Sequence[str]]

    def summary(self) -> str:
        """Returns one line for the log: how many documents a split has, and the digest."""
        sizes = ", ".join(f"{split} {len(texts)}" for split, texts in self.splits.items())
        return f"{self.name}: documents: {sizes}; content {self.digest[:16]}"


class CorpusBuilder(tfds.core.GeneratorBasedBuilder, abc.ABC):
    """Abstract: writes a corpus that is at hand, with a name that says which content it is.

    Args:
        corpus: splits of (name, text).
        key: what tells this content from another of the same builder.
        data_dir: where TFDS keeps prepared sets.
    """

    name: str
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, corpus: Corpus, key: str, data_dir: str):
        self.name = prepared_name(type(self), key)
        self._corpus = corpus
        super().__init__(data_dir=data_dir, file_format="array_record")

    @property
    @abc.abstractmethod
    def about(self) -> str:
        """What the corpus is."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.about,
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {"name": tfds.features.Text(), "text": tfds.features.Text()}
            ),
            metadata=tfds.core.MetadataDict(digest=content_digest(self._corpus)),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(texts) for split, texts in self._corpus.items()}

    def _generate_examples(
        self, texts: Sequence[tuple[str, str]]
    ) -> Iterator[tuple[int, dict[str, str]]]:
        for number, (name, text) in enumerate(texts):
            yield number, {"name": name, "text": text}


class RecattnPythonDocs(CorpusBuilder):
    """The language reference and the docstrings of this Python."""

    @property
    def about(self) -> str:
        """What the corpus is."""
        return "Python's language reference (pydoc topics) and standard library docstrings."


class RecattnTextFile(CorpusBuilder):
    """Text files of the user's own."""

    @property
    def about(self) -> str:
        """What the corpus is."""
        return "UTF-8 text files, each a document."


class RecattnTinyShakespeare(CorpusBuilder):
    """Parts of Shakespeare's plays, the usual megabyte of them."""

    @property
    def about(self) -> str:
        """What the corpus is."""
        return "Tiny Shakespeare: 1,115,394 characters, the last tenth for validation."


def prepared_name(builder: type[CorpusBuilder], key: str) -> str:
    """Returns the name of the prepared set of `builder` for the content with digest `key`."""
    return f"{builder.name}_{key[:16]}"


def open_or_prepare(
    builder: type[CorpusBuilder],
    key: str,
    corpus: Callable[[], Corpus],
    data_dir: str | pathlib.Path,
) -> Source:
    """Opens a prepared set; prepares it first where it is missing or damaged.

    Any number of processes may do so at once: one prepares and the others wait.

    Args:
        builder: whose set it is.
        key: digest of what the corpus is made from.
        corpus: makes the content; only called where it is needed, and before anything is written.
        data_dir: where prepared sets are kept.

    Raises:
        StorageError: if `data_dir` cannot be written, or does not keep what was written.
    """
    root = pathlib.Path(data_dir)
    path = root / prepared_name(builder, key) / str(builder.VERSION)
    source = _open_checked(path)
    if source is not None:
        return source
    content = corpus()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{path.parent.name}.lock"):
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
                builder(content, key, str(root)).download_and_prepare(
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


def open_prepared(path: pathlib.Path, feature: str, encoding: str) -> Source:
    """Opens what TFDS prepared in the folder `path`, whoever did, without its builder's code."""
    builder = tfds.builder_from_directory(str(path))
    splits = {
        split: Documents(builder.as_data_source(split), feature, encoding, f"{path}, {split}")
        for split in builder.info.splits
    }
    digest = content_digest({split: enumerate(texts) for split, texts in splits.items()})
    return Source(builder.info.full_name.replace("/", "-"), digest, splits)


def content_digest(splits: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of splits of (anything, text): split names, and texts in order."""
    digest = hashlib.sha256()
    for split in sorted(splits):
        texts = collections.deque(text.encode("utf-8") for _, text in splits[split])
        digest.update(f"{split} {len(texts)}\n".encode())
        for text in texts:
            digest.update(f"{len(text)}\n".encode())
            digest.update(text)
    return digest.hexdigest()


def _open_checked(path: pathlib.Path) -> Source | None:
    """Returns the set in `path`, or None where it is missing or is not what was written."""
    if not path.exists():
        return None
    try:
        source = open_prepared(path, "text", "utf-8")
        expected = tfds.builder_from_directory(str(path)).info.metadata["digest"]
    # The readers meet damage with whatever their parsers raise (RuntimeError, TypeError, KeyError,
    # JSON and protobuf errors, ...); each means the same here, and is reported.
    except Exception as error:
        logging.warning("%s is damaged (%s) and will be prepared again", path, error)
        return None
    if source.digest != expected:
        logging.warning("%s is damaged (its digest differs) and will be prepared again", path)
        return None
    return dataclasses.replace(source, name=path.parent.name)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        # Released by the system when the process ends, however it ends.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
