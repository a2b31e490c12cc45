"""Every reader of files, with valid files of its own: what a fuzzer damages."""

import dataclasses
import functools
import gzip
import io
import lzma
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recattn_jax import data as d
from recattn_jax.data.steps import Measurements, Spectra
from recattn_jax.data.vocabularies import load_vocabularies, save_vocabularies
from tests import stand_ins

Files = Mapping[str, bytes]


@dataclasses.dataclass(frozen=True)
class Reader:
    """A way to read files.

    Args:
        covers: the functions of `data` that it calls.
        files: valid ones, by name.
        read: from the folder of the files, and one for prepared data.
    """

    covers: tuple[str, ...]
    files: Callable[[], Files]
    read: Callable[[Path, Path], Any]


def some(files: Callable[[], stand_ins.Files], most: int = 8) -> Callable[[], Files]:
    """The first few of them, as bytes."""

    @functools.cache
    def made() -> Files:
        names = sorted(files())[:most]
        content = {name: files()[name] for name in names}
        return {n: c.encode() if isinstance(c, str) else c for n, c in content.items()}

    return made


def lines(name: str, text: str) -> Callable[[], Files]:
    return lambda: {name: text.encode()}


@functools.cache
def archive() -> Files:
    """Sounds in a tar archive, packed in three ways."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name in stand_ins.sounds():
            member = tarfile.TarInfo(name)
            member.size = 1000
            tar.addfile(member, io.BytesIO(stand_ins.sound(np.arange(478), 16_000)))
    whole = plain.getvalue()
    return {"a.tar": whole, "a.tar.gz": gzip.compress(whole), "a.tar.xz": lzma.compress(whole)}


def archived(name: str) -> Reader:
    return Reader(
        ("labelled_waves",),
        lambda: {name: archive()[name]},
        lambda folder, data: d.labelled_waves(folder / name, data, 16_000),
    )


def few_sounds() -> stand_ins.Files:
    return {
        f"{name}/{n}.wav": stand_ins.sound(np.arange(50 + n), 16_000)
        for name in ("low", "high")
        for n in range(3)
    }


def few_said() -> stand_ins.Files:
    texts = "\n".join(f"{name}\tsaid {name[:3]}" for name in few_sounds())
    return {**{f"sounds/{name}": c for name, c in few_sounds().items()}, "texts.tsv": texts}


@functools.cache
def prepared() -> Files:
    """What TFDS made of a small set, below its folder."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "a.tsv").write_text(str(stand_ins.labelled()["train.tsv"]))
        source = d.labelled_tsv({"train": folder / "a.tsv"}, folder / "data", "text", "label")
        of = folder / "data" / source.name / "1.0.0"
        return {path.name: path.read_bytes() for path in sorted(of.iterdir())}


@functools.cache
def vocabularies() -> Files:
    texts = ["the cat sat on the mat", "cafe\u0301 \U0001f600 other words", "more of them"] * 5
    words = [text.split() for text in texts]
    scale = Measurements((0.0, 1.0), (1.0, 2.0))
    made = {
        "byte": d.ByteTokenizer(),
        "char": d.CharTokenizer.of(texts),
        "word": d.WordTokenizer.of(texts, 10, lowercase=True),
        "subword": d.SubwordTokenizer.of(texts, 300, lowercase=False),
        "features": d.WordFeatureTokenizer.of_words(sum(words, []), 50, most=5),
        "label": d.Labels(("a", "b")),
        "series": scale,
        "motion": d.Motion(scale),
        "sound": Spectra(8000, 200, 80, scale),
    }
    with tempfile.TemporaryDirectory() as place:
        save_vocabularies(made, Path(place) / "v.json")
        return {"vocabularies.json": (Path(place) / "v.json").read_bytes()}


def use_vocabularies(folder: Path, data: Path) -> None:
    """Loads them, and uses each as far as it goes."""
    for vocabulary in load_vocabularies(folder / "vocabularies.json").values():
        vocabulary.to_json()
        if isinstance(vocabulary, d.Tokenizer):
            ids = vocabulary.encode("the cat")
            vocabulary.decode(ids)


def forecast(folder: Path, data: Path) -> Any:
    file = folder / "a.csv"  # which the shell would open
    _, times, values = d.recent(file.read_bytes() if file.is_file() else b"", ["value"], 20)
    return d.later(times, 5), values


def from_lines(folder: Path, data: Path) -> None:
    """Series and sounds as people give them to `launch.generate`."""
    file = folder / "lines.txt"  # which the shell would open
    text = file.read_bytes().decode("utf-8", "replace") if file.is_file() else ""
    for line in text.removesuffix("\n").split("\n")[:5]:
        Measurements((0.0, 0.0), (1.0, 1.0)).of_line(line)
    Spectra(16_000, 40, 40, Measurements((0.0,), (1.0,))).of_line(str(folder / "a.wav"))


