"""Pictures of layer expressions, drawn from the expressions themselves: SVG, with nothing else."""

import dataclasses
import functools
import html
import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn

from recattn_jax.layers import (
    AttendToInput,
    Bidirectional,
    BlockRecurrent,
    CausalConvolution,
    Combinator,
    CrossAttention,
    Feedback,
    FeedbackMemory,
    LocationAttention,
    Parallel,
    Recurrent,
    Repeat,
    Residual,
    SelfAttention,
    SequenceLayer,
    Serial,
    Tied,
    add,
    multiply,
)
from recattn_jax.layers.linear_attention import MatrixRecurrent
from recattn_jax.layers.linear_recurrent import LinearRecurrent

Pixels = int | float

# The first that fits is the colour of a layer without parts.
_COLOURS = (
    ((Recurrent, LinearRecurrent, MatrixRecurrent), "#cfe3f7"),
    ((SelfAttention, CrossAttention, LocationAttention), "#fbdcb8"),
    ((CausalConvolution,), "#d5ecd0"),
    ((SequenceLayer,), "#ececec"),
)
_SIGNS = {add: "+", multiply: "×"}
_GAP = 16.0  # between layers, where an arrow has room
_PAD = 12.0  # inside a frame
_LINE = 15.0  # from one line of text to the next
_LETTER = 6.7  # of the monospaced text, whose width is known without a font
_WRAP = 26  # letters of a line in a box


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A part of a picture, entered at its top and left at its bottom.

    Args:
      width: of the whole.
      height: of the whole.
      middle: where it is entered and left, from its left side.
      marks: its SVG elements.
      line: whether it is entered by a line, which needs no head of an arrow before it.

    >>> Drawing(40.0, 20.0, 20.0, ("<path/>",)).at(3.0, 4.0)
    '<g transform="translate(3 4)"><path/></g>'
    """

    width: Pixels
    height: Pixels
    middle: Pixels
    marks: tuple[str, ...]
    line: bool = False

    def at(self, x: Pixels, y: Pixels) -> str:
        """Its elements, moved to a place."""
        return f'<g transform="translate({x:g} {y:g})">{"".join(self.marks)}</g>'


def diagram(layer: SequenceLayer) -> str:
    """Draws an expression: data flow from top to bottom, and dashed is what a later step sees.

    Recurrences are blue, attention is orange, convolutions are green; a frame is a layer around
    others. Boxes name the fields that differ from their defaults.

    Args:
      layer: any layer; it is neither initialised nor run.

    Returns:
      An SVG element without styles or scripts; lines and text outside boxes have the colour of the
      text around it (`currentColor`).

    Example:
      >>> from recattn_jax.layers import LSTM
      >>> diagram(Serial((LSTM(8), SelfAttention(heads=2)))).startswith("<svg")
      True
    """
    drawn = _column([_text("x"), draw(layer), _text("y")])
    label = html.escape(f"diagram of a {type(layer).__name__}")
    width, height = math.ceil(drawn.width) + 2, math.ceil(drawn.height) + 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="-1 -1 {width} {height}" role="img" aria-label="{label}"'
        ' font-family="monospace" font-size="11" fill="none" stroke="currentColor">'
        f"{''.join(drawn.marks)}</svg>"
    )


@functools.singledispatch
def draw(layer: nn.Module) -> Drawing:
    """Draws one layer and what is inside.

    A layer that is drawn in a way of its own registers it here; any other that has layers among its
    fields is a frame around them.

    Args:
      layer: unbound.

    Returns:
      The part of a picture.

    >>> from recattn_jax.layers import LSTM
    >>> draw(LSTM(8)).height > 0
    True
    """
    return _box(layer)


@draw.register
def _(layer: Combinator) -> Drawing:
    parts = [draw(part) for part in layer.parts]
    return _frame(_title(layer), parts[0] if len(parts) == 1 else _row(parts))


@draw.register
def _(layer: Serial) -> Drawing:
    parts = []
    for part, same in itertools.groupby(layer.layers):  # equal neighbours are drawn once
        count = len(list(same))
        parts.append(draw(part) if count == 1 else _frame(f"{count} in turn", draw(part)))
    return _column(parts)


@draw.register
def _(layer: Parallel) -> Drawing:
    return _fork([draw(part) for part in layer.layers], _sign(layer.combine))


@draw.register
def _(layer: Bidirectional) -> Drawing:
    both = [
        _column([_text("from the start"), draw(layer.forward_layer)]),
        _column([_text("from the end"), draw(layer.backward_layer)]),
    ]
    return _frame("Bidirectional", _fork(both, _sign(layer.combine)))


@draw.register
def _(layer: Residual) -> Drawing:
    inside = draw(layer.layer)
    left = inside.width + _PAD
    foot = _sign_box("+")
    height = inside.height + _GAP
    middle = inside.middle
    marks = (
        inside.at(0, _GAP),
        _line((middle, 0), (middle, _GAP), arrow=not inside.line),
        _line((middle, _GAP / 2), (left, _GAP / 2), (left, height + _GAP + foot.height / 2)),
        _line(
            (left, height + _GAP + foot.height / 2),
            (middle + foot.width / 2, height + _GAP + foot.height / 2),
            arrow=True,
        ),
        _line((middle, height), (middle, height + _GAP), arrow=True),
        foot.at(middle - foot.middle, height + _GAP),
    )
    return Drawing(left + 1, height + _GAP + foot.height, middle, marks, line=True)


@draw.register
def _(layer: Repeat) -> Drawing:
    return _frame(f"Repeat × {layer.depth}", draw(layer.stacked))


@draw.register
def _(layer: Tied) -> Drawing:
    return _frame(f"Tied × {layer.times}", draw(layer.layer))


@draw.register
def _(layer: CrossAttention) -> Drawing:
    return _beside("memory", _box(layer))


@draw.register
def _(layer: LocationAttention) -> Drawing:
    return _beside("memory", _box(layer))


@draw.register
def _(layer: Feedback) -> Drawing:
    return _frame("Feedback", _loop(draw(layer.body), "the last y"))


@draw.register
def _(layer: FeedbackMemory) -> Drawing:
    return _frame("FeedbackMemory", _loop(draw(layer.body), f"{layer.window} y, the memory"))


@draw.register
def _(layer: AttendToInput) -> Drawing:
    first, second = draw(layer.recurrence), draw(layer.attention)
    seen = _beside("queries", second)
    # The attention stands lower than the recurrence, whose outputs it is given from the side.
    drop = first.height + _GAP
    lower = Drawing(
        seen.width,
        drop + seen.height,
        seen.middle,
        (seen.at(0, drop), _line((seen.middle, 0), (seen.middle, drop), arrow=True)),
        line=True,
    )
    whole = _fork([first, lower], _sign(layer.combine))
    across = drop + 1.5 * _GAP + seen.height / 2
    start = whole.width - seen.width
    asks = _line((first.middle, across), (start, across))
    return dataclasses.replace(whole, marks=(*whole.marks, asks))


@draw.register
def _(layer: BlockRecurrent) -> Drawing:
    reads = _column([_text("reader"), draw(layer.reader)])
    writes = _column([_text("writer"), draw(layer.writer), _sign_box(_sign(layer.gate))])
    gap = 7 * _GAP
    height = max(reads.height, writes.height + _GAP)
    left, right = reads.width, reads.width + gap
    end, side, foot = right + writes.middle, right + writes.width + 6, writes.height + _GAP / 2
    round_again = (
        (end, writes.height),
        (end, foot),
        (side, foot),
        (side, _LINE),
        (end + 24, _LINE),
    )
    marks = (
        reads.at(0, 0),
        _line((reads.middle, reads.height), (reads.middle, height)),
        writes.at(right, 0),
        _label("slots", (left + gap / 2, _LINE / 3)),
        _line((right - 4, _LINE), (left + 4, _LINE), arrow=True, dashed=True),
        _label("y of a block", (left + gap / 2, 2.3 * _LINE)),
        _line((left + 4, 3 * _LINE), (right - 4, 3 * _LINE), arrow=True),
        _line(*round_again, arrow=True, dashed=True),
    )
    return _frame(
        f"BlockRecurrent {layer.slots} slots, blocks of {layer.block} steps",
        Drawing(side + 2, height, reads.middle, marks),
    )


def _column(parts: Sequence[Drawing]) -> Drawing:
    """One under the other, an arrow between each two."""
    middle = max(part.middle for part in parts)
    width = max(middle + part.width - part.middle for part in parts)
    marks, y = [], 0.0
    for index, part in enumerate(parts):
        if index:
            marks.append(_line((middle, y), (middle, y + _GAP), arrow=not part.line))
            y += _GAP
        marks.append(part.at(middle - part.middle, y))
        y += part.height
    return Drawing(width, y, middle, tuple(marks), line=parts[0].line)


def _row(parts: Sequence[Drawing]) -> Drawing:
    """Side by side, all entered from one line and left to another."""
    marks, x, middles = [], 0.0, []
    height = max(part.height for part in parts)
    for part in parts:
        middles.append(x + part.middle)
        marks.append(part.at(x, _GAP))
        marks.append(_line((middles[-1], 0), (middles[-1], _GAP), arrow=not part.line))
        marks.append(_line((middles[-1], part.height + _GAP), (middles[-1], height + 2 * _GAP)))
        x += part.width + _GAP
    for y in (0.0, height + 2 * _GAP):
        marks.append(_line((middles[0], y), (middles[-1], y)))
    middle = (middles[0] + middles[-1]) / 2
    return Drawing(x - _GAP, height + 2 * _GAP, middle, tuple(marks), line=True)


def _fork(parts: Sequence[Drawing], sign: str) -> Drawing:
    """Side by side, and what makes one output of theirs."""
    row, foot = _row(parts), _sign_box(sign)
    middle = max(row.middle, foot.middle)
    width = max(row.width, middle + foot.width - foot.middle)
    marks = (
        row.at(middle - row.middle, _GAP / 2),
        _line((middle, 0), (middle, _GAP / 2)),
        _line((middle, row.height + _GAP / 2), (middle, row.height + 1.5 * _GAP), arrow=True),
        foot.at(middle - foot.middle, row.height + 1.5 * _GAP),
    )
    return Drawing(width, row.height + 1.5 * _GAP + foot.height, middle, marks, line=True)


def _frame(title: str, inside: Drawing) -> Drawing:
    """A named frame around a drawing."""
    width = max(inside.width + 2 * _PAD, len(title) * _LETTER + 2 * _PAD)
    top = _LINE + _PAD
    height = inside.height + top + _GAP
    shift = (width - inside.width) / 2
    middle = shift + inside.middle
    # The title stands on the side of the arrow that has more room.
    room = len(title) * _LETTER
    x = 6.0 if middle - 8 > room else middle + 8
    width = max(width, x + room + 6)
    marks = (
        f'<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="6"'
        ' stroke-opacity="0.5"/>',
        _label(title, (x, _LINE - 2), anchor="start"),
        _line((middle, 0), (middle, top), arrow=not inside.line),
        inside.at(shift, top),
        _line((middle, inside.height + top), (middle, height)),
    )
    return Drawing(width, height, middle, marks, line=True)


def _loop(inside: Drawing, what: str) -> Drawing:
    """A drawing whose output comes back at a later step."""
    right = inside.width + _GAP
    foot = inside.height + _GAP
    marks = (
        _line((inside.middle, 0), (inside.middle, _GAP), arrow=not inside.line),
        inside.at(0, _GAP),
        _line((inside.middle, foot), (inside.middle, foot + _GAP)),
        _line((inside.middle, foot + _GAP / 2), (right, foot + _GAP / 2), dashed=True),
        _line((right, foot + _GAP / 2), (right, _GAP / 2), dashed=True),
        _line((right, _GAP / 2), (inside.middle + 3, _GAP / 2), arrow=True, dashed=True),
        _label(what, (right + 6, foot / 2), anchor="start"),
    )
    width = right + 10 + len(what) * _LETTER
    return Drawing(width, foot + _GAP, inside.middle, marks, line=True)


def _beside(what: str, inside: Drawing) -> Drawing:
    """A drawing that is given something from its left side too."""
    room = len(what) * _LETTER + 22
    across = inside.height / 2
    marks = (
        inside.at(room, 0),
        _label(what, (0, across - 4), anchor="start"),
        _line((0, across), (room, across), arrow=True),
    )
    return Drawing(room + inside.width, inside.height, room + inside.middle, marks)


def _box(layer: nn.Module) -> Drawing:
    """A layer without parts: its name and its fields."""
    colour = next(colour for kinds, colour in _COLOURS if isinstance(layer, kinds))
    name, *fields = lines = textwrap.wrap(
        _title(layer), _WRAP, break_long_words=False, break_on_hyphens=False
    )
    width = max(len(line) for line in lines) * _LETTER + 2 * _PAD
    height = len(lines) * _LINE + _PAD / 2
    first, _, rest = name.partition(" ")
    words = [f'<tspan font-weight="bold">{html.escape(first)}</tspan> {html.escape(rest)}']
    words += map(html.escape, fields)
    marks = [f'<rect width="{width:g}" height="{height:g}" rx="4" fill="{colour}" stroke="#555"/>']
    for index, line in enumerate(words, start=1):
        marks.append(
            f'<text x="{width / 2:g}" y="{index * _LINE - 1:g}" text-anchor="middle" fill="#222"'
            f' stroke="none">{line.strip()}</text>'
        )
    return Drawing(width, height, width / 2, tuple(marks))


def _sign_box(sign: str) -> Drawing:
    width = max(len(sign) * _LETTER + 14, 22)
    marks = (
        f'<rect width="{width:g}" height="22" rx="11"/>',
        _label(sign, (width / 2, 15)),
    )
    return Drawing(width, 22, width / 2, marks)


def _text(text: str) -> Drawing:
    width = len(text) * _LETTER + 4
    return Drawing(width, _LINE, width / 2, (_label(text, (width / 2, _LINE - 4)),))


def _label(text: str, at: tuple[Pixels, Pixels], anchor: str = "middle") -> str:
    return (
        f'<text x="{at[0]:g}" y="{at[1]:g}" text-anchor="{anchor}" fill="currentColor"'
        f' stroke="none">{html.escape(text)}</text>'
    )


def _line(*points: tuple[Pixels, Pixels], arrow: bool = False, dashed: bool = False) -> str:
    """A line, and at its end the head of an arrow."""
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    mark = f'<polyline points="{path}"' + (' stroke-dasharray="4 3"' if dashed else "") + "/>"
    if not arrow:
        return mark
    (x0, y0), (x, y) = points[-2:]
    if x0 == x:
        head = f"{x - 3:g},{y - 6:g} {x:g},{y:g} {x + 3:g},{y - 6:g}"
    else:
        back = x - 6 if x > x0 else x + 6
        head = f"{back:g},{y - 3:g} {x:g},{y:g} {back:g},{y + 3:g}"
    return mark + f'<polygon points="{head}" fill="currentColor" stroke="none"/>'


def _title(layer: nn.Module) -> str:
    """Its name, and `name=value` of the fields that differ from their defaults, layers left out."""
    words = [type(layer).__name__]
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if field.name in ("parent", "name") or value == field.default or _has_layers(value):
            continue
        words.append(f"{field.name}={_shown(value)}")
    return " ".join(words)


def _has_layers(value: Any) -> bool:
    inside = value if isinstance(value, tuple) else (value,)
    return any(isinstance(each, SequenceLayer) for each in inside)


def _shown(value: Any) -> str:
    """A value of a field, short: of an object its kind and its numbers."""
    if isinstance(value, Callable) and hasattr(value, "__name__"):  # type: ignore[arg-type]
        return str(value.__name__)
    return "".join(repr(value).split())


def _sign(combine: Any) -> str:
    name = getattr(combine, "__name__", type(combine).__name__)
    return _SIGNS.get(combine, name.lstrip("_"))
