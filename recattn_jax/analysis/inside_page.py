"""The page of what was seen inside of a run: hover over a token, and see what it looks at."""

import dataclasses
import math
import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recattn_jax.analysis.inside import RecurrenceTrace
from recattn_jax.analysis.inspection import Inspection
from recattn_jax.analysis.page import write_page
from recattn_jax.shapes import Float
from recattn_jax.untrusted import one_line

MOST_UNITS = 64
"""Of a hidden state in the page; all are in `maps.npz`."""
# A number is one character, so that 200 tokens, 8 layers and 8 heads stay under 3 MB.
_LEVELS = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
_LOST = "-"  # what is not finite
_ASSETS = ("inside.css", "levels.js", "timeline.js", "inside.js")
_VISIBLE = {"\n": "\u21b5", "\t": "\u21e5", " ": "\u2423"}
_NOTES = {
    "self": "A row is a step of the sequence, and a column a step that it looks at.",
    "cross": "A row is a step of the target, and a column a step of the source.",
    "location": "A row is a step of the target; where it looks in the source goes by location.",
    "slots": "A row is a step of the sequence, and a column a memory slot.",
    "pooling": "One look at all steps makes the vector that is read out.",
}


@dataclasses.dataclass(frozen=True, eq=False)
class TokenMap:
    """What each token of one axis has to do with each of another, as the page shows it.

    Attributes:
      path: what it is a map of, such as a layer.
      kind: a word on it, beside the path in the list to choose from.
      rows: the axis of the rows: one of `Inspection.labels`, or any name of one without labels.
      columns: the axis of the columns.
      values: `[H, R, C]`, by head; where some are negative the colours diverge.
      verb: what a row does to a column, such as `looks at`.
      unit: what a value is, such as `weight`.
      note: a sentence on how to read it.

    >>> values = np.eye(3, dtype=np.float32)[None]
    >>> each = TokenMap("body", "self", "input", "input", values, "looks at", "weight", "")
    """

    path: str
    kind: str
    rows: str
    columns: str
    values: Float[np.ndarray, "H R C"]
    verb: str
    unit: str
    note: str


def attention_maps(seen: Inspection) -> list[TokenMap]:
    """The maps of attention as the page shows them.

    Args:
      seen: what was seen.

    Returns:
      As many maps as there are of attention.

    >>> maps = attention_maps(seen)  # doctest: +SKIP
    """
    return [
        TokenMap(
            each.path, each.kind, *seen.axes[each.path], each.weights,
            verb="looks at", unit="weight", note=_NOTES[each.kind],
        )
        for each in seen.attention
    ]  # fmt: skip


def attribution_maps(seen: Inspection) -> list[TokenMap]:
    """The maps of what outputs owe to input tokens as the page shows them.

    Args:
      seen: what was seen.

    Returns:
      Three for each axis of inputs; none of a text without attributions.

    >>> [each.kind for each in attribution_maps(seen)]  # doctest: +SKIP
    ['gradient norm', 'gradient x input', 'integrated gradients']
    """
    if (found := seen.attribution) is None:
        return []
    rows = seen.output_axis if seen.expected else "label"
    which = f"number {found.of}, {one_line(seen.outputs[found.of])}"
    one = f"Of one output alone, {which}; {found.exactness}."
    row = "A row is an output, and a column an input token"
    maps = []
    for index, axis in enumerate(seen.inputs):
        integrated = np.zeros_like(found.gradients[index])
        integrated[found.of] = found.integrated[index]
        kinds = {
            "gradient norm": (found.norms[index], "nats by length", f"{row}, whatever its length."),
            "gradient x input": (found.gradients[index], "nats", f"{row}, as it begins to shrink."),
            "integrated gradients": (integrated, "nats", one),
        }
        maps += [
            TokenMap(f"from {axis}", kind, rows, axis, values[None], "owes to", unit, note)
            for kind, (values, unit, note) in kinds.items()
        ]
    return maps


