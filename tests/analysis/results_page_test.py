"""The page of results, and what its figure compares."""

import dataclasses
from pathlib import Path

import pytest

from recattn_jax.analysis import results_page
from recattn_jax.analysis.figures import Panel
from tests.analysis.results_test import RESULT

DOCSTRING = """Attention | recurrence on words (system S0).

    python -m launch.train --config=experiments/some.py

Reference: 0.78,
by someone.

Tried: a wider model, 0.74.

Hardware: any.
"""
OTHER = dataclasses.replace(
    RESULT,
    experiment="other",
    config_file="experiments/other.py",
    config={"seed": 0},
    metrics={"bits_per_byte": 1.8912},
    headline="bits_per_byte",
    maximise=False,
    split="validation",
    command="python -m launch.train --config=experiments/other.py",
)


def changed(result=RESULT, seed=0, metrics=None, folder="FOLDER", **values):
    """A result whose config and what it says of itself agree."""
    config = result.config | {"seed": seed, "folder": folder} | values
    flags = "".join(f" --config.{key}={value}" for key, value in values.items())
    return dataclasses.replace(
        result,
        config=config,
        seed=seed,
        changed={**result.changed, **values},
        metrics=result.metrics | (metrics or {}),
        command=f"{result.command}{flags}" + f" --config.seed={seed}" * bool(seed),
    )


def test_the_page_in_full():
    second = changed(seed=1, metrics={"accuracy": 0.77, "macro_f1": 0.75})
    second = dataclasses.replace(second, step=30, commit="1111111", training_minutes=1.75)
    lines = [changed(mixer="lstm"), second, RESULT, OTHER]
    docstrings = {"experiments/some.py": DOCSTRING}
    whole = results_page.page(lines, docstrings, "results.png")
    assert whole == Path(__file__).with_name("results_page.md").read_text()
    assert whole == results_page.page(lines[::-1], docstrings, "results.png")
    assert "Nothing is recorded yet" in results_page.page([], {}, None)


def test_arms_differ_in_more_than_their_seed():
    lines = [RESULT, changed(seed=2), changed(seed=1), changed(width=8), changed(width=8, seed=1)]
    arms = results_page.make_arms(lines)
    assert [arm.name for arm in arms] == ["as in the file", "width=8"]
    assert [[result.seed for result in arm.results] for arm in arms] == [[0, 1, 2], [0, 1]]


def test_the_command_of_an_experiment_has_no_seed():
    page = results_page.page([changed(seed=1)], {}, None)
    assert "--config.folder=FOLDER\n```" in page


def test_arms_that_change_the_same_say_in_what_they_differ():
    old = dataclasses.replace(RESULT, config=RESULT.config | {"width": 2})
    absent = {key: value for key, value in RESULT.config.items() if key != "width"}
    absent = dataclasses.replace(RESULT, config=absent)
    bare = changed(mixer="lstm", folder="")
    moved = dataclasses.replace(changed(mixer="lstm"), data="words: 4; content 9999")
    arms = results_page.make_arms([RESULT, old, absent, bare, moved])
    assert sorted(arm.name for arm in arms) == [
        "data=content 0123abcd folder='' mixer=lstm",
        "data=content 9999 folder=FOLDER mixer=lstm",
        "width=2 (mixer=hybrid)",
        "width=4 (mixer=hybrid)",
        "width=absent (mixer=hybrid)",
    ]


def test_measures_that_do_not_compare_have_a_table_each():
    lines = [RESULT, dataclasses.replace(RESULT, split="validation")]
    whole = results_page.page(lines, {}, None)
    assert "| accuracy (test) |" in whole and "| accuracy (validation) |" in whole


