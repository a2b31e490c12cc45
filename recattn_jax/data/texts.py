"""From a source of text to the batches of a language model."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np

from recattn_jax.data.builders import Source
from recattn_jax.data.pipelines import Data, Pipeline
from recattn_jax.data.stream import TokenStream, tokenize
from recattn_jax.data.tokenizers import Tokenizer


def token_batch(batch: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of token windows.

    Args:
        batch: rows B.
        length: steps T.

    Returns:
        int32 `[B, T]` for "inputs", "targets" and "segments".

    Example:
        token_batch(2, 3)["inputs"].shape
    """
    leaf = jax.ShapeDtypeStruct((batch, length), np.int32)
    return {"inputs": leaf, "targets": leaf, "segments": leaf}


def text_data(
    source: Source,
    tokenizer: Tokenizer,
    cache_dir: str | pathlib.Path,
    pipeline: Callable[[TokenStream], Pipeline],
) -> Data:
    """Tokenizes every split of a source and makes a pipeline of each.

    Args:
        source: documents by split, "train" among them.
        tokenizer: from text to tokens.
        cache_dir: where tokens are kept once made.
        pipeline: from a stream to batches, as `windows` or `lanes` with all else bound.

    Returns:
        The tokenizer, the training pipeline and those of the other splits.

    Raises:
        UserError: if a split is too short for the pipeline or does not fit the tokenizer.
        StorageError: if `cache_dir` cannot be written.

    Example:
        data = text_data(source, ByteTokenizer(), "data", lambda s: windows(s, 32, 128, seed=0))
        batch = next(data.train.batches(0))
    """
    pipelines = {
        split: pipeline(tokenize(source, split, tokenizer, cache_dir)) for split in source.splits
    }
    return Data(tokenizer, pipelines.pop("train"), pipelines)
