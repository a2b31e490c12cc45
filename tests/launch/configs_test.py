import types

import pytest
from absl import flags
from ml_collections import config_dict

from launch import configs
from recattn_jax.errors import UserError
from tests.launch.commands import TINY


def a_config():
    config = config_dict.ConfigDict(
        {"steps": 10, "peak_lr": 1e-3, "ema": False, "mixer": "lstm", "layers": ("lstm", "mlp")}
    )
    config.widths = (8, 16)
    config.note = None
    return config.lock()


def parsed(*arguments):
    config = a_config()
    chosen = configs.Chosen("some.py", types.ModuleType("some"), config, config.to_dict())
    argv = ["it", *arguments]
    flag_values = flags.FlagValues()
    configs.define(flag_values, config, "some.py", argv)
    flag_values(argv)
    chosen.check()
    return config


def test_values_are_set_in_the_type_of_the_file():
    config = parsed(
        "--config.steps=3", "--config.peak_lr=1", "--config.ema", "--config.mixer", "a,b",
        "--config.layers=('mlp',)", "--config.widths=(1, 2, 3)",
    )  # fmt: skip
    assert config.steps == 3 and config.mixer == "a,b"
    assert isinstance(config.peak_lr, float) and config.peak_lr == 1.0
    assert config.ema is True and config.layers == ("mlp",) and config.widths == (1, 2, 3)


@pytest.mark.parametrize(
    "argument", ["--config.peak_rl=1", "-config.peak_rl", "--noconfig.peak_rl"]
)
def test_an_unknown_key_is_answered_with_the_nearest_one(argument):
    with pytest.raises(UserError, match="'peak_rl'.*did you mean peak_lr?.*some.py"):
        parsed(argument, "1")


@pytest.mark.parametrize("argument", ["--config.layers=lstm,mlp", "--config.widths=8,a"])
def test_a_tuple_of_the_wrong_things_is_refused_and_the_right_form_shown(argument):
    with pytest.raises(UserError, match=r"became \(.*write a tuple as --config\.\w+='\("):
        parsed(argument)


def test_a_key_without_a_type_is_refused():
    with pytest.raises(UserError, match="config.note=1.*None"):
        parsed("--config.note=1")


def test_the_path_is_taken_out_of_the_arguments():
    assert configs.take_path(["it", "--x"], "d.py") == ("d.py", ["it", "--x"])
    assert configs.take_path(["it", "--config=a.py", "--config.k=1"], "d.py") == (
        "a.py",
        ["it", "--config.k=1"],
    )
    assert configs.take_path(["it", "-config", "a.py", "--x"], "d.py") == ("a.py", ["it", "--x"])
    assert configs.take_path(["it", "--config=a", "--config=b"], "d.py") == ("b", ["it"])
    assert configs.take_path(["it", "--", "--config=a"], "d.py") == (
        "d.py",
        ["it", "--", "--config=a"],
    )
    with pytest.raises(UserError, match="needs a file"):
        configs.take_path(["it", "--config"], "d.py")


def test_a_command_line_chooses_an_experiment():
    flag_values = flags.FlagValues()
    flags.DEFINE_integer("x", 0, "another", flag_values=flag_values)
    chosen, rest = configs.choose(
        flag_values, ["it", "--x=1", f"--config={TINY}", "--config.steps=3"]
    )
    assert rest == ["it", "--x=1", "--config.steps=3"]
    flag_values(rest)
    assert chosen.path == TINY and chosen.config.steps == 3 and flag_values.x == 1
    assert chosen.defaults == chosen.file.get_config().to_dict() != chosen.config.to_dict()
    by_default, _ = configs.choose(flags.FlagValues(), ["it"])
    assert by_default.path == configs.DEFAULT