def by_split(call: Callable[..., Any], name: str, *more: Any, **named: Any) -> Callable:
    return lambda folder, data: call({"train": folder / name}, data, *more, **named)


def in_folder(call: Callable[..., Any], *more: Any, **named: Any) -> Callable:
    return lambda folder, data: call(folder, data, *more, **named)


def table(folder: Path, data: Path) -> Any:
    cut = {"train": 100, "validation": "2020-05-01", "test": 50}
    return d.table(folder / "a.csv", data, "date", cut)


def films(folder: Path, data: Path) -> Any:
    return d.labelled_frames(folder / "a.npz", data, "frames", "label", "group", {"test": (1,)})


def sounds_with_text(folder: Path, data: Path) -> Any:
    texts = d.transcripts(folder / "texts.tsv")
    return d.transcribed_waves(folder / "sounds", data, 16_000, texts)


def text(folder: Path, data: Path) -> Any:
    return d.text_file([f"{folder}/*.txt"], data, 0.1, 0.1)


def pair(folder: Path, data: Path) -> Any:
    return d.parallel_text({"train": (folder / "a.de", folder / "a.en")}, data)


def packed(folder: Path, data: Path) -> Any:
    return d.labelled_tsv({"train": folder / "train.tsv.gz"}, data, text="text", label="label")


READERS: Mapping[str, Reader] = {
    **{f"archive {name}": archived(name) for name in ("a.tar", "a.tar.gz", "a.tar.xz")},
    "columns": Reader(
        ("conll",),
        some(lambda: stand_ins.columns(5, ("a.conll",))),
        by_split(d.conll, "a.conll"),
    ),
    "films": Reader(("labelled_frames",), lambda: {"a.npz": stand_ins.films()}, films),
    "images": Reader(
        ("image_rows",), some(stand_ins.images, 1), by_split(d.image_rows, "optdigits.tes", rows=8)
    ),
    "intents": Reader(
        ("intent_slots",), some(lambda: stand_ins.commands(2, 5)), in_folder(d.intent_slots)
    ),
    "lines": Reader(
        (),
        lambda: {
            "lines.txt": b"1,2:3,4\n5,6,7:8,9,10\n0:0\n",
            "a.wav": stand_ins.sound(np.arange(500), 16_000),
        },
        from_lines,
    ),
    "packed": Reader(
        ("labelled_tsv",),
        lambda: {"train.tsv.gz": gzip.compress(str(stand_ins.labelled()["train.tsv"]).encode())},
        packed,
    ),
    "pairs": Reader(("parallel_text",), some(stand_ins.pair_of_files), pair),
    "prepared": Reader(
        ("prepared_records",),
        prepared,
        lambda folder, data: d.prepared_records(folder, {"text": "text", "label": "label"}),
    ),
    "prepared text": Reader(
        ("prepared",),
        prepared,
        lambda folder, data: list(d.prepared(folder, "text").texts("train")),
    ),
    "recent": Reader(("recent", "later"), some(stand_ins.measurements), forecast),
    "scan": Reader(
        ("scan",), some(stand_ins.navigation), by_split(d.scan, "tasks_train_simple.txt")
    ),
    "series": Reader(
        ("labelled_series",),
        lines("a.ts", str(stand_ins.cases(2, 2)["JapaneseVowels_TRAIN.ts"])),
        by_split(d.labelled_series, "a.ts"),
    ),
    "sounds": Reader(("labelled_waves",), some(few_sounds), in_folder(d.labelled_waves, 16_000)),
    "sst": Reader(("sst", "find_file"), some(stand_ins.treebank), in_folder(d.sst, 2)),
    "summaries": Reader(
        ("summaries",), some(stand_ins.abstracts), by_split(d.summaries, "train.jsonl")
    ),
    "table": Reader(("table",), some(stand_ins.measurements), table),
    "text": Reader(
        ("text_file",),
        lambda: {f"{n}.txt": f"{stand_ins.VERSE}{n}".encode() for n in range(4)},
        text,
    ),
    "transcribed": Reader(("transcribed_waves", "transcripts"), some(few_said), sounds_with_text),
    "trec": Reader(("trec", "find_file"), some(stand_ins.questions), in_folder(d.trec, fine=True)),
    "tsv": Reader(
        ("labelled_tsv",),
        some(stand_ins.labelled),
        by_split(d.labelled_tsv, "train.tsv", text="text", label="label"),
    ),
    "verse": Reader(
        ("tiny_shakespeare",),
        lambda: {"input.txt": stand_ins.VERSE.encode()},
        lambda folder, data: d.tiny_shakespeare(data, folder),
    ),
    "vocabularies": Reader((), vocabularies, use_vocabularies),
    "words": Reader(
        ("word_text",), some(stand_ins.running_words), by_split(d.word_text, "train.txt")
    ),
}
