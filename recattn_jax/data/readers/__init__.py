"""Readers, one file a format: from files to a `Source` of text, series, sound or video."""

from recattn_jax.data.readers.columns import conll
from recattn_jax.data.readers.files import find_file
from recattn_jax.data.readers.frames import labelled_frames
from recattn_jax.data.readers.intents import intent_slots
from recattn_jax.data.readers.parallel import parallel_text
from recattn_jax.data.readers.prepared import prepared_records
from recattn_jax.data.readers.scan import scan
from recattn_jax.data.readers.series import image_rows, labelled_series
from recattn_jax.data.readers.sst import sst
from recattn_jax.data.readers.summaries import summaries
from recattn_jax.data.readers.table import later, recent, table
from recattn_jax.data.readers.trec import trec
from recattn_jax.data.readers.tsv import labelled_tsv
from recattn_jax.data.readers.waves import labelled_waves, transcribed_waves, transcripts
from recattn_jax.data.readers.word_text import word_text

__all__ = [
    "conll",
    "find_file",
    "image_rows",
    "intent_slots",
    "labelled_frames",
    "labelled_series",
    "labelled_tsv",
    "labelled_waves",
    "later",
    "parallel_text",
    "prepared_records",
    "recent",
    "scan",
    "sst",
    "summaries",
    "table",
    "transcribed_waves",
    "transcripts",
    "trec",
    "word_text",
]
