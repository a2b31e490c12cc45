"""What benchmarks make of their numbers; the numbers themselves are not tested."""

import pytest
from absl import flags

from experiments.benchmarks import architectures


@pytest.fixture(autouse=True, scope="module")
def no_flags():
    """Takes back the flags of the benchmark, which no other test should know."""
    yield
    for name in ("out", "figure", "seeds", "problems"):
        delattr(flags.FLAGS, name)


def line(problem, mixer, seed, value):
    numbers = architectures.chosen(architectures.settings()[problem], mixer, seed)
    return {"problem": problem, "numbers": numbers, "value": value}


RESULTS = [
    *(line("parity", "rnn", seed, value) for seed, value in enumerate((0.5, 1.0, 0.75))),
    *(line("adding", "rnn", seed, value) for seed, value in enumerate((0.02, 0.16, 0.001))),
    *(line("parity", "lstm", seed, value) for seed, value in enumerate((None, 0.9, None))),
    {**line("parity", "gru", 0, 1.0), "numbers": {"seed": 0, "mixer": "gru", "width": 1}},
]


def test_the_best_is_nearest_to_solved():
    cells = architectures.table(RESULTS)
    assert cells == {
        "rnn": {"parity": (0.75, 1.0, 3), "adding": (0.02, 0.001, 3)},
        "lstm": {"parity": (0.5, 0.9, 3)},  # two of its seeds diverged
    }  # and what ran with other numbers is none of them


def test_values_stand_between_chance_and_solved():
    settings = architectures.settings()
    assert settings["parity"].stands(0.5) == 0 and settings["parity"].stands(1.0) == 1
    assert settings["adding"].stands(0.0) == 1
    assert settings["adding"].stands(1 / 6) == pytest.approx(0)
    assert (settings["parity"].told(0.5), settings["adding"].told(0.02)) == ("50.0", "2.0e-02")


def test_cells_without_a_result_are_drawn_empty(tmp_path):
    architectures.draw(architectures.table(RESULTS), tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 1000
