"""Text in, batches out: sources, tokenizers, token streams and pipelines. TensorFlow is not used.

A source becomes a stream of tokens, and a stream becomes batches:

    source = python_docs("data")
    tokenizer = ByteTokenizer()
    train = windows(tokenize(source, "train", tokenizer, "data"), batch=32, length=128, seed=0)
"""

from recattn_jax.data.builders import Documents, Source
from recattn_jax.data.pipelines import Batches, Data, Pipeline, lanes, windows
from recattn_jax.data.sources import prepared, python_docs, text_file, tiny_shakespeare
from recattn_jax.data.stream import TokenStream, tokenize
from recattn_jax.data.texts import text_data, token_batch
from recattn_jax.data.tokenizers import (
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    load_tokenizer,
    save_tokenizer,
)

__all__ = [
    "Batches",
    "ByteTokenizer",
    "CharTokenizer",
    "Data",
    "Documents",
    "Pipeline",
    "Source",
    "TokenStream",
    "Tokenizer",
    "lanes",
    "load_tokenizer",
    "prepared",
    "python_docs",
    "save_tokenizer",
    "text_data",
    "text_file",
    "tiny_shakespeare",
    "token_batch",
    "tokenize",
    "windows",
]
