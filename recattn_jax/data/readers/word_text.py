"""Running text whose words are separated by spaces, in the layout of WikiText."""

import re
from collections.abc import Mapping, Sequence

from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import CARVED, File, Path, open_files
from recattn_jax.data.records import Content, Record, Source
from recattn_jax.errors import UserError


class RecattnWordText(RecordsBuilder):
    """Running text, its words separated by spaces."""

    about = "Running text whose words are separated by spaces."
    fields = {"text": str}


def word_text(paths: Mapping[str, Path], data_dir: Path, validation: float = CARVED) -> Source:
    r"""Running text, a document a split, as word language models are compared on.

    Words are separated by spaces and <unk> stands for rare ones; a line's end counts as a word (it
    is often written <eos>). `WordTokenizer.of(..., spaced=True)` reads it so.

    Args:
        paths: a UTF-8 file a split, "train" among them; packed where the name ends in .gz.
        data_dir: where prepared sets are kept.
        validation: the share of "train", its last lines, that becomes "validation" where `paths`
            has none; 0: no such split.

    Returns:
        One record of "text" a split.

    Raises:
        UserError: names file, line and fault.
        StorageError: if `data_dir` cannot be written.

    >>> from pathlib import Path
    >>> _ = Path("train.txt").write_text("to be or\\nnot <unk>\\n")
    >>> word_text({"train": "train.txt"}, "data", validation=0.0).texts("train")[0]
    'to be or\\nnot <unk>\\n'

    Source: the layout of Merity et al., "Pointer sentinel mixture models", arXiv 1609.07843, 2016.
    """
    ways = {split: [path] for split, path in paths.items()}
    return open_files(RecattnWordText, ways, _records, data_dir, validation, carve=_carved)


def _records(files: Sequence[File]) -> list[Record]:
    return [{"text": files[0].text()}]


def _carved(splits: Content, share: float, where: str) -> Content:
    """Returns the splits, with the last lines of "train" as "validation" where there is none."""
    if "validation" in splits or share == 0:
        return splits
    lines = re.findall(r".*\n|.+", splits["train"][0]["text"])  # LF alone ends a line
    cut = len(lines) - max(1, round(share * len(lines)))
    parts = {"train": lines[:cut], "validation": lines[cut:]}
    if not 0 < share < 1 or not all("".join(part).strip() for part in parts.values()):
        raise UserError(
            f"{where}: a share of {share} of {len(lines)} lines cannot be carved off for "
            "validation; give more text, another share, or a validation split"
        )
    carved = {split: [{"text": "".join(part)}] for split, part in parts.items()}
    return {**carved, **{split: splits[split] for split in splits if split != "train"}}
