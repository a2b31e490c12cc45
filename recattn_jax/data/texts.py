"""From a source of text to the batches of a language model."""

import pathlib
from collections.abc import Callable

from recattn_jax import partition
from recattn_jax.data.pipelines import Data, Pipeline
from recattn_jax.data.records import Source
from recattn_jax.data.stream import TokenStream, tokenize
from recattn_jax.data.tokenizers import Tokenizer
from recattn_jax.errors import UserError


def text_data(
    source: Source,
    tokenizer: Tokenizer,
    cache_dir: str | pathlib.Path,
    pipeline: Callable[[TokenStream, int, int], Pipeline],
) -> Data:
    """Tokenizes every split of a source and makes a pipeline of each.

    Args:
        source: documents by split, "train" among them.
        tokenizer: from text to tokens.
        cache_dir: where tokens are kept once made.
        pipeline: from a stream, and this host's number among how many, to batches: `windows` or
            `lanes` with all else bound.

    Returns:
        The tokenizer as vocabulary "text", the training pipeline and those of the other splits.

    Raises:
        UserError: if there is no "train", or a split is too short for the pipeline or does not
            fit the tokenizer.
        StorageError: if `cache_dir` cannot be written.

    >>> from recattn_jax.data import ByteTokenizer, windows
    >>> source = Source("greetings", "", {"train": [{"text": "to be or not to be"}]})
    >>> rows = lambda stream, host, hosts: windows(stream, 2, 4, 0, host, hosts)
    >>> text_data(source, ByteTokenizer(), "data", rows).train.spec["inputs"].shape
    (2, 4)
    """
    if "train" not in source.splits:
        raise UserError(f"{source.name} has no split train, only {sorted(source.splits)}")
    hosts = partition.hosts()
    pipelines = {
        split: pipeline(tokenize(source, split, tokenizer, cache_dir), *hosts)
        for split in source.splits
    }
    return Data({"text": tokenizer}, pipelines.pop("train"), pipelines, source.summary())
