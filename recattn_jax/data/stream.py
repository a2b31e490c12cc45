"""A split as one line of token ids, made once and kept in a file."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable

import numpy as np
from absl import logging
from jaxtyping import Int

from recattn_jax.data.records import Source
from recattn_jax.data.tokenizers import Tokenizer
from recattn_jax.errors import StorageError, UserError

# A file is the SHA-256 of the rest, and the rest is the tokens as little-endian int32.
_HEADER = hashlib.sha256().digest_size
_DTYPE = np.dtype("<i4")


@dataclasses.dataclass(frozen=True, eq=False)
class TokenStream:
    """Documents d0, d1, ... as `separator d0 separator d1 ...`, with nothing after the last.

    Args:
        name: of the split, for messages.
        tokens: int32[N], possibly mapped from a file.
        separator: the id before each document.
        digest: of the tokens and the tokenizer that made them.

    >>> stream = TokenStream("train", np.array([9, 1, 2, 9, 3], np.int32), separator=9, digest="")
    >>> stream.starts.tolist(), stream.n_symbols
    ([0, 3], 3)
    """

    name: str
    tokens: Int[np.ndarray, "N"]
    separator: int
    digest: str

    @functools.cached_property
    def starts(self) -> Int[np.ndarray, "documents"]:
        """int64[documents]: where each document's separator stands."""
        return np.flatnonzero(self.tokens == self.separator)

    @property
    def n_symbols(self) -> int:
        """How many tokens are not separators."""
        return len(self.tokens) - len(self.starts)


def tokenize(
    source: Source, split: str, tokenizer: Tokenizer, cache_dir: str | pathlib.Path
) -> TokenStream:
    """Returns the stream of one split, from the cache where it was tokenised before.

    Args:
        source: its records have a "text" each, the documents.
        split: "train", "validation", ...
        tokenizer: makes the ids.
        cache_dir: gets one file for each content, split and tokenizer.

    Returns:
        The documents as ids, int32 `[N]`, a separator before each.

    Raises:
        UserError: for a split that the source has not, or text that the tokenizer cannot encode.
        StorageError: if the file cannot be written.

    >>> from recattn_jax.data import ByteTokenizer
    >>> source = Source("words", "", {"train": [{"text": "hi"}, {"text": "ciao"}]})
    >>> len(tokenize(source, "train", ByteTokenizer(), "data").tokens)
    8
    """
    if split not in source.splits:
        raise UserError(f"{source.name}: no split {split!r}, only {', '.join(source.splits)}")
    recipe = json.dumps([1, source.digest, split, tokenizer.to_json()])
    key = hashlib.sha256(recipe.encode()).hexdigest()
    path = pathlib.Path(cache_dir) / "recattn_tokens" / f"{source.name}-{split}-{key[:16]}.tokens"
    tokens = _read(path)
    if tokens is None:
        try:
            joined = _join(source.texts(split), tokenizer)
        except UserError as error:
            raise UserError(f"{source.name}, {split} split, {error}") from None
        _write(path, joined)
        tokens = _read(path)
        if tokens is None:
            raise StorageError(f"{path}: what was just written cannot be read back")
    return TokenStream(split, tokens, tokenizer.separator, key)


def _join(documents: Iterable[str], tokenizer: Tokenizer) -> np.ndarray:
    separator = np.array([tokenizer.separator], np.int32)
    parts = [np.zeros([0], np.int32)]
    for number, document in enumerate(documents):
        try:
            parts += [separator, tokenizer.encode(document)]
        except UserError as error:
            raise UserError(f"document {number}: {error}") from None
    return np.concatenate(parts)


def _read(path: pathlib.Path) -> np.ndarray | None:
    """Returns the tokens in `path`, or None if it is missing or damaged."""
    try:
        with path.open("rb") as file:
            digest = file.read(_HEADER)
            size = os.fstat(file.fileno()).st_size - _HEADER
            if size >= 0 and size % _DTYPE.itemsize == 0:
                # Nothing cannot be mapped.
                mapped = np.memmap(file, _DTYPE, "r", _HEADER) if size else np.zeros([0], _DTYPE)
                if hashlib.sha256(mapped.data).digest() == digest:
                    return mapped
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror})") from error
    logging.warning("%s is damaged and will be made again", path)
    return None


def _write(path: pathlib.Path, tokens: np.ndarray) -> None:
    payload = tokens.astype(_DTYPE, copy=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Renamed only when whole, so nobody ever reads half of it, and two writers do no harm.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
            try:
                file.write(hashlib.sha256(payload.data).digest())
                file.write(payload.data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from error
