"""A run's folder of a stranger is data: no code of it runs, and it says nothing to a terminal."""

import json
import os
import shutil
from pathlib import Path

import pytest

from launch import evaluate, generate, report, train
from recattn_jax.errors import StorageError, UserError
from recattn_jax.training import experiment_file
from recattn_jax.training.experiment_file import CHECKOUT, trusted_experiment_file
from recattn_jax.training.loading import load_run
from tests.launch.commands import TINY, TINY_SCORED, everything_under

CONFIG = f"--config={TINY}"
EVIL = "open('ran', 'w').close()\n\ndef get_config():\n    pass\n\ndef build(c):\n    pass\n"


def put(*files: str) -> None:
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("")


@pytest.mark.parametrize(
    ("recorded", "run", "trusted"),
    [
        ("mine.py", "runs/a", False),
        ("code/mine.py", "runs/a", False),
        ("runs/a/evil.py", "runs/a", False),
        ("runs/evil.py", "runs/a", False),
        ("runs/b/evil.py", "runs/a", False),
        ("runs/evil.py", "runs/deep/er/a", False),
        ("mine.py", "a", False),
        ("a/evil.py", "a", False),
        ("b/mine.py", "a", False),
        ("../outside/evil.py", "runs/a", False),
        ("../outside/a/evil.py", "../outside/a", False),
        ("../outside/evil.py", "../outside/a", False),
        ("mine.py", "../outside/a", False),
        ("mine.py", "../a", False),  # a flat archive, unpacked above
        ("link.py", "runs/a", False),
        ("checkout/experiments/x.py", "runs/a", True),
        ("experiments/x.py", "runs/a", True),  # found in the checkout
        ("runs/evil.py", "checkout/runs/a", False),
        ("checkout/runs/evil.py", "checkout/runs/a", False),
        ("checkout/experiments/x.py", "checkout/runs/a", True),
    ],
)
def test_an_experiment_file_is_run_only_where_it_cannot_have_come_with_the_run(
    tmp_path, monkeypatch, recorded, run, trusted
):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(experiment_file, "CHECKOUT", here / "checkout")
    put(
        "mine.py", "code/mine.py", "runs/a/evil.py", "runs/evil.py", "runs/b/evil.py", "a/evil.py",
        "b/mine.py", "../outside/evil.py", "../outside/a/evil.py", "checkout/experiments/x.py",
        "checkout/runs/evil.py",
    )  # fmt: skip
    Path("link.py").symlink_to("runs/a/evil.py")
    Path(run).mkdir(parents=True, exist_ok=True)
    for file, folder in (
        (recorded, Path(run)),
        (str(Path(recorded).absolute()), Path(run).absolute()),
    ):
        if not Path(file).exists():
            file = str(here / "checkout" / recorded)
        if trusted:
            assert trusted_experiment_file(file, folder) == Path(file).resolve()
        else:
            with pytest.raises(UserError, match=r"which is code.*--config=.*\.py "):
                trusted_experiment_file(file, folder)


def test_a_stranger_s_code_does_not_run_until_it_is_named(call, trained):
    record = json.loads(Path("run/run.json").read_text())
    shutil.copy(TINY, "run/tiny_experiment.py")
    Path("run/evil.py").write_text(EVIL)
    for command in (evaluate, generate):
        Path("run/run.json").write_text(json.dumps(record | {"config_file": "run/evil.py"}))
        result = call(command, "--workdir=run")
        assert result.code == 2 and result.err.count("\n") == 1, result.err
        assert "run/evil.py, which is code" in result.err and "--config=" in result.err
        assert not Path("ran").exists()
        # Named by its reader, the file of the run is run.
        named = call(command, "--workdir=run", "--config=run/tiny_experiment.py")
        assert named.code == 0, named.err
    result = call(train, CONFIG, "--workdir=next", "--init_from=run")
    assert result.code == 2 and "which is code" in result.err
    assert call(report, "--workdir=run").code == 0
    assert not Path("ran").exists() and not Path("next").exists()
    named = [CONFIG, "--workdir=next", "--init_from=run", "--init_config=run/tiny_experiment.py"]
    assert call(train, *named).code == 0
    refused = call(train, *named[:2], named[3])
    assert refused.code == 2 and "of --init_from, which is missing" in refused.err


def test_another_letter_in_a_vocabulary_is_no_other_model(call, scored):
    shutil.copytree(scored("classify"), "run")
    words = Path("run/vocabularies.json")
    good, names = words.read_text(), json.loads(words.read_text())["label"]["names"]
    words.write_text(good.replace(names[0], names[0] + "x"))
    result = call(generate, "--workdir=run", f"--config={TINY_SCORED}")
    assert result.code == 4 and result.err.count("\n") == 1, result.err
    assert "run/vocabularies.json is damaged" in result.err


