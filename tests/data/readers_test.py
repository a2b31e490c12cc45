"""Every reader on small files of its layout: good ones, and each fault with its place."""

import gzip
import json
import re
import shutil

import pytest

from recattn_jax.data import (
    conll,
    intent_slots,
    labelled_tsv,
    parallel_text,
    prepared_records,
    scan,
    sst,
    summaries,
    trec,
    word_text,
)
from recattn_jax.errors import UserError


def written(folder, files):
    """Writes files, gzipped where the name says so; returns the folder."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def records(source):
    return {split: [dict(record) for record in rows] for split, rows in source.splits.items()}


# One opener a format: a function of a folder, with files of these names.

TSV = "text\tid\tlabel\n"


def tsv(folder, data):
    return labelled_tsv({"train": folder / "train", "test": folder / "test"}, data, "text", "label")


def numbered_tsv(folder, data):
    return labelled_tsv({"train": folder / "train"}, data, 0, 1)


def binary_sst(folder, data):
    return sst(folder, data, 2)


def coarse_trec(folder, data):
    return trec(folder, data, fine=False)


def columns(folder, data):
    return conll({"train": folder / "train", "validation": folder / "dev"}, data)


def intents(folder, data):
    return intent_slots(folder, data)


def intents_of_one_file(folder, data):
    return intent_slots({"train": folder / "train"}, data)


def pairs(folder, data):
    return parallel_text({"train": (folder / "a.de.gz", folder / "a.en")}, data, validation=0.5)


def commands(folder, data):
    return scan({"train": folder / "train"}, data, validation=0.0)


def abstracts(folder, data):
    return summaries({"train": folder / "train", "validation": folder / "dev.gz"}, data)


def running_text(folder, data):
    return word_text({"train": folder / "train"}, data, validation=0.4)


def snips(*examples, intent="Play"):
    return json.dumps({intent: [{"data": pieces} for pieces in examples]})


SONG = [{"text": "Play "}, {"text": "the wall", "entity": "album"}, {"text": "'s best."}]
SSTS = {f"stsa.binary.{part}": "0 so bad .\n1 so good .\n" for part in ("train", "dev", "test")}
QUESTIONS = {
    "train_5500.label": b"NUM:date When ?\nHUM:ind Who is caf\xf0 ?\nHUM:ind Who ?\n",
    "TREC_10.label": "ABBR:exp What is ADN ?\n",
}
NER = "Bob\tNNP\tB-person\nDylan\tNNP\tI-person\nsang\tV\tO\n\nHi\tX\tO\n"


def test_labelled_tsv(tmp_path):
    files = {"train": TSV + "a b\t1\tx\r\n\u2028 c\t2\ty\r\nd\t3\tx", "test": TSV + "e\t4\tz\n"}
    source = tsv(written(tmp_path / "in", files), tmp_path / "data")
    found = records(source)
    assert found["test"] == [{"text": "e", "label": "z"}]
    carved = found["train"] + found["validation"]
    assert sorted((record["text"], record["label"]) for record in carved) == [
        ("a b", "x"),
        ("c", "y"),
        ("d", "x"),
    ]
    assert len(found["validation"]) == 1 and source.name.startswith("recattn_labelled_tsv_")


def test_columns_by_number(tmp_path):
    source = numbered_tsv(written(tmp_path, {"train": "\ufeffa\tx\nb\ty\n"}), tmp_path / "data")
    assert sum(records(source).values(), []) in (
        [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}],
        [{"text": "b", "label": "y"}, {"text": "a", "label": "x"}],
    )


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_sst(packed, tmp_path):
    files = {name + packed: text for name, text in SSTS.items()}
    source = binary_sst(written(tmp_path / "in", files), tmp_path / "data")
    rows = [{"text": "so bad .", "label": "negative"}, {"text": "so good .", "label": "positive"}]
    assert records(source) == {"train": rows, "validation": rows, "test": rows}
    assert source.classes == ("negative", "positive")


def test_sst_of_five_classes(tmp_path):
    files = {f"stsa.fine.{part}": "4 great\n3 good\n" for part in ("train", "dev", "test")}
    source = sst(written(tmp_path / "in", files), tmp_path / "data", 5)
    labels = [record["label"] for record in source.splits["train"]]
    assert labels == ["very positive", "positive"]
    assert source.missing == {"label": ["negative", "neutral", "very negative"]}
    with pytest.raises(UserError, match="expected 2 or 5, found 3"):
        sst(tmp_path / "in", tmp_path / "data", 3)


def test_trec(tmp_path, caplog):
    folder = written(tmp_path / "in", QUESTIONS)
    source = trec(folder, tmp_path / "data", fine=True, validation=0.3)
    assert len(source.splits["validation"]) == 1
    assert records(source)["test"] == [{"text": "What is ADN ?", "label": "ABBR:exp"}]
    source = trec(folder, tmp_path / "data", fine=False, validation=0.0)
    assert records(source)["train"] == [
        {"text": "When ?", "label": "NUM"},
        {"text": "Who is cafð ?", "label": "HUM"},
        {"text": "Who ?", "label": "HUM"},
    ]
    # A class that training lacks is said where people look.
    assert "label in train: HUM 2, NUM 1; label missing from train: ABBR, DESC," in source.summary()
    assert re.search("no training example .* ABBR \\(test\\), DESC \\(nowhere\\)", caplog.text)


def test_conll(tmp_path):
    files = {
        "train": "-DOCSTART- -X- O\n\n" + NER.replace("\t", " ") + " \t \nU.S. N B-place",
        "dev": NER,
    }
    found = records(columns(written(tmp_path / "in", files), tmp_path / "data"))
    first = {"tokens": ["Bob", "Dylan", "sang"], "tags": ["B-person", "I-person", "O"]}
    second = {"tokens": ["Hi"], "tags": ["O"]}
    assert found["validation"] == [first, second]
    assert found["train"] == [first, second, {"tokens": ["U.S."], "tags": ["B-place"]}]


def test_intents_in_a_folder(tmp_path):
    files = {
        "train_Play_full.json.gz": snips(SONG, [{"text": "Play"}]),
        "train_PlayMusic_full.json": snips([{"text": "X!"}], intent="PlayMusic")
        .encode()
        .replace(b"X", b"\xed\xa0\xbc\xed\xbd\x95"),
        "validate_Play.json": snips(SONG),
        "train_Play.json": "no file of ours",
    }
    folder = written(tmp_path / "in", files)
    found = records(intent_slots(folder, tmp_path / "data", validation=0.0))
    assert found["test"] == [
        {
            "tokens": ["Play", "the", "wall", "'", "s", "best", "."],
            "tags": ["O", "B-album", "I-album", "O", "O", "O", "O"],
            "label": "Play",
        }
    ]
    assert found["train"][1] == found["test"][0] and len(found["train"]) == 3
    assert found["train"][0] == {"tokens": ["🍕", "!"], "tags": ["O", "O"], "label": "PlayMusic"}


def test_parallel_text(tmp_path):
    files = {
        "a.de.gz": "Ein Haus.\nZwei \u2028 drei.\n",
        "a.en": " A house.\r\nTwo \x0c three.\r\n",
    }
    found = records(pairs(written(tmp_path, files), tmp_path / "data"))
    rows = [
        {"source": "Ein Haus.", "targets": ["A house."]},
        {"source": "Zwei \u2028 drei.", "targets": ["Two \x0c three."]},
    ]
    assert sorted(found["train"] + found["validation"], key=str) == rows


def test_scan(tmp_path):
    folder = written(tmp_path, {"train": "IN: walk twice OUT: I_WALK I_WALK\nIN: run OUT: I_RUN\n"})
    assert records(commands(folder, tmp_path / "data")) == {
        "train": [
            {"source": "walk twice", "targets": ["I_WALK I_WALK"]},
            {"source": "run", "targets": ["I_RUN"]},
        ]
    }


def test_summaries(tmp_path):
    lines = [
        {"source": ["One.", " ", "Two. "], "target": ["first", "second"], "title": 3},
        {"source": "Three\u2028", "target": "third"},
    ]
    text = "\n".join(map(json.dumps, lines))
    found = records(abstracts(written(tmp_path, {"train": text, "dev.gz": text}), tmp_path / "d"))
    assert found["validation"] == found["train"]
    assert found["train"] == [
        {"source": "One. Two.", "targets": ["first", "second"]},
        {"source": "Three", "targets": ["third"]},
    ]


def test_word_text(tmp_path):
    text = " \n = A <unk> = \n one @-@ two \u2028\n three\n four"
    source = running_text(written(tmp_path, {"train": text}), tmp_path / "data")
    assert list(source.texts("train")) == [" \n = A <unk> = \n one @-@ two \u2028\n"]
    assert list(source.texts("validation")) == [" three\n four"]


# What the readers do not take: one line says file, line and fault, and nothing is written.

LONG = gzip.compress("".join(f"zeile {i * i}\n" for i in range(20_000)).encode())
GOOD_TEST = {"test": TSV + "e\t4\tz\n"}
FAULTS = {
    "too few columns": (
        tsv,
        {"train": TSV + "a\t1\tx\nb\t2\n", **GOOD_TEST},
        r"train:3: expected 3 columns .* found 2",
    ),
    "too many columns": (numbered_tsv, {"train": "a\tx\nb\ty\tz\n"}, r"train:2: .* found 3"),
    "an empty line": (numbered_tsv, {"train": "a\tx\n\nb\ty\n"}, r"train:2: .* found 1"),
    "an empty class": (
        tsv,
        {"train": TSV + "a\t1\t \n", **GOOD_TEST},
        r"train:2: column 'label', the label, is empty",
    ),
    "an empty text": (numbered_tsv, {"train": "a\tx\n\ty\n"}, r"train:2: column 0, the text, is"),
    "no such column": (
        tsv,
        {"train": "sentence\tlabel\na\tx\n", **GOOD_TEST},
        r"train:1: expected one column named 'text', found 'sentence', 'label'",
    ),
    "no such number": (numbered_tsv, {"train": "a\nb\n"}, r"train:1: no column 1: there are 1"),
    "only a header": (tsv, {"train": TSV, **GOOD_TEST}, r"train:1: no examples"),
    "a fault in the last split": (
        tsv,
        {"train": TSV + "a\t1\tx\nb\t2\ty\n", "test": "text\tlabel\na\n"},
        r"test:2: expected 2 columns",
    ),
    "no file": (tsv, {"train": TSV + "a\t1\tx\n"}, r"test: cannot be read \(No such file"),
    "not UTF-8": (
        numbered_tsv,
        {"train": b"a\tx\nb\xff\ty\n"},
        r"train:2: not UTF-8 at byte 2 .*ff",
    ),
    "an empty file": (numbered_tsv, {"train": ""}, r"train:1: the file is empty"),
    "only white space": (numbered_tsv, {"train": " \n\n"}, r"train:1: the file is empty"),
    "an unknown class": (
        binary_sst,
        SSTS | {"stsa.binary.dev": "0 x\n2 y\n"},
        r"binary\.dev:2: expected a class 0 to 1",
    ),
    "no words": (binary_sst, SSTS | {"stsa.binary.dev": "0 \n"}, r"dev:1: expected a class"),
    "no such folder": (binary_sst, {}, r"in: holds neither stsa\.binary\.train nor .*\.gz"),
    "an unknown kind": (
        coarse_trec,
        QUESTIONS | {"TREC_10.label": "HUM:ind Who ?\nHUMAN:ind Who ?\n"},
        r"TREC_10\.label:2: expected KIND:kind with one of ABBR,",
    ),
    "no tag": (columns, {"train": NER, "dev": "Bob\tO\nDylan\n"}, r"dev:2: expected 2 columns.* 1"),
    "one column": (columns, {"train": "Bob\n\n", "dev": NER}, r"train:1: .* at least 2 columns"),
    "no word": (columns, {"train": NER + "\n\tX\tO\n", "dev": NER}, r"train:7: .*word, is empty"),
    "an unknown tag": (columns, {"train": NER, "dev": "Bob\tS-person\n"}, r"dev:1: tag 'S-person'"),
    "a tag without a type": (columns, {"train": "Bob\tB-\n", "dev": NER}, r"train:1: tag 'B-' is"),
    "I- after O": (
        columns,
        {"train": NER, "dev": "Hi\tO\nBob\tI-person\n"},
        r"dev:2: tag 'I-person' does not continue .* before it is 'O'.*B-person \(IOB2\)",
    ),
    "I- of another type": (
        columns,
        {"train": "New\tB-place\nBob\tI-person\n", "dev": NER},
        r"train:2: tag 'I-person' does not continue .* 'B-place'",
    ),
    "I- first in a text": (
        columns,
        {"train": "Bob\tB-person\n\nDylan\tI-person\n", "dev": NER},
        r"train:3: tag 'I-person' does not continue",
    ),
    "no texts": (columns, {"train": "-DOCSTART-\tO\n", "dev": NER}, r"train:1: no text with words"),
    "broken JSON": (
        intents_of_one_file,
        {"train": '{"Play": [\n{"data": [}]}'},
        r"train:2: broken JSON: .* at column 11",
    ),
    "cut JSON": (intents_of_one_file, {"train": snips(SONG)[:-3]}, r"train:1: broken JSON"),
    "half a surrogate pair": (
        intents_of_one_file,
        {"train": '{"Play": [{"data": [{"text": "\\ud83c"}]}]}'},
        r"train:1: broken JSON: .*surrogates",
    ),
    "no object": (intents_of_one_file, {"train": "[]"}, r"train:1: expected \{.intent.: \["),
    "an intent without examples": (
        intents_of_one_file,
        {"train": '{"Play": []}'},
        r"train:1: intent 'Play' has no examples",
    ),
    "another shape": (
        intents_of_one_file,
        {"train": snips(SONG, [{"text": 3}])},
        r"train:1: intent 'Play', example 1 \(from 0\): expected .* found ",
    ),
    "a slot without words": (
        intents_of_one_file,
        {"train": snips([{"text": "x"}, {"text": " ", "entity": "y"}])},
        r"intent 'Play', example 0",
    ),
    "an example without words": (intents_of_one_file, {"train": snips([])}, r"'Play', example 0"),
    "no file of the layout": (intents, {"train.json": "{}"}, r"in: holds no file like train_"),
    "only half of the layout": (
        intents,
        {"train_Play_full.json": snips(SONG)},
        r"in: holds no file like validate_",
    ),
    "a shorter target": (
        pairs,
        {"a.de.gz": "a\nb\nc\n", "a.en": "a\nb\n"},
        r"a\.en:2: the file ends after 2 lines, but .*a\.de\.gz has 3",
    ),
    "a shorter source": (pairs, {"a.de.gz": "a", "a.en": "a\n\n"}, r"a\.de\.gz:1: the file ends"),
    "an empty translation": (pairs, {"a.de.gz": "a\nb\n", "a.en": "a\n \n"}, r"a\.en:2: an empty"),
    "cut actions": (
        commands,
        {"train": "IN: a OUT: A\nIN: b OUT:"},
        r"train:2: expected IN: command",
    ),
    "broken JSON in a line": (
        abstracts,
        {"train": '{"source": "a", "target": "b"}\n{"source"\n', "dev.gz": "{}"},
        r"train:2: broken JSON",
    ),
    "no target": (
        abstracts,
        {"train": '{"source": "a"}', "dev.gz": "{}"},
        r"train:1: expected 'target' with a string or a list of strings, found None",
    ),
    "an empty target": (
        abstracts,
        {"train": '{"source": "a", "target": ["b", " "]}', "dev.gz": "{}"},
        r"train:1: an empty target",
    ),
    "an empty source": (
        abstracts,
        {"train": '{"source": [" "], "target": ["b"]}', "dev.gz": "{}"},
        r"train:1: an empty source",
    ),
    "no lines to hold out": (running_text, {"train": "one line\n"}, r"train: a share of 0\.4 of 1"),
    "too few to hold out": (numbered_tsv, {"train": "a\tx\n"}, r"train: 1 different examples are"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place_and_nothing_is_written(fault, tmp_path):
    opened, files, message = FAULTS[fault]
    folder = written(tmp_path / "in", files)
    with pytest.raises(UserError, match=message) as error:
        opened(folder, tmp_path / "data")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def flipped(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (LONG[: len(LONG) // 2], r"a\.de\.gz:\d{4,}: the gzip data is cut off here"),
        (LONG[:-4], r"a\.de\.gz:20001: the gzip data is cut off here"),
        (flipped(LONG), r"a\.de\.gz:\d+: the gzip data is damaged"),
        (b"plain text\n", r"a\.de\.gz:1: the gzip data is damaged"),
        (b"", r"a\.de\.gz:1: the file is empty"),
    ],
)
def test_a_damaged_gzip(damaged, message, tmp_path):
    (tmp_path / "a.de.gz").write_bytes(damaged)
    (tmp_path / "a.en").write_text("x\n")
    with pytest.raises(UserError, match=message):
        pairs(tmp_path, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_only_known_splits(tmp_path):
    for paths in ({"dev": "x", "train": "y"}, {"test": "x"}, {}):
        with pytest.raises(UserError, match="paths: expected train"):
            scan(paths, tmp_path / "data")


# What is prepared.


def test_packing_and_names_make_no_difference_but_content_and_settings_do(tmp_path):
    text = "".join(f"{i}\tx\ty\n" for i in range(9))
    folder = written(tmp_path / "in", {"a": text, "b.gz": text, "c": text + "9\tx\ty\n"})

    def opened(name, label=1, validation=0.3):
        return labelled_tsv({"train": folder / name}, tmp_path / "data", 0, label, validation)

    first = opened("a")
    assert opened("b.gz").name == first.name and opened("b.gz").digest == first.digest
    others = [opened("c"), opened("a", label=2), opened("a", validation=0.5)]
    assert len({first.name, *(other.name for other in others)}) == 4
    assert len({first.digest, *(other.digest for other in others)}) == 4


def test_a_damaged_set_is_prepared_again(tmp_path):
    folder = written(tmp_path / "in", {"train": NER, "dev": NER})
    source = columns(folder, tmp_path / "data")
    before = records(source)
    (path,) = (tmp_path / "data" / source.name / "1.0.0").glob("*train*")
    shutil.copy(next(path.parent.glob("*validation*")), path)
    path.write_bytes(path.read_bytes()[:-9])
    assert records(columns(folder, tmp_path / "data")) == before


def test_prepared_records_of_our_own_set(tmp_path):
    source = columns(written(tmp_path / "in", {"train": NER, "dev": NER}), tmp_path / "data")
    folder = tmp_path / "data" / source.name / "1.0.0"
    again = prepared_records(folder, {"tokens": "tokens", "tags": "tags"})
    assert records(again) == records(source) and again.digest == source.digest
    swapped = prepared_records(folder, {"targets": "tokens"})
    assert records(swapped)["train"][1] == {"targets": ["Hi"]}
    with pytest.raises(UserError, match="'tokens' is a sequence, but 'text' is one string"):
        prepared_records(folder, {"text": "tokens"})
    with pytest.raises(
        UserError, match="no text feature 'words'; .* usable features are: tags, tokens"
    ):
        prepared_records(folder, {"tokens": "words"})
