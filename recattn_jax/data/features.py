"""From the features of TFDS to the values of records: strings, and lists of strings."""

from collections.abc import Callable
from typing import Any

import tensorflow_datasets as tfds

Value = str | list[str]


def value_of(feature: Any, encoding: str) -> Callable[[Any], Value] | None:
    """Returns what makes a record's value from a feature's, or None where the two do not fit.

    Text becomes a string, a class label its name, and a sequence of either a list.

    Args:
        feature: one of TFDS.
        encoding: of the bytes of text.
    """
    if isinstance(feature, tfds.features.Sequence):
        inner = _string_of(feature.feature, encoding)
        if inner is None:
            return None
        return lambda values: [inner(value) for value in values]
    return _string_of(feature, encoding)


def flat(features: Any) -> dict[str, Any]:
    """Returns features by name; one inside another, such as a language of a translation, as a/b.

    Args:
        features: the dictionary of features of a set.
    """
    found: dict[str, Any] = {}
    for name, feature in features.items():
        if isinstance(feature, tfds.features.FeaturesDict):
            found |= {f"{name}/{inner}": leaf for inner, leaf in flat(feature).items()}
        else:
            found[name] = feature
    return found


def _string_of(feature: Any, encoding: str) -> Callable[[Any], str] | None:
    if isinstance(feature, tfds.features.Text) and feature.shape == ():
        return lambda value: value.decode(encoding)
    if isinstance(feature, tfds.features.ClassLabel):
        return lambda value: feature.int2str(int(value))
    return None
