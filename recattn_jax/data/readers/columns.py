"""Words with a tag each, in the columns of the CoNLL tasks."""

import re
from collections.abc import Iterator, Mapping, Sequence

from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import CARVED, File, Path, open_files
from recattn_jax.data.records import TAGGED, Record, Source

_TAG = re.compile(r"O|([BI])-(\S+)")
# Stands between the articles of the CoNLL-2003 files, as a sentence of its own.
_ARTICLE = "-DOCSTART-"


class RecattnConll(RecordsBuilder):
    """Words with a tag each."""

    about = "Words with IOB2 tags, from columns."
    fields = TAGGED


def conll(paths: Mapping[str, Path], data_dir: Path, validation: float = CARVED) -> Source:
    r"""One word a line, its tag in the last column, and an empty line between texts.

    Columns are separated by tabs, or by white space in a line that has no tab; those between the
    word and its tag are not read. Tags are IOB2: B-x begins an entity of type x, I-x continues it,
    O is outside. Lines that say -DOCSTART- only separate texts.

    Args:
        paths: a UTF-8 file a split, "train" among them; packed where the name ends in .gz.
        data_dir: where prepared sets are kept.
        validation: the share of "train" that becomes "validation" where `paths` has none; 0: no
            such split.

    Returns:
        Records of "tokens" and "tags", of one length.

    Raises:
        UserError: names file, line and fault: another number of columns than before, a tag of
            another shape, an I- tag that does not continue its entity, not UTF-8, a cut file.
        StorageError: if `data_dir` cannot be written.

    >>> from pathlib import Path
    >>> _ = Path("train.conll").write_text("in\tO\nRome\tB-place\n\noh\tO\n")
    >>> conll({"train": "train.conll"}, "data", validation=0.0).splits["train"][0]["tags"]
    ['O', 'B-place']

    Source: Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 shared task", 2003.
    """

    def parse(files: Sequence[File]) -> list[Record]:
        return list(_records(files[0]))

    ways = {split: [path] for split, path in paths.items()}
    return open_files(RecattnConll, ways, parse, data_dir, validation)


def _records(file: File) -> Iterator[Record]:
    tokens: list[str] = []
    tags: list[str] = []
    width = 0
    found = 0
    # The last text may end with the file.
    for number, line in enumerate([*file.lines(), ""], 1):
        if line.strip():
            columns = line.split("\t") if "\t" in line else line.split()
            width = width or len(columns)
            tokens.append(columns[0].strip())
            tags.append(_tag(file, number, columns, width, tags))
        elif tokens:
            if tokens != [_ARTICLE]:
                found += 1
                yield {"tokens": tokens, "tags": tags}
            tokens, tags = [], []
    if not found:
        file.fault(1, "no text with words and tags is in this file")


def _tag(file: File, number: int, columns: Sequence[str], width: int, before: Sequence[str]) -> str:
    """Returns the tag of a line, checked against the lines before it."""
    if len(columns) != width or width < 2:
        expected = f"{width} columns, as in the first line" if width > 1 else "at least 2 columns"
        file.fault(number, f"expected {expected}, found {len(columns)}")
    if not columns[0].strip():
        file.fault(number, "the first column, the word, is empty")
    tag = columns[-1].strip()
    shape = _TAG.fullmatch(tag)
    if shape is None:
        file.fault(number, f"tag {tag!r} is none of O, B-type and I-type")
    previous = before[-1] if before else "O"
    if shape[1] == "I" and previous not in (f"B-{shape[2]}", f"I-{shape[2]}"):
        file.fault(
            number,
            f"tag {tag!r} does not continue an entity, as the tag before it is {previous!r}; "
            f"an entity begins with B-{shape[2]} (IOB2)",
        )
    return tag
