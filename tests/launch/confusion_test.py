"""The confusion matrix that `launch.evaluate --figure` draws."""

import types
from pathlib import Path

import pytest

from launch import evaluate
from recattn_jax.data import Labels
from recattn_jax.errors import UserError
from recattn_jax.tasks import Classification


@pytest.fixture
def run():
    task = Classification(2, loss=lambda logits, labels: None)
    return types.SimpleNamespace(
        experiment=types.SimpleNamespace(task=task), vocabularies={"label": Labels(("no", "yes"))}
    )


def test_a_run_that_predicts_no_labels_is_refused(call, trained):
    result = call(evaluate, "--workdir=run", "--figure=a.png")
    assert (result.code, result.out) == (2, "")
    assert "run is a LanguageModel" in result.err and result.err.count("\n") == 1
    assert not Path("a.png").exists()


@pytest.mark.parametrize("name", ["nowhere/a.png", "a.doc"])
def test_a_place_that_cannot_be_is_refused(run, name):
    with pytest.raises(UserError, match=f"--figure={name}: expected a file.png"):
        evaluate.drawer(run, Path(name))


def test_what_was_predicted_is_drawn(run, tmp_path):
    draw = evaluate.drawer(run, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
    draw([0, 1], [{"label": "no"}, {"label": "yes"}])
    right = (tmp_path / "a.png").read_bytes()
    draw([1, 0], [{"label": "no"}, {"label": "yes"}])
    assert right.startswith(b"\x89PNG") and (tmp_path / "a.png").read_bytes() != right