def test_results_are_not_recorded_by_a_file_that_came_with_the_run(call, trained, monkeypatch):
    record = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_text(json.dumps(record | {"config_file": "run/evil.py"}))
    Path("run/evil.py").write_text(EVIL)
    monkeypatch.setattr(report, "FOLDER", Path("results").absolute())
    Path("results").mkdir()
    result = call(report, "--workdir=run", "--record")
    assert result.code == 0 and "left out" in result.out and "which is code" in result.out
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", "4"), ("width", 4.5), ("width", None), ("width", True), ("width", [4]),
        ("peak_lr", "high"), ("streams", 1), ("text", 5), ("held_out", 0.1),
        ("held_out", ["a", "b"]), ("mesh", {}), ("peak_lr", 10**400),
    ],
)  # fmt: skip
def test_numbers_of_a_wrong_kind_are_named_with_the_right_one(call, trained, key, value):
    stored = json.loads(Path("run/config.json").read_text())
    Path("run/config.json").write_text(json.dumps(stored | {key: value}))
    result = call(evaluate, "--workdir=run")
    assert result.code == 2 and result.err.count("\n") == 1, result.err
    assert "run/config.json" in result.err and f"{key} is " in result.err


def test_numbers_that_build_nothing_are_told_in_a_line(call, trained):
    stored = json.loads(Path("run/config.json").read_text())
    for changed in ({"width": -4}, {"mesh": "data:x"}, {"batch": 10**30}, {"width": 10**30}):
        Path("run/config.json").write_text(json.dumps(stored | changed))
        result = call(evaluate, "--workdir=run")
        assert result.code == 2 and result.err.count("\n") == 1, (changed, result.err)


@pytest.mark.parametrize("name", ["config.json", "run.json"])
def test_a_folder_that_was_tampered_with_is_storage(call, trained, name):
    for content in (
        b"",
        b"[1]",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a": ' * 60 + b"1" + b"}" * 60,
    ):
        Path("run", name).write_bytes(content)
        with pytest.raises(StorageError, match=f"{name} is damaged"):
            load_run("run")
    Path("run", name).unlink()
    os.mkfifo(Path("run", name))
    with pytest.raises(StorageError, match="a pipe or a device"):
        load_run("run")


def test_what_a_run_says_of_itself_steers_no_terminal_and_no_page(call, trained):
    """Nor does a name in it choose where a figure is written."""
    escape = "\x1b]0;owned\x07\x1b[2J"
    record = json.loads(Path("run/run.json").read_text())
    record |= {"ended": f"done {escape}|<b>\nforged", "config_file": f"../../x/{'y' * 300}$x^{{.py"}
    Path("run/run.json").write_text(json.dumps(record))
    config = json.loads(Path("run/config.json").read_text())
    Path("run/config.json").write_text(json.dumps(config | {"text": f"<script>{escape}"}))
    shutil.copytree("run", "other")
    Path("other/config.json").write_text(json.dumps(config | {"text": "=1+1 [a](javascript:b)"}))
    before = everything_under(Path())
    result = call(report, "--workdir=.")
    assert result.code == 0, result.err
    page, drawn = Path("report.md").read_text(), Path("report.html").read_text()
    for text in (result.out, page, drawn):
        assert "\x1b" not in text and "\x07" not in text and "\nforged" not in text
        assert "\\x1b]0;owned" in text or "\\\\x1b\\]0;owned" in text
    assert "<script>" not in page and "[a](javascript" not in page
    assert drawn.count("<script") == 2 and "<b>" not in drawn
    new = [name for name in everything_under(Path()) if name not in before]
    assert sorted(n.partition("_")[0] for n in new) == [
        "bars",
        "curves",
        "report.html",
        "report.md",
    ]
    assert max(map(len, new)) < 120


def test_a_terminal_is_shown_control_characters_and_a_pipe_is_given_them(monkeypatch):
    class Terminal:
        def __init__(self, there: bool):
            self.isatty = lambda: there

    monkeypatch.setattr("sys.stdout", Terminal(True))
    assert generate.visible("a\x1b[31m\tb\n") == "a\\x1b[31m\tb\n"
    monkeypatch.setattr("sys.stdout", Terminal(False))
    assert generate.visible("a\x1b[31m\tb\n") == "a\x1b[31m\tb\n"


def test_a_message_steers_no_terminal(call):
    result = call(train, CONFIG, "--workdir=run", "--config.text=\x1b[31mred\u202e.txt")
    assert result.code == 2 and "\\x1b[31mred\\u202e.txt" in result.err
    assert "\x1b" not in result.err and "\u202e" not in result.err


def test_what_is_recorded_of_a_run(call, monkeypatch):
    """The command line as it was typed; of the environment nothing."""
    monkeypatch.setenv("SECRET_TOKEN", "do-not-write-this-down")
    assert call(train, CONFIG, "--workdir=run", "--config.steps=1").code == 0
    record = json.loads(Path("run/run.json").read_text())
    assert record.keys() >= {"argv", "config_file", "versions", "attempts", "ended"}
    everything = everything_under(Path("run"))
    assert not any(b"do-not-write" in (content or b"") for content in everything.values())
    known = {"argv", "config_file", "headline", "maximise", "commit", "versions", "ended"}
    assert record.keys() <= known | {
        "wall_seconds",
        "training_seconds",
        "attempts",
        "forgotten",
        "vocabularies",
    }


def test_the_checkout_is_this_one():
    assert (CHECKOUT / "recattn_jax").is_dir() and Path(__file__).is_relative_to(CHECKOUT)
