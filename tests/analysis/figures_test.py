import matplotlib.image
import pytest

from recattn_jax.analysis.figures import Curve, loss_curves, running_mean


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
