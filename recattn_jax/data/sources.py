"""Where text comes from: this Python, files, Tiny Shakespeare, and sets that TFDS prepared."""

import glob
import hashlib
import http.client
import pathlib
import platform
import urllib.request
from collections.abc import Sequence

from recattn_jax import untrusted
from recattn_jax.data import pydocs
from recattn_jax.data.builders import RecordsBuilder, open_or_prepare
from recattn_jax.data.readers.files import first_line
from recattn_jax.data.readers.prepared import prepared_records
from recattn_jax.data.records import PLAIN, Content, Record, Source
from recattn_jax.errors import UserError

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SHAKESPEARE_BYTES = 1_115_394
_TIMEOUT_SECONDS = 5

# Raise it when the same inputs make other documents.
_RECIPE = 2


class RecattnPythonDocs(RecordsBuilder):
    """The language reference and the docstrings of this Python."""

    about = "Python's language reference (pydoc topics) and standard library docstrings."
    fields = PLAIN


class RecattnTextFile(RecordsBuilder):
    """Text files of the user's own."""

    about = "UTF-8 text files, each a document."
    fields = PLAIN


class RecattnTinyShakespeare(RecordsBuilder):
    """Parts of Shakespeare's plays, the usual megabyte of them."""

    about = "Tiny Shakespeare: 1,115,394 characters, the last tenth for validation."
    fields = PLAIN


def python_docs(data_dir: str | pathlib.Path) -> Source:
    """The embedded corpus: about 2 MB of documentation that this Python brings with it.

    A document is a topic of the language reference or the docstrings of a module. It needs no
    network, and differs from one Python version to the next; the digest says which one it is.

    Args:
        data_dir: where it is kept once made, which takes some seconds.

    Returns:
        Splits "train", "validation" and "test", by document, about 90, 5 and 5 %.

    Raises:
        UserError: if this Python came without its sources.
        StorageError: if `data_dir` cannot be written.

    >>> source = python_docs("data")  # doctest: +SKIP
    >>> text = source.texts("train")[0]  # doctest: +SKIP
    """
    root = pydocs.library()
    version = ".".join(platform.python_version_tuple()[:2])
    key = _key("python_docs", version, pydocs.fingerprint(root))
    return open_or_prepare(RecattnPythonDocs, key, lambda: pydocs.documents(root), data_dir)


def text_file(
    paths: str | Sequence[str],
    data_dir: str | pathlib.Path,
    validation: float,
    test: float,
) -> Source:
    """Any UTF-8 files, each a document.

    One file is split by position: first "train", then "validation", then "test". More than one
    are split by file: sorted by a digest of their content, the first make up "validation", the
    next "test". Names and folders have no influence, except on the order of the documents.

    Args:
        paths: files, or patterns such as "notes/**/*.txt".
        data_dir: where prepared sets are kept.
        validation: the fraction of all characters to hold out, above 0.
        test: another one, or 0 for no such split.

    Returns:
        Splits "train", "validation" and, where it is asked for, "test".

    Raises:
        UserError: for a pattern that no file matches, a file that is not UTF-8 (named with the
            byte), an empty corpus, or too few files or characters to make the splits from.
        StorageError: if `data_dir` cannot be written.

    >>> _ = pathlib.Path("book.txt").write_text("To be or not to be.", encoding="utf-8")
    >>> source = text_file("book.txt", "data", validation=0.1, test=0.1)
    >>> source.texts("train")[0]
    'To be or not to'
    """
    if validation <= 0 or test < 0 or validation + test >= 1:
        raise UserError(
            f"validation and test: expected fractions with 0 < validation, 0 <= test and a sum "
            f"below 1, found {validation} and {test}"
        )
    files = _matching([paths] if isinstance(paths, str) else list(paths))
    texts = [(path.name, _read_utf8(path)) for path in files]
    if not any(text for _, text in texts):
        raise UserError(f"{_listing(files)}: the corpus is empty; give files with some text")
    if len(texts) == 1:
        corpus = _split_by_position(*texts[0], validation, test)
    else:
        corpus = _split_by_file(texts, validation, test)
    content = [
        f"{split} {record['name']} {_sha256(record['text'])}"
        for split, records in corpus.items()
        for record in records
    ]
    return open_or_prepare(RecattnTextFile, _key("text_file", *content), lambda: corpus, data_dir)


def tiny_shakespeare(
    data_dir: str | pathlib.Path, folder: str | pathlib.Path | None = None
) -> Source:
    """A megabyte of Shakespeare's plays: "train" is the first 90 %, "validation" the rest.

    Args:
        data_dir: where it is kept once prepared.
        folder: holds `input.txt`; None downloads it, the first time only.

    Returns:
        Splits "train" and "validation", a document each.

    Raises:
        UserError: if it can neither be found nor downloaded, or is another file.
        StorageError: if `data_dir` cannot be written.

    >>> source = tiny_shakespeare("data", folder="downloads")  # doctest: +SKIP
    >>> len(source.texts("validation")[0])  # doctest: +SKIP
    111540

    Source: Andrej Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks", 2015.
    """

    def corpus() -> Content:
        text = (_download() if folder is None else _take(pathlib.Path(folder))).decode("ascii")
        cut = int(len(text) * 0.9)
        return {
            "train": [{"name": "train", "text": text[:cut]}],
            "validation": [{"name": "validation", "text": text[cut:]}],
        }

    key = _key("tiny_shakespeare", SHAKESPEARE_SHA256)
    return open_or_prepare(RecattnTinyShakespeare, key, corpus, data_dir)


