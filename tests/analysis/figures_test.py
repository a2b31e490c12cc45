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
)
from recattn_jax.errors import StorageError


def curve_of(values_NT, name="a", split="train", seconds=0.5):
    values_NT = np.array(values_NT, float)
    steps_T = np.arange(1, values_NT.shape[1] + 1)
    seconds_NT = np.where(np.isfinite(values_NT), seconds * steps_T, np.nan)
    return Curve(name, split, steps_T, seconds_NT, values_NT)


def test_a_band_reaches_from_the_least_to_the_largest():
    rng = np.random.default_rng(0)
    values_NT = rng.normal(size=(3, 50))
    values_NT[0, 30:] = values_NT[1, 40] = np.nan
    curve = curve_of(values_NT)
    np.testing.assert_allclose(curve.mean_T, np.nanmean(values_NT, axis=0))
    np.testing.assert_array_equal(curve.low_T, np.nanmin(values_NT, axis=0))
    np.testing.assert_array_equal(curve.high_T, np.nanmax(values_NT, axis=0))
    np.testing.assert_array_equal(curve.runs_T, np.isfinite(values_NT).sum(axis=0))


def test_minutes_go_on_when_a_slow_run_ends():
    nan = np.nan
    seconds_NT = np.array([[60.0, 120, 180, 240], [180.0, 360, nan, nan], [nan] * 4])
    curve = Curve("a", "train", np.arange(4), seconds_NT, 0 * seconds_NT)
    assert curve.minutes_T.tolist() == [2.0, 4.0, 5.0, 6.0]
    alone = np.array([[60.0, nan, 180]])
    assert Curve("a", "b", np.arange(3), alone, alone).minutes_T.tolist() == [1.0, 2.0, 3.0]
    # Time goes with steps, and not with how many of them another run has a number at.
    assert Curve("a", "b", np.array([0, 3, 4]), alone, alone).minutes_T.tolist() == [1.0, 2.5, 3.0]


@pytest.mark.parametrize(("points", "most"), [(10, 10), (11, 10), (1000, 200), (1001, 200)])
def test_a_thinned_curve_has_the_means_of_neighbours(points, most):
    rng = np.random.default_rng(0)
    values_NT = rng.normal(size=(2, points))
    values_NT[0, points // 2 :] = np.nan
    curve = curve_of(values_NT)
    thin = curve.thinned(most)
    width = -(-points // most)
    ends = [*range(width, points, width), points]
    assert len(thin.steps_T) <= most and thin.steps_T.tolist() == ends
    np.testing.assert_array_equal(thin.minutes_T, curve.minutes_T[np.array(ends) - 1])
    for start, end, mean in zip([0, *ends], ends, thin.values_NT[1], strict=False):
        assert mean == pytest.approx(values_NT[1, start:end].mean())
    there = np.isfinite(thin.values_NT[0])
    assert there.sum() == -(-(points // 2) // width)


def colours(picture):
    return (picture[..., :3].max(axis=-1) - picture[..., :3].min(axis=-1)) > 0.02


@pytest.mark.parametrize("points", [1, 1000])
def test_curves_of_any_length_become_a_picture(tmp_path, points):
    values = [[1.0 / (1 + i) for i in range(points)]]
    curves = [curve_of(values, name, split) for name in "ab" for split in ("train", "validation")]
    loss_curves(curves, "loss", tmp_path / "some.png")
    loss_curves([], "loss", tmp_path / "none.png")
    some = matplotlib.image.imread(tmp_path / "some.png")
    none = matplotlib.image.imread(tmp_path / "none.png")
    assert some.shape[1] == none.shape[1]
    half = some.shape[1] // 2
    assert colours(some)[:, :half].any() and colours(some)[:, half:].any()


def test_runs_of_one_arm_have_a_band_and_a_run_that_ended_leaves_dots(tmp_path):
    seen = {}
    for name, values in {
        "alone": [[0.5, 1.5] * 20],
        "apart": [[0.5] * 40, [1.5] * 40],
        "ended": [[0.5] * 20 + [np.nan] * 20, [1.5] * 40],
    }.items():
        loss_curves([curve_of(values)], "loss", tmp_path / "a.png")
        picture = matplotlib.image.imread(tmp_path / "a.png")
        seen[name] = colours(picture)[:, picture.shape[1] // 2 :].sum()
    assert seen["apart"] > 3 * seen["alone"] and seen["ended"] < 0.7 * seen["apart"]


def test_a_figure_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    loss_curves([], "loss", file)
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="a.png.*No space"):
        loss_curves([curve_of([[1.0]])], "other", file)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


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
        ([5e-324, 5e-324], 0.0),
        ([1e29, 1e29], 9.9e28),
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
