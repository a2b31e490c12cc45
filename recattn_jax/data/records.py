"""Records, the examples of every source.

A record maps field names to strings and lists of strings:

    {"text": ..., "name": ...}                      plain text
    {"text": ..., "label": ...}                     labelled text
    {"tokens": [...], "tags": [...]}                tagged text; with an intent, also "label"
    {"source": ..., "targets": [..., ...]}          a text and what it becomes, in one or more ways
"""

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]
