"""The page of what was seen inside: what it shows, in a browser, and how large it is."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np

from recattn_jax.analysis.attribution import Attribution
from recattn_jax.analysis.inside import AttentionMap, RecurrenceTrace
from recattn_jax.analysis.inside_page import (
    TokenMap,
    attention_maps,
    attribution_maps,
    write_inside_page,
)
from recattn_jax.analysis.inspection import Inspection
from tests import browser
from tests.analysis.page_test import HOSTILE

SOURCE = ("the", HOSTILE[1], " ", "sat")
TARGET = ("<separator>", "le", "chat\n", "\u202e\x1b[31m", HOSTILE[0])
PATHS = ("encoder/self", f"decoder/{HOSTILE[1]}", "decoder/slots")

# The heads of a map, as the page has them.
READ = """(at) => data.maps[at].heads.map((_, head) =>
  [...gridOf(data.maps[at], head).values].map((value) => Number.isNaN(value) ? null : value))"""


def weights(heads: int, rows: int, columns: int) -> np.ndarray:
    sizes = np.random.default_rng(columns).random((heads, rows, columns), np.float32)
    return sizes / sizes.sum(axis=-1, keepdims=True)


def trace(path: str, steps: int, units: int, gates: tuple[str, ...]) -> RecurrenceTrace:
    random = np.random.default_rng(units)
    hidden, *each = random.uniform(-1, 1, (1 + len(gates), steps, units)).astype(np.float32)
    return RecurrenceTrace(path, "LSTM", (hidden,), dict(zip(gates, each, strict=True)))


def seen_in_a_translator() -> Inspection:
    shapes = ((2, 4, 4), (3, 5, 4), (1, 5, 3))
    kinds = ("self", "cross", "slots")
    axes = (("source", "source"), ("target", "source"), ("target", "slot"))
    return Inspection(
        attention=tuple(
            AttentionMap(path, kind, weights(*shape))
            for path, kind, shape in zip(PATHS, kinds, shapes, strict=True)
        ),
        recurrence=(trace("encoder/a", 4, 3, ()), trace("decoder/b", 5, 80, ("forget", "input"))),
        left_out=(f"decoder/c: {HOSTILE[1]}",),
        labels={"source": SOURCE, "target": TARGET},
        axes=dict(zip(PATHS, axes, strict=True)),
        losses=np.array([0.5, 1.5, 2.5, 0.25, np.inf]),
        expected=(*TARGET[1:], HOSTILE[1]),
        prediction=HOSTILE[0],
        probability=0.75,
        difference=1e-7,
        tolerance=1e-5,
    )


def seen_in_a_language_model(tokens: int, maps: int, heads: int, traces: int) -> Inspection:
    paths = [f"body/layers_{number}/attention" for number in range(maps)]
    return Inspection(
        attention=tuple(
            AttentionMap(path, "self", weights(heads, tokens, tokens)) for path in paths
        ),
        recurrence=tuple(
            trace(f"body/layers_{number}/lstm", tokens, 256, ("input", "forget", "output"))
            for number in range(traces)
        ),
        left_out=(),
        labels={"input": ["word"] * tokens},
        axes=dict.fromkeys(paths, ("input", "input")),
        losses=np.ones(tokens),
        expected=["word"] * tokens,
        prediction=None,
        probability=None,
        difference=1e-7,
        tolerance=1e-5,
    )


def dependence() -> TokenMap:
    """A map with both signs, something that is no number, and a row of nothing."""
    values = weights(1, 5, 4) - 0.25
    values[0, 1, 2], values[0, 3] = np.nan, 0.0
    return TokenMap("gradient", "x input", "target", "source", values, "depends on", "share", "")


def test_it_stays_small(tmp_path: Path) -> None:
    """200 tokens, 8 layers, 8 heads; each weight is another and none is zero."""
    seen = seen_in_a_language_model(tokens=200, maps=8, heads=8, traces=8)
    write_inside_page(tmp_path / "inside.html", "runs/a", seen, attention_maps(seen))
    assert (tmp_path / "inside.html").stat().st_size < 3_000_000


def test_no_text_is_markup(tmp_path: Path) -> None:
    seen = seen_in_a_translator()
    write_inside_page(tmp_path / "inside.html", f"{HOSTILE[1]}\udc80", seen, attention_maps(seen))
    page = (tmp_path / "inside.html").read_text()
    assert "<img" not in page and page.count("<script") == 2
    (told,) = re.findall(r'<script id="data" type="application/json">(.*)</script>\n', page)
    labels = json.loads(told)["labels"]
    assert labels["source"][2] == "\u2423" and labels["target"][2] == "chat\u21b5"
    assert labels["target"][3] == "\\u202e\\x1b[31m"


def test_it_shows_what_is_pointed_at(tmp_path: Path) -> None:
    seen, extra = seen_in_a_translator(), dependence()
    file = tmp_path / "inside.html"
    write_inside_page(file, f"Inside {HOSTILE[1]}", seen, [*attention_maps(seen), extra])
    with browser.opened(file) as page:
        reading, tokens = page.locator(".reading"), page.locator(".token")
        at_first = reading.inner_text()
        assert "target step 4" in at_first and "mean of heads, it looks at" in at_first
        assert "expected \u201c<img\u2423src=x" in at_first and "mean gates: forget" in at_first

        shades = (
            "() => [...document.querySelectorAll('.token')].map((t) => t.style.backgroundColor)"
        )
        last = page.evaluate(shades)
        tokens.nth(len(SOURCE) + 1).hover()
        assert page.evaluate(shades) != last
        assert "loss 1.5 nats, expected \u201cchat\u21b5\u201d" in reading.inner_text()
        tokens.nth(1).hover()
        assert "what looks at it" in reading.inner_text()

        tokens.nth(len(SOURCE) + 1).click()
        page.keyboard.press("ArrowRight")
        page.mouse.move(0, 0)
        assert "target step 2" in reading.inner_text()
        mean = reading.inner_text(), page.evaluate(shades)
        page.get_by_role("button", name="head 2").click()
        assert "head 2, it looks at" in reading.inner_text()
        assert (reading.inner_text(), page.evaluate(shades)) != mean

        stage = page.locator(".stage").bounding_box()
        assert stage is not None
        page.mouse.move(
            stage["x"] + stage["width"] * 2.5 / 4, stage["y"] + stage["height"] * 1.5 / 5
        )
        shown = float(page.locator("figcaption .number").inner_text())
        exact = seen.attention[1].weights[2]
        assert abs(shown - exact[1, 2]) < exact[1].max() / 60 + 1e-3
        assert "target step 1" in reading.inner_text()

        page.get_by_label("Map").select_option(label="decoder/slots (slots)")
        assert "slot 1" in reading.inner_text() and page.get_by_role("listbox").count() == 3
        page.get_by_label("Map").select_option(label="encoder/self (self)")
        assert "source step 3" in reading.inner_text() and tokens.count() == 9
        forwards = page.evaluate(shades)
        page.get_by_label("Show").select_option(label="what looks at it")
        assert "what looks at it" in reading.inner_text() and page.evaluate(shades) != forwards
        page.get_by_label("Map").select_option(label="gradient (x input)")
        assert "share" in page.locator(".legend").first.inner_text()
        page.get_by_label("Layer").select_option(label="encoder/a (LSTM)")
        assert "LSTM has no gates" in page.locator("#page").inner_text()

        # All text is there as it is, and is nothing but text.
        said = page.locator("#page").inner_text()
        for text in (
            f"Inside {HOSTILE[1]}",
            f"{HOSTILE[0]} (probability 0.750)",
            f"c: {HOSTILE[1]}",
        ):
            assert text in said
        assert tokens.nth(1).inner_text() == HOSTILE[1].replace(" ", "\u2423")
        assert f"{PATHS[1]} (cross)" in page.get_by_label("Map").locator("option").all_inner_texts()
        assert page.locator("img").count() == 0

        for number, whole in enumerate([*(each.weights for each in seen.attention), extra.values]):
            told = page.evaluate(READ, number)
            read = np.array(told, float).reshape(whole.shape)
            np.testing.assert_array_equal(np.isnan(read), np.isnan(whole))
            steps = 30 if np.any(whole < 0) else 60
            bound = np.nanmax(np.abs(whole), axis=-1, keepdims=True) / steps
            assert np.all(np.nan_to_num(np.abs(read - whole)) <= bound)


def test_it_shows_what_there_is(tmp_path: Path) -> None:
    """No layers of attention, no recurrent ones, one token."""
    file = tmp_path / "inside.html"

    def write(tokens: int, maps: int, traces: int) -> None:
        seen = seen_in_a_language_model(tokens, maps, 2, traces)
        if not maps and not traces:
            seen = dataclasses.replace(seen, losses=None, expected=(), prediction="a")
        write_inside_page(file, "runs/a", seen, attention_maps(seen))

    write(tokens=3, maps=0, traces=1)
    with browser.opened(file) as page:
        assert "No layer of attention was seen" in page.locator("#page").inner_text()
        assert "mean gates" in page.locator(".reading").inner_text()
        write(tokens=3, maps=1, traces=0)
        page.reload()
        assert "No recurrent layer was seen" in page.locator("#page").inner_text()
        write(tokens=1, maps=1, traces=1)
        page.reload()
        assert "it looks at: \u201cword\u201d0 1" in page.locator(".reading").inner_text()
        write(tokens=1, maps=0, traces=0)
        page.reload()
        assert page.locator(".reading").inner_text().split() == ["word", "input", "step", "0"]


def test_attributions_are_maps_between_outputs_and_inputs() -> None:
    seen = seen_in_a_translator()
    assert attribution_maps(seen) == []
    random = np.random.default_rng(0)
    found = Attribution(
        gradients=(random.normal(size=(5, 4)), random.normal(size=(5, 5))),
        norms=(np.ones((5, 4)), np.ones((5, 5))),
        integrated=(np.arange(4.0), np.arange(5.0)),
        of=3,
        change=16.0,
        error=0.0,
    )
    maps = attribution_maps(dataclasses.replace(seen, attribution=found))
    assert [(each.path, each.kind) for each in maps[:3]] == [
        ("from source", "gradient norm"),
        ("from source", "gradient x input"),
        ("from source", "integrated gradients"),
    ]
    assert [(each.rows, each.columns) for each in maps[2:4]] == [
        ("target", "source"),
        ("target", "target"),
    ]
    assert "all of them sum to +16.000 nats" in maps[2].note and "too far" not in maps[2].note
    rough = dataclasses.replace(seen, attribution=dataclasses.replace(found, error=0.5))
    assert "too far to rely on them" in attribution_maps(rough)[2].note
    assert maps[1].values.shape == (1, 5, 4)
    assert maps[5].values[0, 3].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert np.count_nonzero(maps[5].values) == 4