def prepared(path: str | pathlib.Path, feature: str, encoding: str = "utf-8") -> Source:
    """A set that TFDS prepared before, in the array_record format; each example is a document.

    Args:
        path: the folder of one version, such as "data/trec/1.0.0".
        feature: the text feature to read, such as "text".
        encoding: of its bytes; a few sets of TFDS are in "latin-1".

    Returns:
        The splits that the set has.

    Raises:
        UserError: if there is no such set, or no such feature, or it has another format, or
            an example is not in this encoding (named with the byte).

    >>> source = prepared("tensorflow_datasets/trec/1.0.0", feature="text")  # doctest: +SKIP
    >>> question = source.texts("train")[0]  # doctest: +SKIP
    """
    return prepared_records(path, {"text": feature}, encoding, validation=0.0)


def _matching(patterns: Sequence[str]) -> list[pathlib.Path]:
    found: dict[pathlib.Path, pathlib.Path] = {}
    for pattern in patterns:
        path = untrusted.place(pattern)
        # A file may have brackets or stars in its own name.
        there = untrusted.is_there(path)
        names = [str(path)] if there else sorted(glob.glob(str(path), recursive=True))
        files = [pathlib.Path(name) for name in names if not pathlib.Path(name).is_dir()]
        if not files:
            kind = "is a folder" if path.is_dir() else "no such file"
            raise UserError(f"{pattern}: {kind}; give text files, or a pattern that matches some")
        for file in files:
            found.setdefault(file.resolve(), file)
    if not found:
        raise UserError("paths: expected at least one text file, found none")
    return list(found.values())


def _read_utf8(path: pathlib.Path) -> str:
    try:
        data = untrusted.read_bytes(path)
    except untrusted.Unreadable as error:
        raise UserError(f"{path}: cannot be read ({error}); give another file") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 at byte {error.start} (0x{data[error.start]:02x}); "
            "convert the file to UTF-8, or leave it out"
        ) from None


def _split_by_position(name: str, text: str, validation: float, test: float) -> Content:
    ends = {"train": 1 - validation - test, "validation": 1 - test, "test": 1.0}
    corpus: dict[str, list[Record]] = {}
    start = 0
    for split, fraction in ends.items():
        if split == "test" and test == 0:
            continue
        # Rounded, since 1 - 0.1 - 0.0 is not quite 0.9.
        end = int(round(len(text) * fraction, 6))
        if end == start:
            raise UserError(
                f"{name}: {len(text)} characters are too few to make the splits from; "
                "give more text, or another fraction"
            )
        corpus[split] = [{"name": name, "text": text[start:end]}]
        start = end
    return corpus


def _split_by_file(texts: Sequence[tuple[str, str]], validation: float, test: float) -> Content:
    wanted = {"validation": validation, "test": test} if test else {"validation": validation}
    if len(texts) <= len(wanted):
        raise UserError(
            f"{len(texts)} files are too few for train, {' and '.join(wanted)}; "
            "give more files, or a single one, which is split by position"
        )
    total = sum(len(text) for _, text in texts)
    order = sorted(range(len(texts)), key=lambda i: (_sha256(texts[i][1]), texts[i][0]))
    chosen = ["train"] * len(texts)
    for left, (split, fraction) in zip(range(len(wanted), 0, -1), wanted.items(), strict=True):
        size = 0
        # At least one file, and at least one left for each split to come.
        while order and (size == 0 or size < fraction * total) and len(order) >= left + 1:
            taken = order.pop(0)
            chosen[taken] = split
            size += max(1, len(texts[taken][1]))
    return {
        split: [
            {"name": name, "text": text}
            for (name, text), place in zip(texts, chosen, strict=True)
            if place == split
        ]
        for split in ("train", *wanted)
    }


def _take(folder: pathlib.Path) -> bytes:
    path = folder / "input.txt"
    try:
        data = untrusted.read_bytes(path)
    except untrusted.Unreadable as error:
        raise UserError(
            f"{path}: cannot be read ({error}); give the folder that holds Tiny "
            f"Shakespeare's input.txt, from {SHAKESPEARE_URL}"
        ) from error
    return _checked(data, str(path))


def _download() -> bytes:
    try:
        with urllib.request.urlopen(SHAKESPEARE_URL, timeout=_TIMEOUT_SECONDS) as reply:
            data = reply.read(SHAKESPEARE_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{SHAKESPEARE_URL}: cannot be downloaded ({first_line(error)}); fetch it on another "
            "machine, save it as input.txt, and give the folder that holds it"
        ) from error
    return _checked(data, SHAKESPEARE_URL)


def _checked(data: bytes, where: str) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != SHAKESPEARE_SHA256:
        raise UserError(
            f"{where}: not Tiny Shakespeare: expected {SHAKESPEARE_BYTES} bytes with SHA-256 "
            f"{SHAKESPEARE_SHA256[:16]}, found {len(data)} with {found[:16]}"
        )
    return data


def _key(*parts: str) -> str:
    return _sha256("\n".join((str(_RECIPE), *parts)))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _listing(files: Sequence[pathlib.Path]) -> str:
    rest = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0]}{rest}"
