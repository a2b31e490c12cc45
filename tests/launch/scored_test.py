"""Models that answer stdin line by line, and evaluations that repeat what training logged."""

import json
import os
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from launch import evaluate, generate
from recattn_jax.training.loading import load_run
from tests.launch.commands import Result, python_process
from tests.launch.tiny_scored_experiment import answer, sentence

SENTENCES = [sentence(number) for number in range(200, 209)]
INPUT = "".join(" ".join(words) + "\n" for words in SENTENCES)


class Stdin:
    """Pieces of bytes, one a read, as a slow pipe gives them; and what was done before each."""

    def __init__(self, *pieces: bytes, look=lambda: None):
        self.pieces, self.look, self.seen = list(pieces), look, []

    @property
    def buffer(self):
        return self

    def isatty(self):
        return False

    def read1(self, size):
        self.seen.append(self.look())
        return self.pieces.pop(0) if self.pieces else b""


@pytest.fixture
def ask(call, monkeypatch, scored):
    """Gives stdin to `launch.generate` with a run of the task."""

    def ask(task, text, *arguments):
        data = text if isinstance(text, bytes) else text.encode()
        monkeypatch.setattr(sys, "stdin", Stdin(data))
        return call(generate, f"--workdir={scored(task)}", *arguments)

    return ask


def done(out):
    return Result(code=0, out=out, err="")


def repeated(call, folder, *arguments):
    """What an evaluation of the last step says; training must have logged the same."""
    result = call(evaluate, f"--workdir={folder}", "--checkpoint=last", *arguments)
    assert result.code == 0, result.err
    return json.loads(result.out)


@pytest.mark.parametrize(
    ("task", "scores"),
    [
        ("classify", {"accuracy", "macro_f1", "loss"}),
        ("tag", {"f1", "accuracy", "intent_accuracy", "sentence_accuracy", "loss"}),
        ("translate", {"exact_match", "accuracy", "loss"}),
    ],
)
def test_an_evaluation_repeats_the_last_line_of_training(call, scored, task, scores):
    lines = (scored(task) / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines if '"validation"' in line][-1]
    found = repeated(call, scored(task))
    del logged["seconds"], found["workdir"]
    assert found == logged and scores < found.keys()
    assert found["accuracy"] > 0.7  # or the lines below would tell nothing


def test_lines_are_classified(ask):
    wanted = [answer(words)["label"] for words in SENTENCES]
    assert len(set(wanted)) == 2
    assert ask("classify", INPUT) == done("".join(f"{label}\n" for label in wanted))
    mixed = "\n\r\nthe cat sat\r\n \nRome"
    assert ask("classify", mixed) == done("\n\nabout a cat\n\nother\n")
    assert ask("classify", "") == done("")


def test_lines_are_tagged(ask):
    def line(words):
        right = answer(words)
        tagged = (f"{word}/{tag}" for word, tag in zip(words, right["tags"], strict=True))
        return f"{right['label']}\t{' '.join(tagged)}\n"

    assert ask("tag", INPUT) == done("".join(map(line, SENTENCES)))


def test_lines_are_translated(ask, scored):
    run = load_run(scored("translate"))
    task, vocabularies = run.experiment.task, run.vocabularies
    result = ask("translate", "\n" + INPUT)
    assert (result.code, result.err) == (0, "")
    found = result.out.split("\n")
    assert len(set(found)) > 5 and found[0] == found[-1] == ""
    pairs = list(zip(SENTENCES, found[1:-1], strict=True))
    assert sum(line == answer(words)["targets"][0] for words, line in pairs) > 2
    for words, line in pairs[:2]:
        source = jnp.asarray(vocabularies["source"].encode_words(words)[None])
        ids = task.decoder(run.experiment.model, {"params": run.params}, source, None)
        ids = np.asarray(ids)[0].tolist()
        assert line == vocabularies["target"].decode(ids[: ids.index(task.stop)])


def test_a_search_is_chosen_by_flags(call, ask, scored):
    """Under this penalty long translations win, of which greedy decoding knows nothing."""
    flags = ["--beams=5", "--length_penalty=50"]
    greedy, wide = ask("translate", INPUT), ask("translate", INPUT, *flags)
    assert wide.code == 0 and len(wide.out) > len(greedy.out) + 20
    logged = json.loads((scored("translate") / "metrics.jsonl").read_text().splitlines()[-1])
    found = repeated(call, scored("translate"), *flags)
    assert found["loss"] == logged["loss"] and found["exact_match"] < logged["exact_match"]
    assert (found["beams"], found["length_penalty"]) == (5, 50) and "coverage_penalty" not in found


@pytest.mark.parametrize(
    ("task", "arguments", "words"),
    [
        ("classify", ["--prompt=a", "--tokens=3"], "--prompt, --tokens: "),
        ("classify", ["--temperature=0.8"], "--temperature: "),
        ("classify", ["--top_k=1", "--top_p=1"], "--top_k, --top_p: "),
        ("classify", ["--stop", "--seed=0"], "--seed, --stop: "),
        ("classify", ["--beams=4"], "--beams: "),
        ("translate", ["--length_penalty=1"], "--length_penalty: "),
        ("translate", ["--beams=0"], "beams must be at least 1"),
        ("translate", ["--beams=2", "--coverage_penalty=-1"], "coverage_penalty must be 0 or more"),
    ],
)
def test_flags_that_would_change_nothing_are_refused(ask, task, arguments, words):
    result = ask(task, INPUT, *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert words in result.err, result.err


def test_a_language_model_does_not_search(call, trained):
    result = call(generate, "--workdir=run", "--beams=2")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "--beams" in result.err


def test_lines_are_answered_as_they_come(call, scored, capsys, monkeypatch):
    slow = Stdin(b"the cat\n", b"on", b" Rome\nthe", b" cat", look=lambda: capsys.readouterr().out)
    monkeypatch.setattr(sys, "stdin", slow)
    result = call(generate, f"--workdir={scored('classify')}")
    assert (result.code, result.err) == (0, "")
    assert slow.seen == ["", "about a cat\n", "", "other\n", ""]
    assert result.out == "about a cat\n"


def test_a_line_that_is_not_utf8_ends_it_after_the_lines_before(ask):
    result = ask("classify", b"the cat\nRome\nthe \xff\nthe cat\n")
    assert (result.code, result.out) == (2, "about a cat\nother\n")
    assert result.err.count("\n") == 1
    assert "line 3" in result.err and "byte 5" in result.err and "UTF-8" in result.err


def test_a_line_longer_than_the_rows_of_training_is_answered(ask):
    long = " ".join(["the"] * 5000)
    result = ask("classify", f"Rome\n{long} cat\nthe cat {long}\n")
    assert (result.code, result.out) == (0, "other\nother\nabout a cat\n")
    first, second = result.err.splitlines()
    assert first.startswith("line 2: its last 4977 steps were not read")
    assert second.startswith("line 3: its last 4978 steps were not read")


def test_whoever_reads_the_answers_may_stop(call, scored, monkeypatch):
    end, begin = os.pipe()
    os.close(end)
    with open(begin, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stdin", Stdin(INPUT.encode(), INPUT.encode()))
        result = call(generate, f"--workdir={scored('classify')}")
    assert (result.code, result.err) == (0, "")


@pytest.mark.slow
def test_a_process_answers_before_its_input_ends(scored):
    folder = scored("classify")
    with python_process("launch.generate", f"--workdir={folder}", cwd=folder) as process:
        for line, label in (("the cat", "about a cat"), ("Rome", "other")):
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{label}\n"
        process.stdout.close()
        process.stdin.write("the cat\n" * 3)
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == ""