def write_inside_page(file: Path, title: str, seen: Inspection, maps: Sequence[TokenMap]) -> None:
    """Writes the page: one file, which needs no network.

    Args:
      file: its name ends in `.html`.
      title: which run it is of, any text.
      seen: what was seen.
      maps: those to choose from, in their order.

    Raises:
      StorageError: it cannot be written.

    >>> maps, file = attention_maps(seen), Path("inside.html")  # doctest: +SKIP
    >>> write_inside_page(file, "runs/a", seen, maps)  # doctest: +SKIP
    """
    title = one_line(title)
    write_page(file, title, {"title": title} | _told(seen, maps), _ASSETS)


def _told(seen: Inspection, maps: Sequence[TokenMap]) -> dict[str, Any]:
    """What the page is given."""
    losses = None
    if seen.losses is not None:
        losses = {
            "axis": seen.output_axis,
            "mean": _number(np.mean(seen.losses)),
            "nats": _numbers(seen.losses),
            "expected": [_visible(token) for token in seen.expected],
        }
    return {
        "prediction": seen.answer and one_line(seen.answer),
        "exactness": seen.exactness,
        "left_out": [one_line(line) for line in seen.left_out],
        "labels": {axis: [_visible(token) for token in seen.labels[axis]] for axis in seen.labels},
        "maps": [_map(each) for each in maps],
        "traces": [_trace(trace, seen.axis(trace.path)) for trace in seen.recurrence],
        "losses": losses,
    }


def _map(each: TokenMap) -> dict[str, Any]:
    signed = bool(np.any(each.values < 0))
    return {
        "path": one_line(each.path),
        "kind": each.kind,
        "rows": each.rows,
        "columns": each.columns,
        "size": each.values.shape[1:],
        "verb": each.verb,
        "unit": each.unit,
        "note": each.note,
        "signed": signed,
        "heads": [_coded(head, signed) for head in each.values],
    }


def _trace(trace: RecurrenceTrace, axis: str) -> dict[str, Any]:
    hidden_TH = trace.carries[0].reshape(len(trace.carries[0]), -1)
    with np.errstate(invalid="ignore"):  # a state that is not finite varies by NaN
        liveliest = np.argsort(-np.std(hidden_TH, axis=0), kind="stable")[:MOST_UNITS]
    units = np.sort(liveliest)
    return {
        "path": one_line(trace.path),
        "cell": trace.cell,
        "axis": axis,
        "gates": {
            name: _numbers(gate.reshape(len(gate), -1).mean(axis=1))
            for name, gate in trace.gates.items()
        },
        "size": hidden_TH.shape,
        "units": units.tolist(),
        "states": _coded(hidden_TH[:, units].T, signed=True),
    }


def _coded(values: Float[np.ndarray, "R C"], signed: bool) -> dict[str, Any]:
    """Rows of characters: square roots, rounded, of the shares of the largest in their row."""
    finite = np.isfinite(values)
    sizes = np.where(finite, np.abs(values), 0.0)
    scales = np.max(sizes, axis=1)
    shares = np.sqrt(sizes / np.where(scales > 0, scales, 1.0)[:, None])
    levels = np.rint(31 + 31 * np.sign(values) * shares if signed else 63 * shares)
    letters = np.frombuffer((_LEVELS + _LOST).encode(), np.uint8)
    coded = letters[np.where(finite, levels, len(_LEVELS)).astype(int)]
    nothing = _LEVELS[31 if signed else 0]
    return {
        "scales": _numbers(scales),
        "rows": [row.tobytes().decode().rstrip(nothing) for row in coded],
    }


def _numbers(values: Float[np.ndarray, " N"]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: Any) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _visible(token: str) -> str:
    """A token as one line, whose spaces are seen."""
    for space, sign in _VISIBLE.items():
        token = token.replace(space, sign)
    return re.sub(r"\s", _VISIBLE[" "], one_line(token))
