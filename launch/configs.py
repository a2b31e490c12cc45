"""The config on the command line: `--config=FILE` and `--config.key=value`.

`ml_collections.config_flags` does the parsing. What it lets through or answers with a traceback is
checked here: an unknown key, a value of the wrong type, `a,b` for a tuple, which it reads as one
string with a comma in it.
"""

import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from launch.app import asks_help, nearest
from recattn_jax.errors import UserError
from recattn_jax.training.experiment_file import load_experiment_file

DEFAULT = "experiments/char_lm.py"
_COMMENT = re.compile(r" +(?:\w+\.)?(\w+) ?= ?[^=].*  # (.+)")
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)(=.*)?$", re.DOTALL)


@dataclass(frozen=True)
class Chosen:
    """The experiment that a command line names.

    Args:
      path: its file.
      file: imported.
      config: its config, which parsing the command line changes.
      defaults: the file's own values.
    """

    path: str
    file: ModuleType
    config: config_dict.ConfigDict
    defaults: Mapping[str, Any]

    def check(self) -> None:
        """Refuses, after parsing, a tuple that holds other things than the file's tuple does.

        Raises:
          UserError: naming the key and how to write it.
        """
        for key, default in self.defaults.items():
            value = self.config[key]
            if not isinstance(default, tuple) or value == default:
                continue
            commas = [item for item in value if isinstance(item, str) and "," in item]
            kinds = {type(item) for item in default}
            wrong = [item for item in value if kinds and type(item) not in kinds]
            if commas or wrong:
                example = repr(default).replace(" ", "").replace("'", '"')
                raise UserError(
                    f"--config.{key} became {value!r}, but the file's value is {default!r}; "
                    f"write a tuple as --config.{key}='{example}'"
                )


def choose(flag_values: flags.FlagValues, argv: Sequence[str]) -> tuple[Chosen, list[str]]:
    """Takes `--config=FILE` out of the arguments, and defines flags for the overrides among them.

    Args:
      flag_values: where to define them.
      argv: the program name and the arguments.

    Returns:
      The experiment, and the arguments that are left to parse.

    Raises:
      UserError: there is no such file, it is no experiment, or an override names an unknown key.
    """
    path, rest = take_path(argv, DEFAULT)
    file, config = load(path)
    chosen = Chosen(path, file, config, config.to_dict())
    if asks_help(argv):
        describe(flag_values, chosen)
    else:
        define(flag_values, config, path, rest)
    return chosen, rest


def take_path(argv: Sequence[str], default: str) -> tuple[str, list[str]]:
    """Finds `--config=FILE` (or `--config FILE`; the last one counts).

    Args:
      argv: the program name and the arguments.
      default: the file if none is named.

    Returns:
      The file and the arguments without it.

    Raises:
      UserError: `--config` without a file.
    """
    path, rest = default, list(argv[:1])
    arguments = iter(argv[1:])
    for argument in arguments:
        if argument == "--":
            rest.append(argument)
            break
        name, equals, value = argument.partition("=")
        if name not in ("--config", "-config"):
            rest.append(argument)
            continue
        path = value if equals else next(arguments, "")
        if not path:
            raise UserError("--config needs a file: --config=experiments/char_lm.py")
    return path, [*rest, *arguments]


def load(path: str) -> tuple[ModuleType, config_dict.ConfigDict]:
    """Imports an experiment file and asks it for its config.

    Args:
      path: the file.

    Returns:
      The module and its config.

    Raises:
      UserError: there is no such file, it is no Python, or it is no experiment.
    """
    experiment_file = load_experiment_file(path)
    config = experiment_file.get_config()
    if not isinstance(config, config_dict.ConfigDict):
        raise UserError(
            f"{path}: get_config() returned {type(config).__name__}, expected a ConfigDict"
        )
    return experiment_file, config


def define(
    flag_values: flags.FlagValues, config: config_dict.ConfigDict, path: str, argv: list[str]
) -> None:
    """Defines a flag for every key that `argv` overrides; parsing then changes `config`.

    Args:
      flag_values: where to define them.
      config: the experiment's config.
      path: its file, for messages.
      argv: the program name and the arguments.

    Raises:
      UserError: an override names an unknown key.
    """
    for argument in argv[1:]:
        match = _OVERRIDE.match(argument)
        if match and match[1] not in config:
            key = match[1]
            raise UserError(
                f"unknown config key {key!r} in {argument!r}{nearest(key, config.keys())}"
                f" ({path} defines the keys)"
            )
        if match and config[match[1]] is None:
            raise UserError(
                f"{argument!r}: {path} leaves this key None, which does not say of what type it is;"
                " set it in the file"
            )
    config_flags.DEFINE_config_dict("config", config, flag_values=flag_values, sys_argv=argv)


def describe(flag_values: flags.FlagValues, chosen: Chosen) -> None:
    """Defines flags that are shown and never parsed: the file, and every key of its config.

    Args:
      flag_values: where to define them.
      chosen: the experiment.
    """
    from recattn_jax.analysis.results import as_flag  # noqa: PLC0415  (it draws, which is slow)

    flags.DEFINE_string(
        "config", chosen.path, "experiment file with get_config() and build(); its keys are below",
        flag_values=flag_values,
    )  # fmt: skip
    said = comments(chosen.file)
    for key, value in chosen.defaults.items():
        flags.DEFINE_string(
            f"config.{key}", as_flag(value), said.get(key, ""), flag_values=flag_values
        )


def comments(file: ModuleType) -> dict[str, str]:
    """What experiment files say beside their numbers: `steps=9,  # how many`.

    Args:
      file: the experiment file; what it has of other modules beside it counts too, its own first.
    """
    found: dict[str, str] = {}
    modules, seen = [file], set[str]()
    for module in modules:
        source = str(module.__file__)
        if source in seen:
            continue
        seen.add(source)
        with tokenize.open(source) as text:  # in the encoding that Python reads it by
            for match in filter(None, map(_COMMENT.match, text)):
                found.setdefault(match[1], match[2])
        others = (value for value in vars(module).values() if isinstance(value, ModuleType))
        modules += [other for other in others if other.__name__.startswith("experiments")]
    return found


def parse(experiment_file: ModuleType, path: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The numbers that a run has which is started with these overrides, and no other.

    Args:
      experiment_file: imported from `path`.
      path: the file, for messages.
      arguments: `--config.key=value`, each one word.

    Raises:
      UserError: one of them is none of the file's keys, or no value for it.
    """
    config = experiment_file.get_config()
    chosen = Chosen(path, experiment_file, config, config.to_dict())
    flag_values = flags.FlagValues()
    argv = [path, *arguments]
    define(flag_values, config, path, argv)
    try:
        flag_values(argv)
    except flags.Error as error:
        raise UserError(f"{path}: {error}") from error
    chosen.check()
    numbers: dict[str, Any] = config.to_dict()
    return numbers
