"""Two files, one the translation of the other, line by line."""

from collections.abc import Mapping, Sequence

from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import CARVED, File, Path, open_files
from recattn_jax.data.records import PAIRS, Record, Source


class RecattnParallelText(RecordsBuilder):
    """Sentences and their translations."""

    about = "Sentences and their translations, from two files with a sentence a line."
    fields = PAIRS


def parallel_text(
    paths: Mapping[str, tuple[Path, Path]], data_dir: Path, validation: float = CARVED
) -> Source:
    r"""Line k of one file is the translation of line k of the other.

    Args:
        paths: two UTF-8 files a split, the source and the target, "train" among them; packed where
            a name ends in .gz.
        data_dir: where prepared sets are kept.
        validation: the share of "train" that becomes "validation" where `paths` has none; 0: no
            such split.

    Returns:
        Records of "source" and "targets", a list of one.

    Raises:
        UserError: names file, line and fault: an empty line, a file that ends before the other, not
            UTF-8, a cut file.
        StorageError: if `data_dir` cannot be written.

    >>> from pathlib import Path
    >>> _ = Path("train.it").write_text("ciao\n")
    >>> _ = Path("train.en").write_text("hello\n")
    >>> source = parallel_text({"train": ("train.it", "train.en")}, "data", validation=0.0)
    >>> source.splits["train"][0]["targets"]
    ['hello']
    """
    return open_files(RecattnParallelText, paths, _records, data_dir, validation)


def _records(files: Sequence[File]) -> list[Record]:
    sides = [file.lines() for file in files]
    lengths = [len(lines) for lines in sides]
    if lengths[0] != lengths[1]:
        short = lengths.index(min(lengths))
        files[short].fault(
            lengths[short],
            f"the file ends after {lengths[short]} lines, but {files[1 - short].path} has "
            f"{lengths[1 - short]}; they must be translations of each other, line by line",
        )
    for file, lines in zip(files, sides, strict=True):
        for number, line in enumerate(lines, 1):
            if not line.strip():
                file.fault(number, "an empty line; leave it out, in both files")
    return [
        {"source": source.strip(), "targets": [target.strip()]}
        for source, target in zip(*sides, strict=True)
    ]
