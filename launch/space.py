"""The space of a sweep: what the experiment file's `sweep()` says, checked before anything runs.

Every choice is parsed as `launch.train` will parse it, so what is not what it says (an unknown key,
1.5 for a number of heads, None, which no flag can say) is found here and not by the first trial.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from launch import configs
from launch.app import nearest
from recattn_jax.analysis.results import as_flag
from recattn_jax.errors import UserError
from recattn_jax.training.space import Span

_PLAIN = (bool, int, float, str)
Values = tuple[Any, ...] | Span
Parameters = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """What is varied, by key.

    Args:
      values: a span, or the choices; a tuple among these is kept as a flag says it, since the
        trials' journal holds only numbers and words.

    Example:
      >>> print(Space({"width": (64, 128), "mixer": ("lstm", "gru", "rnn")}))
      6 configurations: width 2 x mixer 3
    """

    values: Mapping[str, Values]

    @property
    def size(self) -> int | None:
        """How many configurations there are; None where a key has a span of all numbers."""
        size = 1
        for values in self.values.values():
            if not isinstance(values, Span):
                size *= len(values)
            elif isinstance(values.low, int) and isinstance(values.high, int):
                size *= values.high - values.low + 1
            else:
                return None
        return size

    def point(self, index: int) -> Parameters:
        """One of the configurations of a space that has a size; the last key varies fastest."""
        found = []
        for key, values in reversed(list(self.values.items())):
            choices: Sequence[Any] = (
                range(int(values.low), int(values.high) + 1) if isinstance(values, Span) else values
            )
            index, place = divmod(index, len(choices))
            found.append((key, choices[place]))
        return dict(reversed(found))

    def plain(self) -> dict[str, Any]:
        """The space as JSON keeps it."""
        return {
            key: str(values) if isinstance(values, Span) else list(values)
            for key, values in self.values.items()
        }

    def __str__(self) -> str:
        parts = []
        for key, values in self.values.items():
            if isinstance(values, Span):
                log = " (log)" if values.log else ""
                parts.append(f"{key} {values.low:g} to {values.high:g}{log}")
            else:
                parts.append(f"{key} {len(values)}")
        count = "no end of" if self.size is None else str(self.size)
        return f"{count} configurations: {' x '.join(parts)}"


def overrides(numbers: Mapping[str, Any]) -> list[str]:
    """Numbers as the commands take them.

    >>> overrides({"width": 64, "mixer": "lstm"})
    ['--config.width=64', '--config.mixer=lstm']
    """
    return [f"--config.{key}={as_flag(value)}" for key, value in numbers.items()]


def read_space(
    experiment_file: ModuleType, path: str, base: Sequence[str], keys: Sequence[str] | None
) -> Space:
    """Asks the experiment file what is worth varying.

    Args:
      experiment_file: imported from `path`.
      path: the file, for messages.
      base: overrides of the keys that every trial shares.
      keys: the keys to vary; None for all of `sweep()`.

    Returns:
      The space, its values in the types of the config.

    Raises:
      UserError: there is no `sweep()`, or a key or value of it that no run can have.
    """
    sweep = getattr(experiment_file, "sweep", None)
    if not callable(sweep):
        raise UserError(f"{path} has no function sweep(): it says what is worth varying")
    found = sweep()
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"{path}: sweep() returned {found!r}, expected {{key: (value, ...)}}")
    keys = list(found) if keys is None else keys
    if not keys:
        raise UserError(f"--space= names no key; sweep() in {path} varies {', '.join(found)}")
    for key in keys:
        if key not in found:
            raise UserError(
                f"--space={key}: sweep() in {path} varies {', '.join(found)}{nearest(key, found)}"
            )
    numbers = configs.parse(experiment_file, path, base)
    values: dict[str, Values] = {}
    for key in keys:
        if key not in numbers:
            raise UserError(
                f"{path}: sweep() varies {key!r}, which get_config() does not have"
                f"{nearest(str(key), numbers)}"
            )
        if isinstance(found[key], Span):
            values[key] = _span(found[key], numbers[key], f"{path}: sweep()[{key!r}]")
        else:
            values[key] = _choices(experiment_file, path, base, key, found[key])
    return Space(values)


def _span(span: Span, default: Any, where: str) -> Span:
    if type(default) is float:
        return Span(float(span.low), float(span.high), span.log)
    if type(default) is int and type(span.low) is type(span.high) is int:
        return span
    raise UserError(f"{where} is {span}, but the config's value is {default!r}")


def _choices(
    experiment_file: ModuleType, path: str, base: Sequence[str], key: str, choices: Any
) -> tuple[Any, ...]:
    where = f"{path}: sweep()[{key!r}]"
    if not isinstance(choices, tuple | list) or not choices:
        raise UserError(f"{where} is {choices!r}, expected a tuple of choices or a Span")
    parsed = []
    for choice in choices:
        try:
            (words,) = overrides({key: choice})
            value = configs.parse(experiment_file, path, [*base, words])[key]
        except (UserError, TypeError, ValueError) as error:
            raise UserError(f"{where} has {choice!r}, which no flag can say: {error}") from error
        if any(ord(letter) < 32 for letter in words):
            raise UserError(f"{where} has {choice!r}, and no command may hold a control character")
        if value != choice:
            raise UserError(f"{where} has {choice!r}, which a flag would make {value!r}")
        parsed.append(value)
    if any(choice in parsed[:index] for index, choice in enumerate(parsed)):
        raise UserError(f"{where} has a value twice: {choices!r}")
    if all(isinstance(choice, _PLAIN) for choice in parsed):
        return tuple(parsed)
    return tuple(as_flag(choice) for choice in parsed)
