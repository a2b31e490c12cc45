"""The command that looks inside a run, on tiny runs."""

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np
import pytest

from launch import inspect
from recattn_jax.kernels import tracing
from recattn_jax.tasks import Tagging, losses
from recattn_jax.training import loading
from tests.launch.commands import TINY, TINY_SCORED


def numbers_in(file: str) -> dict[str, np.ndarray]:
    with np.load(file) as stored:
        return dict(stored)


def test_of_a_language_model(trained, call) -> None:
    result = call(inspect, "--workdir=run", f"--config={TINY}", "--text=the c\u00e4t")
    assert result.code == 0, result.err
    assert "reference kernels" in result.out
    numbers = numbers_in("run/inspect/maps.npz")
    assert list(numbers["labels/input"][:3]) == ["<separator>", "t", "h"]
    assert numbers["losses"].shape == numbers["expected"].shape == (8,)
    assert Path("run/inspect/losses.png").read_bytes()[:4] == b"\x89PNG"
    assert "Inside run at step " in Path("run/inspect/inside.html").read_text()
    assert "inside.html" in result.out.splitlines()[-1]


@pytest.mark.slow
def test_of_a_translator(scored, call) -> None:
    run = scored("translate")
    told = ["--text=the cat sat", "--target=le chat", "--out=maps"]
    result = call(inspect, f"--workdir={run}", f"--config={TINY_SCORED}", *told)
    assert result.code == 0, result.err
    assert "prediction: le chat" in result.out
    numbers = numbers_in("maps/maps.npz")
    (name,) = (name for name in numbers if name.startswith("attention/"))
    assert numbers[name].shape == (1, 3, 3)
    np.testing.assert_allclose(numbers[name].sum(-1), 1.0, atol=1e-5)
    path = name.removeprefix("attention/")
    assert list(numbers[f"axes/{path}"]) == ["target", "source"]
    assert list(numbers["labels/target"]) == ["<separator>", "le", "chat"]
    assert list(numbers["labels/source"]) == ["the", "cat", "sat"]
    carries = [numbers[name].shape for name in numbers if name.startswith("carries/")]
    assert carries == [(3, 8), (3, 8)]
    drawn = sorted(file.name.partition("-")[0] for file in Path("maps").glob("*-*.png"))
    assert drawn == ["attention", "recurrence", "recurrence"]
    again = call(inspect, f"--workdir={run}", f"--config={TINY_SCORED}", "--text=the", "--out=own")
    assert again.code == 0, again.err
    assert "prediction:" in again.out


def test_of_a_classifier(scored, call) -> None:
    run = scored("classify")
    told = [f"--config={TINY_SCORED}", "--text=the cat sat on", "--out=maps"]
    result = call(inspect, f"--workdir={run}", *told)
    assert result.code == 0, result.err
    assert "prediction: about a cat (probability 0." in result.out
    assert "losses" not in numbers_in("maps/maps.npz")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--text=a", "--workdir=nowhere"], "no run in nowhere"),
        (["--text="], "--text"),
        (["--text= "], "the text is empty"),
        ([f"--text={'a' * 513}"], "513 tokens.*at most 512"),
        (["--text=a", "--target=b"], "a target is for a run that translates"),
        (["--text=a", "--out=text.txt"], "cannot create the folder text.txt"),
        (["--text=a", "--checkpoint=77"], "77"),
    ],
)
def test_mistakes_are_one_line(trained, call, arguments, says) -> None:
    result = call(inspect, f"--config={TINY}", "--workdir=run", *arguments)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert re.search(says, result.err), result.err


def test_a_run_of_another_kind_is_refused(trained, call, monkeypatch) -> None:
    def load_run(*arguments):
        run = loading.load_run(*arguments)
        loss = functools.partial(losses.cross_entropy, smoothing=0.0, weights=None)
        other = dataclasses.replace(run.experiment, task=Tagging(2, loss))
        return dataclasses.replace(run, experiment=other)

    monkeypatch.setattr(inspect, "load_run", load_run)
    result = call(inspect, "--workdir=run", f"--config={TINY}", "--text=a")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "language models, classifiers of texts and translators" in result.err


def test_what_is_not_what_the_run_computes_is_not_written(scored, call, monkeypatch) -> None:
    trace = tracing.trace_cell

    def wrong(*arguments, **options):
        traced = trace(*arguments, **options)
        return traced._replace(hidden=traced.hidden + 0.01)

    monkeypatch.setattr(tracing, "trace_cell", wrong)
    told = [f"--config={TINY_SCORED}", "--text=the cat", "--out=maps"]
    result = call(inspect, f"--workdir={scored('classify')}", *told)
    assert result.code == 1
    assert "logits differ by" in result.err.splitlines()[-1]
    assert not Path("maps").exists()
