"""A table goes on where a forecaster was trained on one like it."""

import re
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from launch import app, generate, train
from recattn_jax.data import later
from recattn_jax.training.experiment_file import CHECKOUT
from recattn_jax.training.runs import load_run
from tests.launch.scored_test import Stdin

DAYS = np.arange("2020-01-01", "2020-05-01", dtype="datetime64[D]")
VALUES = np.stack([np.arange(len(DAYS)) % 7, 100.0 - np.arange(len(DAYS)) % 5], axis=1)


def table(days=DAYS, values=VALUES, names="day,a,b"):
    rows = [f"{day},{a:g},{b:g}" for day, (a, b) in zip(days, values, strict=True)]
    return "\n".join([names, *rows]) + "\n"


@pytest.fixture(scope="session")
def forecaster(tmp_path_factory):
    """A run on two columns of days."""
    folder = tmp_path_factory.mktemp("forecaster")
    (folder / "a.csv").write_text(table())
    numbers = dict(path=folder / "a.csv", time="day", features=2, train=80, validation=30, test=0)
    sizes = dict(length=14, horizon=5, patch=7, width=8, heads=2, steps=4, evaluate_every=4)
    flags = [f"--config.{key}={value}" for key, value in (numbers | sizes).items()]
    config = f"--config={CHECKOUT / 'experiments/forecast.py'}"
    data = f"--config.data_dir={folder / 'data'}"
    with pytest.raises(SystemExit) as leaving:
        app.run(
            train.command, None, argv=["train", config, data, *flags, f"--workdir={folder / 'run'}"]
        )
    assert not leaving.value.code
    return folder / "run"


@pytest.fixture
def ask(call, monkeypatch, forecaster):
    def ask(text, *arguments):
        stdin = Stdin()
        stdin.read = lambda: text.encode()
        monkeypatch.setattr(sys, "stdin", stdin)
        return call(generate, f"--workdir={forecaster}", *arguments)

    return ask


def test_a_table_goes_on(ask, forecaster):
    result = ask(table(DAYS[:40], VALUES[:40]))
    assert result.code == 0, result.err
    header, *rows = result.out.splitlines()
    assert header == "day,a,b"
    assert [row.split(",")[0] for row in rows] == [f"2020-02-{day:02}" for day in range(10, 15)]
    run = load_run(forecaster)
    steps = run.vocabularies["series"]
    past = jnp.asarray(steps.of_series(VALUES[26:40])[None])
    forecast, _ = run.experiment.model.apply({"params": run.params}, past)
    wanted = np.asarray(forecast[0]) * np.array(steps.deviation) + np.array(steps.mean)
    found = np.array([[float(value) for value in row.split(",")[1:]] for row in rows])
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_columns_are_found_by_their_names(ask):
    turned = table(DAYS[:20], VALUES[:20, ::-1], names="when,b,a")
    plain = ask(table(DAYS[:20], VALUES[:20])).out
    assert ask(turned).out == plain.replace("day", "when")


FAULTS = {
    "too short": (table(DAYS[:13], VALUES[:13]), r"stdin:14: the end, after 13 lines.* needs 14"),
    "a column": (table(names="day,a,c"), r"stdin:1: expected a, b and one column of times"),
    "no number": (table().replace("04-02,1", "04-02,x"), r"stdin:\d+: .*'x'"),
    "nothing": ("", r"stdin:1: the file is empty"),
}


@pytest.mark.parametrize(("text", "message"), FAULTS.values(), ids=FAULTS)
def test_another_table_is_refused(ask, text, message):
    result = ask(text)
    assert (result.code, result.out) == (2, "") and re.search(message, result.err), result


def test_flags_of_language_models_are_refused(ask):
    result = ask(table(), "--tokens=3")
    assert result.code == 2 and "it goes on from a table on stdin" in result.err, result


LATER = {
    "days": (["2020-01-30", "2020-01-31"], ["2020-02-01", "2020-02-02"]),
    "hours": (
        ["2020-01-01 22:00:00", "2020-01-01 23:00:00"],
        ["2020-01-02 00:00:00", "2020-01-02 01:00:00"],
    ),
    "offsets": (
        ["2020-01-01T00:00+01:00", "2020-01-01T06:00+01:00"],
        ["2020-01-01T12:00:00+01:00", "2020-01-01T18:00:00+01:00"],
    ),
    "months": (["2020-10-01", "2020-11-01", "2020-12-01"], ["2021-01-01", "2021-02-01"]),
    "two months": (["2020-11-01", "2020-12-01"], ["2021-01-01", "2021-02-01"]),
    "quarters": (["2019-12-15", "2020-03-15", "2020-06-15"], ["2020-09-15", "2020-12-15"]),
    "working days": (["2020-01-02", "2020-01-03", "2020-01-06"], ["+1", "+2"]),
    "ends of months": (["2020-01-31", "2020-03-31", "2020-05-31"], ["+1", "+2"]),
}


@pytest.mark.parametrize(("times", "wanted"), LATER.values(), ids=LATER)
def test_later_times_follow_from_those_before(times, wanted):
    assert later(times, 2) == wanted
