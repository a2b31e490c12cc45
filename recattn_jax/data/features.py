"""From the features of TFDS to the values of records: strings, lists of strings, and arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Shaped

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


def steps_of(feature: Any) -> Callable[[Any], Shaped[np.ndarray, "T ..."]] | None:
    """Returns what makes a series from a feature's value, or None where that holds no numbers.

    Args:
        feature: one of TFDS: a tensor of numbers whose first axis is time, or a sequence of them.
    """
    inner = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
    # A class label is a tensor of numbers too, for TFDS.
    is_tensor = isinstance(inner, tfds.features.Tensor)
    if not is_tensor or isinstance(inner, tfds.features.ClassLabel):
        return None
    if np.dtype(inner.np_dtype).kind not in "iuf" or (inner is feature and not feature.shape):
        return None
    dtype = np.dtype(inner.np_dtype)
    # Nothing here needs more than float32, and JAX takes no float64.
    return lambda value: np.asarray(value, np.float32 if dtype.itemsize > 2 else dtype)


def flat(features: Any) -> dict[str, Any]:
    """Returns features by name; one inside another, such as a language of a translation, as a/b.

    Args:
        features: the dictionary of features of a set.
    """
    found: dict[str, Any] = {}
    for name, feature in features.items():
        is_sequence = isinstance(feature, tfds.features.Sequence)
        inner = feature.feature if is_sequence else feature
        if not isinstance(inner, tfds.features.FeaturesDict):
            found[name] = feature
            continue
        for below, leaf in flat(inner).items():
            found[f"{name}/{below}"] = tfds.features.Sequence(leaf) if is_sequence else leaf
    return found


def _string_of(feature: Any, encoding: str) -> Callable[[Any], str] | None:
    if isinstance(feature, tfds.features.Text) and feature.shape == ():
        return lambda value: value.decode(encoding)
    if isinstance(feature, tfds.features.ClassLabel):
        return lambda value: feature.int2str(int(value))
    return None
