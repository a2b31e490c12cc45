"""The readers on the published files, against the published counts."""

import gzip
import os
import pathlib
import tarfile

import numpy as np
import pytest

from recattn_jax.data import (
    WordTokenizer,
    conll,
    intent_slots,
    parallel_text,
    prepared_records,
    scan,
    split_words,
    sst,
    summaries,
    trec,
    word_text,
)

pytestmark = pytest.mark.skipif(
    "RECATTN_DATA" not in os.environ, reason="RECATTN_DATA does not name a folder with real data"
)


@pytest.fixture
def data():
    return pathlib.Path(os.environ["RECATTN_DATA"])


def sizes(source):
    return [len(source.splits[split]) for split in ("train", "validation", "test")]


@pytest.mark.parametrize(("classes", "expected"), [(2, [6920, 872, 1821]), (5, [8544, 1101, 2210])])
def test_sst(classes, expected, data, tmp_path):
    source = sst(data / "sst", tmp_path, classes)
    assert sizes(source) == expected and len(source.counts["label"]["train"]) == classes
    assert not source.missing


def test_trec(data, tmp_path):
    source = trec(data / "trec", tmp_path, fine=False, validation=0.0)
    assert source.counts["label"]["train"] == dict(
        ABBR=86, DESC=1162, ENTY=1250, HUM=1223, LOC=835, NUM=896
    )
    assert len(source.splits["test"]) == 500
    fine = trec(data / "trec", tmp_path, fine=True, validation=0.1)
    assert len({name for split in fine.counts["label"].values() for name in split}) == 50
    assert sum(sizes(fine)[:2]) == 5452 and 545 <= sizes(fine)[1] <= 555


def test_wnut17(data, tmp_path):
    folder = data / "wnut17"
    names = ("wnut17train.conll.gz", "emerging.dev.conll.gz", "emerging.test.annotated.gz")
    splits = ("train", "validation", "test")
    source = conll({s: folder / n for s, n in zip(splits, names, strict=True)}, tmp_path)
    assert sizes(source) == [3394, 1009, 1287]
    tokens = {s: sum(len(r["tokens"]) for r in source.splits[s]) for s in splits}
    assert tokens == dict(train=62730, validation=15733, test=23394)
    entities = {s: sum(source.counts["tags"][s].values()) for s in splits}
    assert entities == dict(train=1975, validation=836, test=1079)


def test_snips(data, tmp_path):
    source = intent_slots(data / "snips", tmp_path, validation=700 / 13784)
    assert sizes(source) == [13084, 700, 700] and not source.missing
    assert set(source.counts["label"]["test"].values()) == {100}
    # As many slots as the files have, none lost or made.
    assert sum(sum(split.values()) for split in source.counts["tags"].values()) == 37542
    assert not any("Ã" in word for record in source.splits["train"] for word in record["tokens"])


@pytest.mark.parametrize(("a", "b"), [("de", "en"), ("en", "fr")])
def test_multi30k(a, b, data, tmp_path):
    names = dict(train="train", validation="val", test="test_2016_flickr")
    folder = data / "multi30k"
    paths = {s: (folder / f"{n}.{a}.gz", folder / f"{n}.{b}.gz") for s, n in names.items()}
    source = parallel_text(paths, tmp_path)
    assert sizes(source) == [29000, 1014, 1000]
    # Words come back as the text was, but for rare habits of punctuation.
    texts = [record["targets"][0] for record in source.splits["test"]]
    tokenizer = WordTokenizer.of(texts, 100_000, lowercase=False)
    same = [tokenizer.decode(tokenizer.encode(text)) == " ".join(text.split()) for text in texts]
    assert np.mean(same) > 0.98
    assert len(split_words(source.splits["train"][0]["source"])) > 9


@pytest.mark.parametrize(
    ("name", "train", "test"), [("simple", 16728, 4182), ("length", 16990, 3920)]
)
def test_scan(name, train, test, data, tmp_path):
    paths = {s: data / "scan" / f"tasks_{s}_{name}.txt.gz" for s in ("train", "test")}
    source = scan(paths, tmp_path, validation=0.1)
    assert sum(sizes(source)[:2]) == train and sizes(source)[2] == test
    words = {
        split: WordTokenizer.of(found, 99, False, spaced=True)
        for split, found in {
            "source": [record["source"] for record in source.splits["train"]],
            "target": [record["targets"][0] for record in source.splits["train"]],
        }.items()
    }
    assert {name: len(each.words) for name, each in words.items()} == {"source": 13, "target": 6}


def test_scitldr(data, tmp_path):
    names = dict(train="train", validation="dev", test="test")
    paths = {split: data / "scitldr" / f"{name}.jsonl.gz" for split, name in names.items()}
    source = summaries(paths, tmp_path)
    assert sizes(source) == [1992, 619, 618]
    assert {len(record["targets"]) for record in source.splits["train"]} == {1}
    assert max(len(record["targets"]) for record in source.splits["test"]) == 4


def test_wikitext2(data, tmp_path):
    names = dict(train="train", validation="valid", test="test")
    paths = {split: data / "wikitext2" / f"{name}.txt.gz" for split, name in names.items()}
    source = word_text(paths, tmp_path)
    tokenizer = WordTokenizer.of(source.texts("train"), 100_000, lowercase=False, spaced=True)
    # The published number of types counts <unk>, which is no word here.
    assert len(tokenizer.words) + 1 == 33278
    ids = {split: tokenizer.encode(source.texts(split)[0]) for split in names}
    assert {split: len(found) for split, found in ids.items()} == dict(
        train=2088628, validation=217646, test=245569
    )
    with gzip.open(paths["train"], "rt", encoding="utf-8") as file:
        assert np.sum(ids["train"] == tokenizer.unknown) == file.read().split().count("<unk>")


@pytest.mark.parametrize(
    ("archive", "path", "fields", "encoding", "expected"),
    [
        ("trec", "trec/1.0.0", dict(text="text", label="label-coarse"), "utf-8", [4906, 546, 500]),
        (
            "opinosis",
            "opinosis/1.0.0",
            dict(source="review_sents", targets="summaries"),
            "latin-1",
            [45, 6],
        ),
        (
            "scan-simple",
            "scan/simple/1.1.1",
            dict(source="commands", targets="actions"),
            "utf-8",
            [15055, 1673, 4182],
        ),
    ],
)
def test_sets_that_tfds_prepared(archive, path, fields, encoding, expected, data, tmp_path):
    with tarfile.open(data / "tfds_prepared" / f"{archive}.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    source = prepared_records(tmp_path / path, fields, encoding)
    assert [len(records) for records in source.splits.values()] == expected
    for record in source.splits["train"][:9]:
        assert set(record) == set(fields)
        assert all(record.values())
    if "label" in fields:
        labels = {record["label"] for record in source.splits["train"]}
        assert labels == set(source.classes) == {"ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"}
