"""Records from sets that TFDS prepared, whoever did."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from recattn_jax import untrusted
from recattn_jax.data.builders import Field, irregular, open_prepared
from recattn_jax.data.features import flat, steps_of, value_of
from recattn_jax.data.readers.files import CARVED, first_line, with_warnings
from recattn_jax.data.records import Source, surveyed, with_validation
from recattn_jax.errors import UserError

# Fields that are lists of strings, and the one that is an array; all others are strings.
_LISTS = ("tokens", "tags", "targets")
_SERIES = "series"
# Where features.json names classes, now and in sets of former years, and what these begin with.
_NAMES_OF_CLASSES = ("pythonClassName", "python_class_name", "type")
_TFDS = "tensorflow_datasets."


def prepared_records(
    path: str | pathlib.Path,
    fields: Mapping[str, str],
    encoding: str = "utf-8",
    validation: float = CARVED,
) -> Source:
    """A set that TFDS prepared before, in the array_record format, as records.

    Args:
        path: the folder of one version, such as "tensorflow_datasets/trec/1.0.0".
        fields: each field of the records, and the feature that it is made of. A text becomes a
            string, a class label its name, a sequence of either a list. One text is a list of one
            where the field is "targets". "a/b" is the feature b inside a. Numbers, time first,
            become "series", of several features with commas side by side: "a/x,a/y".
        encoding: of the set's text; TFDS does not check it.
        validation: the share of "train" that becomes "validation" where the set has none; 0: no
            such split.

    Returns:
        The splits that the set has, and "validation".

    Raises:
        UserError: if the folder holds no such set (its features are named), a feature does not fit
            its field, or an example is not in this encoding (named with the byte).

    >>> folder = "tensorflow_datasets/trec/1.0.0"
    >>> fields = {"text": "text", "label": "label-coarse"}
    >>> source = prepared_records(folder, fields)  # doctest: +SKIP
    """
    folder = pathlib.Path(path)
    info = _info(folder)
    features = flat(info.features)
    chosen = {
        field: _series(folder, name.split(","), features)
        if field == _SERIES
        else _field(folder, field, name, features, encoding)
        for field, name in fields.items()
    }
    try:
        source = open_prepared(folder, chosen)
    except UserError:
        raise
    # TFDS and array_record meet damage with whatever they stumble over (KeyError, TypeError,
    # RuntimeError, errors of protobuf, ...).
    except Exception as error:
        raise UserError(
            f"{folder}: the files are damaged or missing ({first_line(error)}); prepare it again"
        ) from error
    if "train" in source.splits and "validation" not in source.splits and validation:
        splits = with_validation(source.splits, validation, str(folder))
        source = surveyed(source.name, splits)
    classes = _declared(features[fields["label"]]) if "label" in fields else ()
    return with_warnings(dataclasses.replace(source, classes=classes))


def _info(folder: pathlib.Path) -> Any:
    if not (folder / "dataset_info.json").is_file():
        raise UserError(
            f"{folder}: no prepared TFDS data set is here (no dataset_info.json); "
            "give the folder of one version, such as data/trec/1.0.0"
        )
    if (stray := irregular(folder)) is not None:
        raise UserError(f"{stray}: a pipe or a device, not a file; prepare the set again")
    _check_features(folder)
    try:
        info = tfds.builder_from_directory(str(folder)).info
        info.features.items()
    # Its parsers meet damage with whatever they stumble over.
    except Exception as error:
        raise UserError(f"{folder}: TFDS cannot read this set ({first_line(error)})") from error
    if info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{folder}: the file format is {info.file_format}, which only TensorFlow reads; "
            "prepare the set again with file_format='array_record'"
        )
    return info


def _check_features(folder: pathlib.Path) -> None:
    """Sees to it that no class is named but those of TFDS, which imports whatever is named.

    Raises:
        UserError: names another.
    """
    file = folder / "features.json"
    if not untrusted.is_there(file):
        return
    try:
        left: list[Any] = [untrusted.read_object(file)]
    except untrusted.Unreadable as error:
        raise UserError(f"{file}: {error}; prepare the set again") from None
    while left:
        found = left.pop()
        if isinstance(found, list):
            left += found
        if isinstance(found, str) and found.lstrip().startswith("{"):  # JSON within JSON
            with contextlib.suppress(untrusted.Unreadable):
                left.append(untrusted.parse_json(found))
        if not isinstance(found, dict):
            continue
        left += found.values()
        for name in (found.get(key) for key in _NAMES_OF_CLASSES):
            if isinstance(name, str) and not name.startswith(_TFDS):
                raise UserError(
                    f"{file}: names the class {name!r:.80}, and importing it runs its code;"
                    " prepare the set again with features of TFDS itself"
                )


def _field(
    folder: pathlib.Path, field: str, name: str, features: Mapping[str, Any], encoding: str
) -> Field:
    """Returns what takes the value of `field` from an example; checks that the feature fits."""
    values = {key: value_of(feature, encoding) for key, feature in features.items()}
    value = values.get(name)
    if value is None:
        usable = ", ".join(sorted(key for key, found in values.items() if found)) or "none"
        raise UserError(f"{folder}: no text feature {name!r}; the usable features are: {usable}")
    is_list = isinstance(features[name], tfds.features.Sequence)
    if is_list and field not in _LISTS:
        raise UserError(f"{folder}: feature {name!r} is a sequence, but {field!r} is one string")
    if not is_list and field in _LISTS and field != "targets":
        raise UserError(f"{folder}: feature {name!r} is one string, but {field!r} is a list")
    path = name.split("/")
    if not is_list and field == "targets":
        return lambda example: [str(value(_at(example, path)))]
    return lambda example: value(_at(example, path))


def _series(folder: pathlib.Path, names: list[str], features: Mapping[str, Any]) -> Field:
    """Returns what takes numbers from an example, several features side by side."""
    usable = {key: made for key, feature in features.items() if (made := steps_of(feature))}
    for name in names:
        if name not in usable:
            known = ", ".join(sorted(usable)) or "none"
            raise UserError(f"{folder}: no feature {name!r} of numbers over time, only {known}")

    def series(example: Any) -> np.ndarray:
        found = [usable[name](_at(example, name.split("/"))) for name in names]
        steps = found[0] if len(found) == 1 else np.stack(found, axis=-1)
        if not len(steps) or not np.isfinite(steps).all():
            raise ValueError(f"{', '.join(names)}: no steps, or a number that is not finite")
        return steps

    return series


def _at(example: Any, path: list[str]) -> Any:
    return functools.reduce(lambda inner, key: inner[key], path, example)


def _declared(feature: Any) -> tuple[str, ...]:
    return tuple(feature.names) if isinstance(feature, tfds.features.ClassLabel) else ()
