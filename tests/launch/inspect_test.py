"""The command that looks inside a run, on tiny runs."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from launch import inspect
from recattn_jax.analysis import context
from recattn_jax.kernels import tracing
from recattn_jax.tasks import Regression
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
    assert numbers["gradient_norm/input"].shape == numbers["gradient_x_input/input"].shape == (8, 8)
    assert np.all(np.triu(numbers["gradient_norm/input"], 1) == 0)
    assert (numbers["integrated_gradients/input"].shape, numbers["integrated_gradients_of"]) == (
        (8,),
        7,
    )
    assert "integrated gradients of output 7, 't': most to " in result.out
    assert len(list(Path("run/inspect").glob("*gradient*-input.png"))) == 3
    assert numbers["losses"].shape == numbers["expected"].shape == (8,)
    assert Path("run/inspect/losses.png").read_bytes()[:4] == b"\x89PNG"
    assert "Inside run at step " in Path("run/inspect/inside.html").read_text()
    assert "inside.html" in result.out.splitlines()[-1]


def test_context_is_measured_without_a_text(trained, call, monkeypatch) -> None:
    monkeypatch.setattr(context, "LEAST_TARGETS", 32)
    result = call(inspect, "--workdir=run", f"--config={TINY}", "--measure=context", "--out=out")
    assert result.code == 0, result.err
    assert "effective context: " in result.out
    numbers = numbers_in("out/context.npz")
    assert list(numbers["lengths"]) == [1, 2, 4]
    assert sorted(file.name for file in Path("out").iterdir()) == ["context.npz", "context.png"]


@pytest.mark.slow
def test_of_a_tagger(scored, call) -> None:
    """Bytes, tags and intents; the flow of the text; and tags that are given."""
    run = scored("tag")
    told = [f"--config={TINY_SCORED}", "--text=the cat sat on Rome", "--out=maps"]
    result = call(inspect, f"--workdir={run}", *told, "--measure=flow", "--of=4")
    assert result.code == 0, result.err
    assert "the/O cat/O sat/O on/O Rome/B-place" in result.out
    assert "gradient flow: " in result.out
    numbers = numbers_in("maps/maps.npz")
    assert list(numbers["labels/tag"]) == ["O", "O", "O", "O", "B-place"]
    assert numbers["losses"].shape == (5,) and numbers["losses"].max() < 0.7
    assert numbers["gradient_x_input/input"].shape == (5, 19)
    assert numbers_in("maps/flow.npz")["flow"].shape == (19,)
    other = call(inspect, f"--workdir={run}", *told, "--target=O O O O O", "--noattribution")
    assert other.code == 0, other.err
    losses = numbers_in("maps/maps.npz")["losses"]
    np.testing.assert_allclose(losses[:4], numbers["losses"][:4], atol=1e-6)
    assert losses[4] > 0.7 and "gradient_x_input/input" not in numbers_in("maps/maps.npz")
    for tags in ("O O", "O O O O X"):
        wrong = call(inspect, f"--workdir={run}", *told, f"--target={tags}")
        assert (wrong.code, len(wrong.err.splitlines())) == (2, 1)
        assert "the target is to be 5 tags, one a word, of O, B-place" in wrong.err


@pytest.mark.slow
def test_flow_is_of_one_sequence(scored, call) -> None:
    told = [f"--config={TINY_SCORED}", "--out=maps"]
    result = call(inspect, f"--workdir={scored('classify')}", *told, "--measure=flow")
    assert result.code == 0, result.err
    assert numbers_in("maps/flow.npz")["flow"].shape == (3,)  # of long rows
    for task, measure, says in (
        ("translate", "flow", "the body of one sequence"),
        ("classify", "context", "one of language models"),
    ):
        wrong = call(inspect, f"--workdir={scored(task)}", *told[:1], f"--measure={measure}")
        assert (wrong.code, len(wrong.err.splitlines())) == (2, 1)
        assert says in wrong.err and not Path(scored(task), "inspect").exists()


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
    owed = [numbers[f"gradient_norm/{axis}"].shape for axis in ("source", "target")]
    assert owed == [(3, 3), (3, 3)]
    path = name.removeprefix("attention/")
    assert list(numbers[f"axes/{path}"]) == ["target", "source"]
    assert list(numbers["labels/target"]) == ["<separator>", "le", "chat"]
    assert list(numbers["labels/source"]) == ["the", "cat", "sat"]
    carries = [numbers[name].shape for name in numbers if name.startswith("carries/")]
    assert carries == [(3, 8), (3, 8)]
    drawn = sorted(file.name.partition("-")[0] for file in Path("maps").glob("*-[0-9]*.png"))
    assert drawn == ["attention", "recurrence", "recurrence"]
    assert len(list(Path("maps").glob("*gradient*.png"))) == 6
    again = call(inspect, f"--workdir={run}", f"--config={TINY_SCORED}", "--text=the", "--out=own")
    assert again.code == 0, again.err
    assert "prediction:" in again.out


def test_of_a_classifier(scored, call) -> None:
    run = scored("classify")
    told = [f"--config={TINY_SCORED}", "--text=the cat sat on", "--out=maps"]
    result = call(inspect, f"--workdir={run}", *told)
    assert result.code == 0, result.err
    assert "prediction: about a cat (probability 0." in result.out
    numbers = numbers_in("maps/maps.npz")
    assert "losses" not in numbers
    assert numbers["gradient_norm/input"].shape == (1, 4)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--text=a", "--workdir=nowhere"], "no run in nowhere"),
        (["--text="], "--text"),
        (["--text= "], "the text is empty"),
        ([f"--text={'a' * 513}"], "513 tokens.*at most 512"),
        (["--text=a", "--target=b"], "a target is for a run that translates or tags"),
        (["--text=abc", "--of=3"], "no output 3: this text has 3, counted from 0"),
        (["--text=abc", "--of=1", "--noattribution"], "--of: --noattribution explains no output"),
        (["--measure=contxt"], "--measure=contxt: .*did you mean context"),
        (["--measure=flow", "--of=3"], "--of are about a text"),
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
        other = dataclasses.replace(run.experiment, task=Regression("mse"))
        return dataclasses.replace(run, experiment=other)

    monkeypatch.setattr(inspect, "load_run", load_run)
    result = call(inspect, "--workdir=run", f"--config={TINY}", "--text=a")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "language models, classifiers and taggers of texts, and translators" in result.err


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
