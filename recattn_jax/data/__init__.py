"""Text in, batches out: sources, tokenizers, token streams and pipelines. TensorFlow is not used.

A source holds records; text becomes a stream of tokens, and a stream becomes batches:

    source = python_docs("data")
    tokenizer = ByteTokenizer()
    rows = lambda stream, host, hosts: windows(stream, 32, 128, 0, host, hosts)
    data = text_data(source, tokenizer, "data", rows)

Records, such as texts with labels, become examples, and examples become batches:

    make = functools.partial(text_examples, length=64)
    rows = lambda examples, host, hosts: bucketed(examples, 32, (16, 64), 0, host, hosts)
    data = record_data(source.splits, source.summary(), vocabularies, make, rows)
"""

from recattn_jax.data.examples import (
    pair_examples,
    record_data,
    series_examples,
    tagged_examples,
    text_examples,
    transcribed_examples,
)
from recattn_jax.data.forecasts import (
    Stretch,
    forecast_batch,
    forecast_data,
    forecast_windows,
)
from recattn_jax.data.generated import adding, adding_batch, generated, problem_batch
from recattn_jax.data.kinds import (
    PAIRS,
    TAGGED,
    TAGGED_AND_LABELLED,
    TEXT,
    TRANSCRIBED,
    Examples,
    Kind,
)
from recattn_jax.data.pipelines import (
    Batches,
    Data,
    Pipeline,
    Spec,
    lanes,
    token_batch,
    windows,
)
from recattn_jax.data.readers import (
    conll,
    find_file,
    image_rows,
    intent_slots,
    labelled_frames,
    labelled_series,
    labelled_tsv,
    labelled_waves,
    later,
    parallel_text,
    prepared_records,
    recent,
    scan,
    sst,
    summaries,
    table,
    transcribed_waves,
    transcripts,
    trec,
    word_text,
)
from recattn_jax.data.records import Record, Source
from recattn_jax.data.rows import balanced, bucketed, packed
from recattn_jax.data.sources import prepared, python_docs, text_file, tiny_shakespeare
from recattn_jax.data.spelling import spell
from recattn_jax.data.steps import Measurements, Motion, Spectra, Steps
from recattn_jax.data.stream import TokenStream, tokenize
from recattn_jax.data.texts import text_data
from recattn_jax.data.tokenizers import (
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
)
from recattn_jax.data.vocabularies import (
    Labels,
    SubwordTokenizer,
    Vocabulary,
    WordTokenizer,
    load_vocabularies,
    save_vocabularies,
)
from recattn_jax.data.word_features import WordFeatureTokenizer
from recattn_jax.data.words import join_words, split_words

__all__ = [
    "Batches",
    "ByteTokenizer",
    "CharTokenizer",
    "Data",
    "Examples",
    "Kind",
    "Labels",
    "Measurements",
    "Motion",
    "PAIRS",
    "Pipeline",
    "Record",
    "Source",
    "Spec",
    "Spectra",
    "Steps",
    "Stretch",
    "SubwordTokenizer",
    "TAGGED",
    "TAGGED_AND_LABELLED",
    "TEXT",
    "TRANSCRIBED",
    "TokenStream",
    "Tokenizer",
    "Vocabulary",
    "WordFeatureTokenizer",
    "WordTokenizer",
    "adding",
    "adding_batch",
    "balanced",
    "bucketed",
    "conll",
    "find_file",
    "forecast_batch",
    "forecast_data",
    "forecast_windows",
    "generated",
    "image_rows",
    "intent_slots",
    "labelled_frames",
    "labelled_series",
    "join_words",
    "labelled_tsv",
    "labelled_waves",
    "lanes",
    "later",
    "load_vocabularies",
    "packed",
    "pair_examples",
    "parallel_text",
    "prepared",
    "prepared_records",
    "problem_batch",
    "python_docs",
    "recent",
    "record_data",
    "save_vocabularies",
    "scan",
    "series_examples",
    "spell",
    "split_words",
    "sst",
    "summaries",
    "table",
    "tagged_examples",
    "text_data",
    "text_examples",
    "text_file",
    "tiny_shakespeare",
    "token_batch",
    "tokenize",
    "transcribed_examples",
    "transcribed_waves",
    "transcripts",
    "trec",
    "windows",
    "word_text",
]
