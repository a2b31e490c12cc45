"""Pages for a browser: one file that needs no network, and in which data is data."""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from recattn_jax.files import write_atomically

_SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src {digest}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main id="page"><noscript>This page draws itself: it needs JavaScript, and no network.</noscript>\
</main>
<script id="data" type="application/json">{data}</script>
<script>{script}</script>
</body>
</html>
"""
# In JSON these can only stand inside of strings; so written, no string can end its element.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def write_page(path: Path, title: str, data: Any, assets: Sequence[str]) -> None:
    """Writes a page that draws its data by itself.

    Args:
      path: the file, whose name ends in `.html`.
      title: of the page, any text.
      data: what JSON can hold, without NaN; strings may be anybody's.
      assets: names of files in `assets/`, styles and scripts, in their order. `page.css` and
        `page.js` come first by themselves.

    Raises:
      ValueError: a number is not finite.
      StorageError: it cannot be written.

    >>> write_page(Path("page.html"), "Runs", {"text": "<b>"}, [])
    """
    write_atomically(path, made_page(title, data, assets))


def made_page(title: str, data: Any, assets: Sequence[str]) -> str:
    """The text of a page: see `write_page`.

    Its scripts are named by their digest, so that a browser runs no other, whatever the data says.

    Args:
      title: of the page.
      data: what JSON can hold.
      assets: names of files in `assets/`.

    Returns:
      HTML.

    Raises:
      ValueError: a number is not finite.

    >>> "<b>" in made_page("Runs", {"text": "<b>"}, [])
    False
    """
    files = ["page.css", "page.js", *assets]
    script = "".join(_asset(name) for name in files if name.endswith(".js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    told = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return _SHELL.format(
        digest=f"'sha256-{digest}'",
        title=html.escape(title),
        style="".join(_asset(name) for name in files if name.endswith(".css")),
        data=told.translate(_ESCAPES),
        script=script,
    )


def _asset(name: str) -> str:
    return (resources.files("recattn_jax.analysis") / "assets" / name).read_text(encoding="utf-8")
