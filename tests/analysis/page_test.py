"""The shell of pages: data is data, whatever it says."""

import json
import re
from pathlib import Path

import pytest

from recattn_jax.analysis.page import made_page, write_page
from tests import browser

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--<script>",
    "\u2028'\"&amp;\\",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_string_ends_no_element(text: str) -> None:
    page = made_page(text, {text: [text, 1.5, None]}, [])
    (told,) = re.findall(r'<script id="data" type="application/json">(.*)</script>\n', page)
    assert json.loads(told) == {text: [text, 1.5, None]}
    assert page.count("<script") == 2 and "<img" not in page


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        made_page("", {"loss": float("nan")}, [])


def test_a_browser_shows_text_and_runs_nothing_of_it(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_page(file, HOSTILE[0], list(HOSTILE), [])
    with browser.opened(file) as page:
        assert page.title() == HOSTILE[0]
        assert page.evaluate("fill(page, ...data.map((text) => make('p', {}, text)))") is not None
        assert page.locator("#page p").all_inner_texts() == list(HOSTILE)
        assert page.locator("img").count() == 0


def test_a_script_that_is_not_ours_does_not_run(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_page(file, "", None, [])
    file.write_text(file.read_text().replace("</main>", "</main><script>let x</script>"))
    with pytest.raises(AssertionError, match="Content Security Policy"):  # noqa: SIM117
        with browser.opened(file):
            pass