def test_scores_of_classes_and_the_loss_have_no_column():
    names = ["accuracy", "f1", "f1/no", "intent_accuracy", "loss", "precision", "recall"]
    names += ["sentence_accuracy", "token_accuracy"]
    result = dataclasses.replace(RESULT, headline="f1", metrics=dict.fromkeys(names, 0.5))
    shown = results_page.other_scores(results_page.make_arms([result]))
    assert shown == ["accuracy", "intent_accuracy", "sentence_accuracy"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.83211, "0.8321"), (28.3, "28.30"), (98.724, "98.72"), (1.0, "1.000"), (1234.5, "1,234")],
)
def test_numbers_have_four_digits(value, text):
    assert results_page.rounded(value) == text


def test_the_figure_compares_arms_that_differ_in_the_mixer_alone():
    lines = [
        changed(metrics={"accuracy": 0.1}, width=8),
        RESULT,
        changed(seed=1, metrics={"accuracy": 0.85}),
        changed(mixer="recurrence", metrics={"accuracy": 0.6}),
        changed(mixer="recurrence", width=8, metrics={"accuracy": 0.2}),
        changed(mixer="attention", width=16, metrics={"accuracy": 0.5}),
        changed(mixer="attention", width=16, rate=1, metrics={"accuracy": 0.4}),
        OTHER,
    ]
    bars = {"hybrid": [0.75, 0.85], "recurrence": [0.6]}  # no attention of the same width
    (panel,) = results_page.panels(lines)
    assert panel == Panel("some", "accuracy (test)", True, bars)
    assert list(panel.bars) == list(bars)
    assert results_page.panels([RESULT, OTHER]) == []


def test_arms_that_differ_in_nothing_else_are_compared_before_all_others():
    wide = [
        changed(mixer=mixer, width=8, metrics={"accuracy": value})
        for mixer, value in (("hybrid", 0.3), ("lstm", 0.2))
    ]
    (panel,) = results_page.panels([*wide, RESULT])
    assert panel.bars == {"hybrid": [0.3], "lstm": [0.2]}
    (panel,) = results_page.panels([*wide, RESULT, changed(mixer="lstm")])
    assert panel.bars == {"hybrid": [0.75], "lstm": [0.75]}
    (panel,) = results_page.panels([RESULT, changed(mixer="lstm"), *wide])
    assert panel.bars == {"hybrid": [0.75], "lstm": [0.75]}


def test_the_figure_shows_what_was_written_where_the_headline_is_the_loss():
    """Else how much was right; of errors of their own kind less is better, as of the loss."""

    def pair(**metrics):
        lines = [changed(metrics=metrics), changed(mixer="lstm", metrics=metrics)]
        return [
            dataclasses.replace(line, headline="loss", maximise=False, metrics=metrics)
            for line in lines
        ]

    (panel,) = results_page.panels(pair(accuracy=0.9, loss=2.0, bleu=30.0))
    assert (panel.quantity, panel.maximise) == ("bleu (test)", True)
    assert set(map(tuple, panel.bars.values())) == {(30.0,)}
    (panel,) = results_page.panels(pair(accuracy=0.9, macro_f1=0.8, loss=2.0))
    assert (panel.quantity, panel.maximise) == ("accuracy (test)", True)
    (panel,) = results_page.panels(pair(loss=2.0, exact=0.3, symbol_error_rate=0.1))
    assert (panel.quantity, panel.maximise) == ("symbol error rate (test)", False)
    (panel,) = results_page.panels(pair(loss=2.0, mae=1.0))
    assert (panel.quantity, panel.maximise) == ("loss (test)", False)


def test_the_figure_prefers_the_latest_of_equals():
    def pair(accuracy, **old):
        return [
            dataclasses.replace(result, config=result.config | old)
            for result in (
                changed(metrics={"accuracy": accuracy}),
                changed(mixer="lstm", metrics={"accuracy": accuracy}),
            )
        ]

    for lines in ([*pair(0.5, width=2), *pair(0.6)], [*pair(0.5), *pair(0.6, width=2)]):
        (panel,) = results_page.panels(lines)
        assert panel.bars == {"hybrid": [0.6], "lstm": [0.6]}
