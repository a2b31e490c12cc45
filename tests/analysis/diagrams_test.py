"""Pictures of expressions show every layer in its place, and are nothing but a picture."""

import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest

from recattn_jax import layers
from recattn_jax.analysis.diagrams import diagram
from tests.laws import TABLE

Box = tuple[float, float, float, float]  # left, top, right, bottom
SVG = "{http://www.w3.org/2000/svg}"


def boxes(node: ElementTree.Element, x: float = 0, y: float = 0) -> Iterator[Box]:
    """Left, top, right and bottom of every rectangle, on the page."""
    moved = re.fullmatch(r"translate\((\S+) (\S+)\)", node.get("transform", "translate(0 0)"))
    assert moved is not None
    x, y = x + float(moved[1]), y + float(moved[2])
    if node.tag == f"{SVG}rect":
        left, top = x + float(node.get("x", 0)), y + float(node.get("y", 0))
        yield left, top, left + float(node.get("width", 0)), top + float(node.get("height", 0))
    for child in node:
        yield from boxes(child, x, y)


def within(box: Box, other: Box) -> bool:
    return other[0] <= box[0] and other[1] <= box[1] and box[2] <= other[2] and box[3] <= other[3]


@pytest.mark.parametrize("name", TABLE)
def test_every_layer_is_inside_the_picture_and_on_no_other(name: str) -> None:
    """Rectangles lie inside each other or apart, and all of them inside the picture."""
    picture = ElementTree.fromstring(diagram(TABLE[name].layer))
    left, top, width, height = map(float, picture.get("viewBox", "").split())
    found = list(boxes(picture))
    for box in found:
        assert within(box, (left, top, left + width, top + height)), box
    for box, other in itertools.combinations(found, 2):
        apart = box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
        assert apart or within(box, other) or within(other, box), f"{box} and {other}"
    kinds = {element.tag.removeprefix(SVG) for element in picture.iter()}
    assert kinds <= {"svg", "g", "rect", "text", "tspan", "polyline", "polygon"}


def words(layer: layers.SequenceLayer) -> list[str]:
    picture = ElementTree.fromstring(diagram(layer))
    return ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]


def test_fields_that_differ_from_their_defaults_are_named() -> None:
    assert words(layers.SelfAttention(heads=2, window=16)) == [
        "x", "SelfAttention heads=2", "window=16", "y",
    ]  # fmt: skip
    assert words(layers.RNN(8, activation=len)) == ["x", "RNN features=8", "activation=len", "y"]


def test_layers_stand_in_the_order_of_the_expression() -> None:
    mixer = layers.Parallel((layers.LSTM(8), layers.Identity()), combine=layers.concat)
    block = layers.Repeat(layers.Residual(layers.Serial((layers.RMSNorm(), mixer))), depth=3)
    assert words(layers.Serial((block, layers.Dense(4)))) == [
        "x", "Repeat × 3", "RMSNorm", "LSTM features=8", "Identity", "concat", "+",
        "Dense features=4", "y",
    ]  # fmt: skip


def test_equal_neighbours_are_drawn_once() -> None:
    twice = layers.Serial((layers.LSTM(8), layers.LSTM(8), layers.LSTM(4)))
    assert words(twice) == ["x", "2 in turn", "LSTM features=8", "LSTM features=4", "y"]


def test_names_are_text() -> None:
    def odd(x):
        return x

    odd.__name__ = "<script>&"
    assert "Activation" in words(layers.Activation(odd))[1]
    assert "<script" not in diagram(layers.Activation(odd))
