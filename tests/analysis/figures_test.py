import matplotlib.image
import numpy as np
import pytest

from recattn_jax.analysis.figures import (
    Curve,
    Panel,
    axis_floor,
    comparison,
    confusion,
    loss_curves,
    running_mean,
)


def test_running_mean_looks_back_only():
    assert running_mean([1.0, 3.0, 5.0, 1.0], 2) == [1.0, 2.0, 4.0, 3.0]
    assert running_mean([1.0, 3.0], 1) == [1.0, 3.0]
    assert running_mean([], 3) == []


@pytest.mark.parametrize("points", [1, 1000])
def test_curves_of_any_length_become_a_picture(tmp_path, points):
    seconds = [0.5 * i for i in range(points)]
    values = [1.0 / (1 + i) for i in range(points)]
    curves = [
        Curve(run, split, range(points), seconds, values)
        for run in ("a", "b")
        for split in ("train", "validation")
    ]
    loss_curves(curves, "loss", tmp_path / "some.png")
    loss_curves([], "loss", tmp_path / "none.png")
    some = matplotlib.image.imread(tmp_path / "some.png")
    none = matplotlib.image.imread(tmp_path / "none.png")
    assert some.shape == none.shape
    coloured = (some[..., :3].max(axis=-1) - some[..., :3].min(axis=-1)) > 0.2
    assert coloured[:, : some.shape[1] // 2].any() and coloured[:, some.shape[1] // 2 :].any()


@pytest.mark.parametrize("count", [1, 5])
def test_every_panel_has_its_bars(tmp_path, count):
    bars = {"hybrid": [0.8, 0.81, 0.83], "recurrence": [0.8], "attention": [0.0]}
    panels = [Panel(f"set {i}", "accuracy", True, bars) for i in range(count)]
    comparison(panels, tmp_path / "bars.png")
    picture = matplotlib.image.imread(tmp_path / "bars.png")
    coloured = (picture[..., :3].max(axis=-1) - picture[..., :3].min(axis=-1)) > 0.2
    columns = min(count, 4)
    width, height = picture.shape[1] // columns, picture.shape[0] // -(-count // 4)
    for i in range(count):
        top, left = i // 4 * height, i % 4 * width
        assert coloured[top : top + height, left : left + width].any()
    assert (picture[height:, width:] == 1.0).all()  # no empty axes
    comparison(panels, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "bars.png").read_bytes()


def test_a_value_of_zero_can_be_drawn(tmp_path):
    comparison([Panel("a", "f1", True, {"x": [0.0], "y": [0.0]})], tmp_path / "zero.png")
    picture = matplotlib.image.imread(tmp_path / "zero.png")[..., :3]
    assert (picture < 0.2).any()  # axes and words, if no bars


@pytest.mark.parametrize(
    ("values", "floor"),
    [
        ([0.81, 0.83], 0.79),
        ([0.2, 0.8], 0.0),
        ([28.4, 33.1], 23.0),
        ([0.0], 0.0),
        ([5.0, 5.0], 4.95),
    ],
)
def test_an_axis_is_cut_only_where_bars_are_close(values, floor):
    assert axis_floor(values) == pytest.approx(floor)


@pytest.mark.parametrize("classes", [2, 20, pytest.param(50, marks=pytest.mark.slow)])
def test_a_confusion_matrix_is_dark_where_a_row_has_its_share(tmp_path, classes):
    names = [f"class {i}" for i in range(classes)]
    right = np.diag([1] * (classes - 1) + [900])  # a row counts by its share
    sums = []
    for number, counts in enumerate((right, right[::-1], 0 * right)):
        confusion(counts, names, tmp_path / f"{number}.png")
        picture = matplotlib.image.imread(tmp_path / f"{number}.png")[..., :3]
        dark = (picture[..., 2] > 0.3) & (picture[..., 0] < 0.1)  # the end of the colours
        ys, xs = np.nonzero(dark[:, : int(0.8 * dark.shape[1])])  # without the colour bar
        sums.append(np.corrcoef(xs, ys)[0, 1] if len(xs) else 0.0)
    assert sums[0] > 0.7 and sums[1] < -0.7 and sums[2] == 0.0
