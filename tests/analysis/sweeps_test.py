import csv
import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes

from recattn_jax.analysis.sweeps import (
    FAILED,
    FINISHED,
    PRUNED,
    RUNNING,
    Trial,
    as_csv,
    best_of,
    importance_bars,
    parallel_coordinates,
    ranked,
)


def trials():
    states = [FINISHED, FAILED, FINISHED, PRUNED, RUNNING, FINISHED]
    values = [2.0, None, 1.0, 0.5, 0.1, 1.0]
    return [
        Trial(n, state, {"lr": 10.0**-n, "mixer": "ab"[n % 2]}, None if value is None else 7, value)
        for n, (state, value) in enumerate(zip(states, values, strict=True))
    ]


@pytest.mark.parametrize(
    ("maximise", "order"), [(False, [2, 5, 0, 1, 3, 4]), (True, [0, 2, 5, 1, 3, 4])]
)
def test_only_what_finished_is_ranked(maximise, order):
    assert [trial.number for trial in ranked(trials(), maximise)] == order
    assert best_of(trials(), maximise).number == order[0]
    assert best_of(trials()[3:5], maximise) is None


def test_the_table_for_programs_has_all_digits():
    trial = Trial(0, FAILED, {"mixer": "a,b"}, 3, 0.1 + 0.2, 'it "broke"')
    (row,) = csv.DictReader(io.StringIO(as_csv([trial], ["mixer"], "loss")))
    assert row == {
        "trial": "0", "state": "failed", "mixer": "a,b", "step": "3", "loss": str(0.1 + 0.2),
        "reason": 'it "broke"',
    }  # fmt: skip


def ink(path):
    image = matplotlib.image.imread(path)[..., :3]
    return (image.max(axis=-1) - image.min(axis=-1) > 0.2).sum()


def test_lines_are_drawn_for_what_finished(tmp_path):
    some = trials()
    parallel_coordinates(some, ["lr", "mixer"], ["lr"], "loss", False, tmp_path / "all.png")
    one = [some[0], *some[3:5]]
    parallel_coordinates(one, ["lr", "mixer"], [], "loss", True, tmp_path / "one.png")
    assert ink(tmp_path / "all.png") > ink(tmp_path / "one.png") > 0
    many = [Trial(n, FINISHED, {"lr": 0.1 * (n + 1)}, 1, float(np.sin(n))) for n in range(30)]
    parallel_coordinates(many, ["lr"], ["lr"], "loss", True, tmp_path / "many.png")
    assert ink(tmp_path / "many.png") > ink(tmp_path / "one.png")


def texts(monkeypatch):
    """Collects what is written beside the axes."""
    found = []
    annotate = Axes.annotate

    def collect(axes, text, *args, **options):
        found.append(text)
        return annotate(axes, text, *args, **options)

    monkeypatch.setattr(Axes, "annotate", collect)
    return found


def test_axes_have_few_digits_and_words_are_no_formulas(tmp_path, monkeypatch):
    found = texts(monkeypatch)
    words = ["$a_$ $", "$b"]
    some = [
        Trial(n, FINISHED, {"lr": 0.04043878009515104 * (n + 1), "w": 2**n, "mixer": words[n % 2]},
              1, 0.99991 + 1e-5 * n / 7)
        for n in range(3)
    ]  # fmt: skip
    parallel_coordinates(some, ["lr", "w", "mixer"], [], "accuracy", True, tmp_path / "a.png")
    assert found[:8] == ["0.04044", "0.08088", "0.1213", "1", "2", "4", *words]
    assert len(found[8:]) == len(set(found[8:])) == 5 and max(map(len, found[8:])) <= 9


def test_a_bar_is_as_long_as_its_share(tmp_path):
    importance_bars({"a": 0.9, "b": 0.1}, "loss", 9, tmp_path / "uneven.png")
    image = matplotlib.image.imread(tmp_path / "uneven.png")[..., :3]
    widths = (image.max(axis=-1) - image.min(axis=-1) > 0.2).sum(axis=1)
    first, last = widths[widths > 0][0], widths[widths > 0][-1]
    assert first == pytest.approx(9 * last, rel=0.1)  # the most important on top
