"""Small data of our own, in the layout that each experiment reads."""

import io
import json
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

VERSE = "To be, or not to be: that is the question.\n" * 30
Files = Mapping[str, str | bytes]


def labelled() -> Files:
    lines = [f"text {n} is {label}\t{label}" for n in range(20) for label in ("good", "bad")]
    return {"train.tsv": "\n".join(["text\tlabel", *lines])}


def treebank() -> Files:
    lines = [f"{n % 2} film {n} is {('bad', 'good')[n % 2]} ." for n in range(24)]
    return {f"stsa.binary.{part}": "\n".join(lines) for part in ("train", "dev", "test")}


def questions() -> Files:
    labels = ("ABBR:exp", "DESC:def", "ENTY:animal", "HUM:ind", "LOC:city", "NUM:date")
    lines = "\n".join(f"{label} What is {n} ?" for n in range(8) for label in labels)
    return {"train_5500.label": lines, "TREC_10.label": lines}


def columns(tags: int, names: tuple[str, ...]) -> Files:
    """Words with `tags` different tags, O among them."""
    kinds = [f"{mark}-kind{n}" for n in range(tags // 2) for mark in "BI"]
    words = [f"word{n}\t{tag}" for n, tag in enumerate(kinds)]
    texts = "\n\n".join("\n".join([f"say{n}\tO", *words]) for n in range(16))
    return dict.fromkeys(names, texts + "\n")


def commands(intents: int, tags: int) -> Files:
    """As many intents and, all together, as many tags, O among them."""
    slots = [f"slot{n}" for n in range((tags - 1) // 2)]
    # An odd number of tags has every B- and I-; an even one lacks the last I-.
    pieces: list[dict[str, str]] = [{"text": "now "}]
    pieces += [{"text": f"two {slot} ", "entity": slot} for slot in slots]
    pieces += [{"text": "one ", "entity": "last"}] if tags % 2 == 0 else []
    files: dict[str, str | bytes] = {}
    for n in range(intents):
        examples = [
            {"data": [{"text": f"do {n} {k} "}, *(pieces if k == 0 else pieces[:2])]}
            for k in range(40)
        ]
        # Equal commands would all be held out together.
        examples += [{"data": [{"text": f"{k}{n} "}, *pieces]} for k in range(3)]
        files[f"train_I{n}_full.json"] = json.dumps({f"I{n}": examples})
        files[f"validate_I{n}.json"] = json.dumps({f"I{n}": examples[:3]})
    return files


def translations() -> Files:
    names = {"train": 80, "val": 8, "test_2016_flickr": 8}
    files: dict[str, str | bytes] = {}
    for name, count in names.items():
        for language, words in {"de": "ein Hund und noch", "en": "a dog and then"}.items():
            lines = [f"{words} {n}." for n in range(count)]
            files[f"{name}.{language}"] = "\n".join(lines) + "\n"
    return files


def navigation() -> Files:
    words = [
        "walk",
        "look",
        "run",
        "jump",
        "turn",
        "left",
        "right",
        "opposite",
        "around",
        "twice",
        "thrice",
        "and",
        "after",
    ]
    actions = ["I_WALK", "I_LOOK", "I_RUN", "I_JUMP", "I_TURN_LEFT", "I_TURN_RIGHT"]
    lines = [
        f"IN: {word} {other} OUT: {' '.join(actions[: 1 + n % 6])} {actions[k % 6]}"
        for n, word in enumerate(words)
        for k, other in enumerate(words)
    ]
    return {f"tasks_{part}_simple.txt": "\n".join(lines) for part in ("train", "test")}


def abstracts() -> Files:
    lines = [
        json.dumps({"source": [f"We study {n} cats.", "They sleep."], "target": [f"{n} cats."]})
        for n in range(40)
    ]
    return dict.fromkeys(("train.jsonl", "dev.jsonl", "test.jsonl"), "\n".join(lines))


def running_words() -> Files:
    text = "".join(f" word{n % 19} and word{n % 7} \n" for n in range(200))
    return dict.fromkeys(("train.txt", "valid.txt", "test.txt"), text)


def pair_of_files() -> Files:
    files = translations()
    return {"a.de": files["train.de"], "a.en": files["train.en"]}


def cases(classes: int, features: int) -> Files:
    """Series of unequal lengths."""
    head = f"@classLabel true {' '.join(str(1 + n) for n in range(classes))}\n@data\n"
    lines = [
        ":".join(",".join([f"{n}.{f}", *["0"] * (n % 3)]) for f in range(features)) + f":{1 + n}"
        for n in range(classes)
    ]
    return dict.fromkeys(
        ("JapaneseVowels_TRAIN.ts", "JapaneseVowels_TEST.ts"), head + "\n".join(lines * 4)
    )


def images() -> Files:
    lines = [",".join([*[str((n + k) % 17) for n in range(64)], str(k % 10)]) for k in range(40)]
    return dict.fromkeys(("optdigits.tra", "optdigits.tes"), "\n".join(lines))


def sound(samples: np.ndarray, rate: int = 8000) -> bytes:
    """A wav file of one channel."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as opened:
        opened.setparams((1, 2, rate, 0, "NONE", ""))
        opened.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def spoken() -> Files:
    """Ten tones, seven times each."""
    time = np.arange(1600) / 8000
    return {
        f"{digit}_who_{index}.wav": sound(9999 * np.sin((1 + index + 70 * digit) * 9 * time))
        for digit in range(10)
        for index in range(7)
    }


def sounds() -> Files:
    """Two folders of tones."""
    tones = {"low": 0.1, "high": 0.4}
    return {
        f"{name}/{n}.wav": sound((900 + n) * np.sin(tone * np.arange(2000)), 16_000)
        for name, tone in tones.items()
        for n in range(8)
    }


def said() -> Files:
    """Two folders of tones, and a text for each."""
    files = {f"sounds/{name}": content for name, content in sounds().items()}
    lines = [f"{name}\t{'oh' if 'low' in name else 'eee'}" for name in sounds()]
    return files | {"texts.tsv": "\n".join(lines)}


def video() -> Files:
    """Eight people, each of whom does everything once, for two frames or three."""
    lengths = [2 + n % 2 for n in range(8 * 27)]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        frames=np.arange(sum(lengths) * 900, dtype=np.uint8).reshape(-1, 30, 30),
        offsets=np.cumsum([0, *lengths]),
        action=np.arange(8 * 27) % 27,
        subject=1 + np.arange(8 * 27) // 27,
    )
    return {"depth.npz": buffer.getvalue()}


def films() -> bytes:
    """Eight recordings of two kinds, of two frames or three, in colour."""
    lengths = [2 + n % 2 for n in range(8)]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        frames=np.arange(sum(lengths) * 900, dtype=np.uint8).reshape(-1, 10, 30, 3),
        offsets=np.cumsum([0, *lengths]),
        label=np.arange(8) % 2,
        group=np.arange(8) // 4,
    )
    return buffer.getvalue()


def hours() -> Files:
    """Two years of seven measurements an hour, the same every day."""
    start = np.datetime64("2016-07-01T00:00:00")
    lines = [
        f"{start + np.timedelta64(hour, 'h')},{','.join(str(hour * k % 24) for k in range(7))}"
        for hour in range(600 * 24)
    ]
    return {"ETTh1.csv": "\n".join(["date,a,b,c,d,e,f,g", *lines])}


def measurements() -> Files:
    lines = [f"{np.datetime64('2020-01-01') + day},{day % 7}" for day in range(1400)]
    return {"a.csv": "\n".join(["date,value", *lines])}


# By experiment: its files, and the config keys that name them ("" is their folder).
STAND_INS: dict[str, tuple[Callable[[], Files], dict[str, str]]] = {
    "classify": (labelled, {"train": "train.tsv"}),
    "classify_frames": (lambda: {"a.npz": films()}, {"path": "a.npz"}),
    "classify_series": (
        lambda: {"a.ts": cases(2, 1)["JapaneseVowels_TRAIN.ts"]},
        {"train": "a.ts"},
    ),
    "classify_waves": (sounds, {"path": ""}),
    "etth1": (hours, {"path": "ETTh1.csv"}),
    "forecast": (measurements, {"path": "a.csv"}),
    "japanese_vowels": (lambda: cases(9, 12), {"folder": ""}),
    "multi30k": (translations, {"folder": ""}),
    "optdigits": (images, {"folder": ""}),
    "s0": (treebank, {"folder": ""}),
    "s0_joined": (lambda: {"input.txt": VERSE}, {"folder": ""}),
    "s1": (lambda: commands(7, 72), {"folder": ""}),
    "s1_dense": (lambda: commands(7, 72), {"folder": ""}),
    "s2": (navigation, {"folder": ""}),
    "s3": (lambda: {"input.txt": VERSE}, {"folder": ""}),
    "s4": (treebank, {"folder": ""}),
    "scan": (navigation, {"folder": ""}),
    "scitldr": (abstracts, {"folder": ""}),
    "shakespeare": (lambda: {"input.txt": VERSE}, {"folder": ""}),
    "snips": (lambda: commands(7, 72), {"folder": ""}),
    "spell_digits": (spoken, {"path": ""}),
    "spoken_digits": (spoken, {"path": ""}),
    "sst2": (treebank, {"folder": ""}),
    "tag": (lambda: columns(3, ("train.conll",)), {"train": "train.conll"}),
    "text": (lambda: {"a.txt": VERSE}, {"text": "a.txt"}),
    "transcribe": (said, {"path": "sounds", "transcripts": "texts.tsv"}),
    "translate": (pair_of_files, {"source": "a.de", "target": "a.en"}),
    "trec": (questions, {"folder": ""}),
    "utd_mhad": (video, {"path": "depth.npz"}),
    "wikitext2": (running_words, {"folder": ""}),
    "wnut17": (
        lambda: columns(13, ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")),
        {"folder": ""},
    ),
}


def stand_in(experiment: str, folder: Path) -> dict[str, Any]:
    """Writes the data of an experiment; returns what its config must say of them."""
    files, keys = STAND_INS[experiment]
    for name, content in files().items():
        data = content.encode("utf-8") if isinstance(content, str) else content
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return {key: str(folder / name) for key, name in keys.items()}
