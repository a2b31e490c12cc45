"""Arrays by name, held to a layout: what the converters of all frameworks share.

A layout gives the name of every array its dimensions, `{"kernel": "D 4H", "bias": "4H"}`. A letter
has one size throughout, the one with which it is met first.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

Layout = dict[str, str]
Params = dict[str, Any]
"""Nested dictionaries of arrays, as Linen keeps them under `params`."""
Arrays = dict[str, np.ndarray]


def cell(
    gates: int, biases: int, width: str = "D", projected: bool = False, prefix: str = ""
) -> Layout:
    """The layout of one of our recurrent cells.

    Args:
      gates: G.
      biases: rows of the bias: G, or 4 for a GRU that resets after the product.
      width: of its inputs, as a dimension.
      projected: whether the hidden state is projected to a width P of its own.
      prefix: what stands before every name.

    Returns:
      Names and dimensions.

    >>> cell(4, 4)["recurrent_kernel"]
    'H 4 H'
    """
    layout = {
        f"{prefix}recurrent_kernel": f"{'P' if projected else 'H'} {gates} H",
        f"{prefix}input_kernel": f"{width} {gates} H",
        f"{prefix}bias": f"{biases} H",
    }
    return layout | ({f"{prefix}projection_kernel": "H P"} if projected else {})


def read(owner: str, arrays: Mapping[str, Any], layout: Layout) -> Arrays:
    """Takes exactly the arrays of a layout.

    Args:
      owner: whose arrays they are, for the messages.
      arrays: anything that `numpy.asarray` takes, by name.
      layout: names and dimensions.

    Returns:
      numpy arrays, in the order of the layout.

    Raises:
      ValueError: if a name is missing or unknown, or a shape is wrong; the message names it.

    >>> list(read("Dense", {"kernel": np.ones((3, 2))}, {"kernel": "D E"}))
    ['kernel']
    """
    missing = [name for name in layout if name not in arrays]
    unknown = [str(name) for name in arrays if name not in layout]
    if missing or unknown:
        found = (("missing", missing), ("unknown", unknown))
        raise ValueError(
            f"{owner}: " + "; ".join(f"{what} {', '.join(keys)}" for what, keys in found if keys)
        )
    sizes: dict[str, int] = {}
    result = {}
    for name, dims in layout.items():
        array = np.asarray(arrays[name]).copy()  # not the memory of a module that trains on
        wanted, known = dims.split(), dict(sizes)
        if array.ndim != len(wanted) or not all(
            _fits(dim, size, sizes) for dim, size in zip(wanted, array.shape, strict=True)
        ):
            given = [f"{letter} = {size}" for letter, size in known.items() if letter in dims]
            so_far = f" with {', '.join(given)}" if given else ""
            raise ValueError(
                f"{owner}: {name} must be [{', '.join(wanted)}]{so_far}, got {list(array.shape)}"
            )
        result[name] = array
    return result


def _fits(dim: str, size: int, sizes: dict[str, int]) -> bool:
    """Whether a size is that of `dim`, such as `D`, `4H` or `3`; a new letter is written down."""
    match = re.fullmatch(r"(\d*)([A-Z]?)", dim)
    assert match, dim
    count, letter = int(match[1] or 1), match[2]
    if letter and letter not in sizes:
        if size == 0 or size % count:
            return False
        sizes[letter] = size // count
    return size == count * sizes.get(letter, 1)


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Names the arrays of nested dictionaries by their paths.

    Args:
      params: nested dictionaries.
      prefix: what stands before every path.

    Returns:
      The leaves by path.

    >>> flatten({"query": {"kernel": 1}, "scale": 2})
    {'query/kernel': 1, 'scale': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in params.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return flat


def nest(flat: Mapping[str, Any]) -> Params:
    """The inverse of `flatten`.

    Args:
      flat: leaves by path.

    Returns:
      Nested dictionaries.

    >>> nest({"query/kernel": 1, "scale": 2})
    {'query': {'kernel': 1}, 'scale': 2}
    """
    params: Params = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return params


def read_attention(owner: str, params: Mapping[str, Any], out: str = "out") -> Arrays:
    """Takes the arrays of multi-head attention, which ours, Flax's and Keras's hold alike.

    Args:
      owner: whose they are, for the messages.
      params: `query`, `key`, `value`, `out` with a `kernel`, and a `bias` each or none at all.
      out: what the last projection is called.

    Returns:
      `query/kernel [D, H, K]`, `key/kernel [M, H, K]`, `value/kernel [M, H, K]`, `out/kernel
      [H, K, D]`, where D = H K; with biases `[H, K]` and, of the last, `[D]`.

    Raises:
      ValueError: naming a key that is missing, unknown or of the wrong shape.

    >>> kernels = {name: {"kernel": np.ones((4, 2, 2))} for name in ("query", "key", "value")}
    >>> list(read_attention("ours", kernels | {"out": {"kernel": np.ones((2, 2, 4))}}))
    ['query/kernel', 'key/kernel', 'value/kernel', 'out/kernel']
    """
    layout = {
        "query/kernel": "D H K",
        "query/bias": "H K",
        "key/kernel": "M H K",
        "key/bias": "H K",
        "value/kernel": "M H K",
        "value/bias": "H K",
        f"{out}/kernel": "H K D",
        f"{out}/bias": "D",
    }
    flat = flatten(params)
    biased = any(name.endswith("/bias") for name in flat)
    arrays = read(
        owner, flat, {n: dims for n, dims in layout.items() if biased or not n.endswith("/bias")}
    )
    width, heads, size = arrays["query/kernel"].shape
    if width != heads * size:
        raise ValueError(
            f"{owner}: query/kernel must be [D, H, K] with D = H K, got {[width, heads, size]}"
        )
    return arrays
