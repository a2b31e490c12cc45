"""Text in, batches out: sources, tokenizers, token streams and pipelines. TensorFlow is not used.

A source becomes a stream of tokens, and a stream becomes batches:

    source = python_docs("data")
    tokenizer = ByteTokenizer()
    rows = lambda stream, host, hosts: windows(stream, 32, 128, 0, host, hosts)
    data = text_data(source, tokenizer, "data", rows)
"""

from recattn_jax.data.builders import Documents, Source
from recattn_jax.data.pipelines import Batches, Data, Pipeline, lanes, token_batch, windows
from recattn_jax.data.sources import prepared, python_docs, text_file, tiny_shakespeare
from recattn_jax.data.stream import TokenStream, tokenize
from recattn_jax.data.texts import text_data
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
