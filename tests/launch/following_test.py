"""What training says comes next: commands that work on the run, and that parse."""

import functools
import importlib
import shlex
import types
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from launch import following
from recattn_jax.data import ByteTokenizer, CharTokenizer, Labels, Measurements, Motion, Spectra
from recattn_jax.tasks import (
    Answers,
    Classification,
    LanguageModel,
    Regression,
    Transcription,
    losses,
)

CLASSIFIES = Classification(
    classes=2, loss=functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)
)
SOUND = Spectra.of([np.arange(400, dtype=np.int16)], 8000, 200, 80, 4)
FRAMES = [np.array([[[0, 9]], [[4, 0]]], np.uint8)]


GENERATE = "generate evaluate "
LABELS = Labels(("a", "b"))
LANGUAGE = LanguageModel(separator=0, symbol="byte")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder that is no checkout."""
    monkeypatch.chdir(tmp_path)


def commands(task, vocabularies, workdir=".", config="experiments/char_lm.py"):
    data = types.SimpleNamespace(vocabularies=vocabularies, evaluation={"validation": None})
    return following.commands(task, data, Path(workdir), config)


@pytest.mark.parametrize(
    ("task", "vocabularies", "names"),
    [
        (CLASSIFIES, {"text": ByteTokenizer(), "label": LABELS}, GENERATE + "inspect export"),
        (CLASSIFIES, {"series": Measurements.of(FRAMES), "label": LABELS}, GENERATE + "export"),
        (CLASSIFIES, {"series": Motion.of(FRAMES), "label": LABELS}, "evaluate export"),
        (Transcription(symbols=257), {"series": SOUND, "text": ByteTokenizer()}, GENERATE),
        (LANGUAGE, {"text": ByteTokenizer()}, GENERATE + "inspect export"),
        (LANGUAGE, {"text": CharTokenizer("ab")}, GENERATE + "export"),
        (Answers(CLASSIFIES.loss), {"answer": Labels(("0", "1"))}, "evaluate"),
        (Regression(), {}, "evaluate"),
        (Regression(), {"columns": Labels(("a",))}, GENERATE),
    ],
)  # fmt: skip
def test_a_model_is_applied_where_that_works(task, vocabularies, names):
    found = commands(task, vocabularies)
    assert [line.split()[2] for line in found] == [
        f"launch.{name}" for name in (*names.split(), "report")
    ]


@pytest.mark.parametrize("workdir", ["run", "runs/it's $HOME", "runs/-x"])
@pytest.mark.parametrize("config", ["experiments/char_lm.py", "/elsewhere/my file.py"])
def test_they_parse_with_the_flags_of_the_commands(workdir, config):
    Path(workdir).mkdir(parents=True)
    for line in commands(LANGUAGE, {"text": ByteTokenizer()}, workdir, config):
        python, _, module, *words = shlex.split(line)
        flag_values = flags.FlagValues()
        argv, _ = importlib.import_module(module).command(flag_values, [python, *words])
        assert flag_values(argv) == [python]
        if module == "launch.report":
            root = workdir if workdir == "run" else str(Path(workdir).parent)
            assert flag_values.workdir == root
        else:
            assert flag_values.workdir == workdir
            assert flag_values.config == (config if config.startswith("/") else None)


@pytest.mark.parametrize(("workdir", "root"), [("run", "run"), ("/run", "/run"), ("/a/b", "/a")])
def test_a_report_is_never_of_all_that_there_is(monkeypatch, workdir, root):
    monkeypatch.setattr(following, "_is_found", lambda *_: True)  # which looks for the folder
    assert commands(Regression(), {}, workdir)[-1] == f"python -m launch.report --workdir={root}"
