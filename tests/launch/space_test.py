"""What sweep() says is checked as the trials' own command would read it."""

import types

import pytest
from ml_collections import config_dict

from launch import configs
from launch.space import Space, overrides, read_space
from recattn_jax.errors import UserError
from recattn_jax.training.space import Span


def a_config():
    return config_dict.ConfigDict(
        {
            "steps": 10, "peak_lr": 1e-3, "ema": False, "mixer": "lstm", "note": None,
            "layers": ("lstm", "mlp"), "widths": (8, 16), "shares": (0.5,), "on": (True,),
        }
    ).lock()  # fmt: skip


def experiment(**sweep):
    return types.SimpleNamespace(get_config=a_config, sweep=lambda: sweep)


def read(file, *base, keys=None):
    return read_space(file, "some.py", base, keys)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 3),
        ("steps", -1),
        ("peak_lr", 1e-5),
        ("peak_lr", 0.1 + 0.2),
        ("peak_lr", 1 / 3),
        ("ema", True),
        ("ema", False),
        ("mixer", "lstm+attention"),
        ("mixer", ""),
        ("mixer", "a,b = 'c' \"d\" --e"),
        ("mixer", "None"),
        ("mixer", "ma\u00df \U0001f600"),
        ("layers", ("a b", "c'd", 'e"f')),
        ("layers", ("one",)),
        ("layers", ()),
        ("widths", (1, 2, 3)),
        ("shares", (0.1, 1e-7)),
        ("on", (True, False)),
    ],
)
def test_a_value_comes_back_as_it_was(key, value):
    numbers = configs.parse(experiment(), "some.py", overrides({key: value}))
    assert numbers == {**a_config().to_dict(), key: value}
    assert type(numbers[key]) is type(value)


def test_a_space_is_choices_and_spans_in_the_types_of_the_config():
    file = experiment(peak_lr=(1, 2e-3), steps=Span(1, 9), mixer=["a", "b"], layers=(("x",), ()))
    space = read(file)
    assert space == Space(
        {
            "peak_lr": (1.0, 2e-3),
            "steps": Span(1, 9),
            "mixer": ("a", "b"),
            "layers": ('("x",)', "()"),
        }
    )
    assert space.size == 72
    assert str(space) == "72 configurations: peak_lr 2 x steps 1 to 9 x mixer 2 x layers 2"
    assert overrides({"layers": space.values["layers"][0]}) == ['--config.layers=("x",)']
    some = read(file, keys=["mixer", "peak_lr"])
    assert list(some.values) == ["mixer", "peak_lr"] and some.size == 4
    assert some.point(1) == {"mixer": "a", "peak_lr": 2e-3}
    counted = read(experiment(steps=Span(2, 4), mixer=("a", "b")))
    assert counted.size == 6 and counted.point(3) == {"steps": 3, "mixer": "b"}
    assert len({tuple(counted.point(index).items()) for index in range(6)}) == 6
    lr = read(experiment(peak_lr=Span(1, 2, log=True))).values["peak_lr"]
    assert isinstance(lr, Span) and isinstance(lr.low, float) and lr.log


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (types.SimpleNamespace(get_config=a_config), "some.py has no function sweep"),
        (types.SimpleNamespace(get_config=a_config, sweep={}), "some.py has no function sweep"),
        (types.SimpleNamespace(get_config=a_config, sweep=lambda: {3: (1,)}), "sweep.. varies 3,"),
        (experiment(), "sweep.. returned {}"),
        (experiment(mixer=("a", "b\nc")), "mixer.*has 'b.nc', .*control character"),
        (experiment(peak_rl=(1.0,)), "'peak_rl'.*did you mean peak_lr?"),
        (experiment(peak_lr=()), "peak_lr.*expected a tuple of choices or a Span"),
        (experiment(mixer="lstm"), "mixer.*'lstm', expected a tuple"),
        (experiment(steps=(1, 1.5)), r"steps.*has 1\.5, which no flag can say"),
        (experiment(steps=(1, 2, 1)), "steps.*a value twice"),
        (experiment(mixer=("a", None)), "mixer.*has None, which a flag would make 'None'"),
        (experiment(note=(1,)), "note.*has 1, which no flag can say.*None"),
        (experiment(widths=((1, "a"),)), "widths.*no flag can say"),
        (experiment(mixer=Span(1, 2)), "mixer.*but the config's value is 'lstm'"),
        (experiment(steps=Span(1, 2.5)), "steps.*but the config's value is 10"),
    ],
)
def test_what_no_run_can_have_is_refused(file, words):
    with pytest.raises(UserError, match=words):
        read(file)


def test_keys_are_chosen_among_those_of_the_sweep():
    file = experiment(peak_lr=(1.0,), mixer=("a",))
    with pytest.raises(UserError, match="--space=miser: .*did you mean mixer?"):
        read(file, keys=["miser"])
    with pytest.raises(UserError, match="--space= names no key"):
        read(file, keys=[])
    with pytest.raises(UserError, match="'stpes'.*did you mean steps?"):
        read(file, "--config.stpes=3")
