"""Texts and their summaries, an object of JSON a line."""

from collections.abc import Mapping, Sequence
from typing import Any

from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import CARVED, File, Path, open_files, parsed_json
from recattn_jax.data.records import PAIRS, Record, Source


class RecattnSummaries(RecordsBuilder):
    """Texts and their summaries."""

    about = "Texts and their summaries, from JSON lines."
    fields = PAIRS


def summaries(paths: Mapping[str, Path], data_dir: Path, validation: float = CARVED) -> Source:
    """Texts and summaries; a line is {"source": [sentence, ...], "target": [summary, ...], ...}.

    Either may also be a single string; empty sentences are left out; other keys are not read.

    Args:
        paths: a UTF-8 file a split, "train" among them; packed where the name ends in .gz.
        data_dir: where prepared sets are kept.
        validation: the share of "train" that becomes "validation" where `paths` has none; 0: no
            such split.

    Returns:
        Records of "source", the sentences joined by spaces, and "targets", one or more summaries.

    Raises:
        UserError: names file, line and fault: broken JSON, a missing or empty key, not UTF-8.
        StorageError: if `data_dir` cannot be written.

    >>> from pathlib import Path
    >>> _ = Path("train.jsonl").write_text('{"source": ["To be.", "Or not."], "target": "To be?"}')
    >>> summaries({"train": "train.jsonl"}, "data", validation=0.0).splits["train"][0]["targets"]
    ['To be?']

    Source: the layout of Cachola et al., "TLDR: extreme summarization of scientific documents",
    arXiv 2004.15011, 2020.
    """
    ways = {split: [path] for split, path in paths.items()}
    return open_files(RecattnSummaries, ways, _records, data_dir, validation)


def _records(files: Sequence[File]) -> list[Record]:
    file = files[0]
    records: list[Record] = []
    for number, line in enumerate(file.lines(), 1):
        found = parsed_json(file, number, line)
        if not isinstance(found, dict):
            file.fault(number, f"expected an object of JSON, found {line!r:.60}")
        source = " ".join(text for text in _strings(file, number, found, "source") if text)
        targets = _strings(file, number, found, "target")
        if not source or not all(targets):
            file.fault(number, f"an empty {'target' if source else 'source'}")
        records.append({"source": source, "targets": targets})
    return records


def _strings(file: File, number: int, found: Mapping[str, Any], key: str) -> list[str]:
    value = found.get(key)
    strings = [value] if isinstance(value, str) else value
    if not (isinstance(strings, list) and strings and all(isinstance(s, str) for s in strings)):
        file.fault(
            number, f"expected {key!r} with a string or a list of strings, found {value!r:.60}"
        )
    return [each.strip() for each in strings]
