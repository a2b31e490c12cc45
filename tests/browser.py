"""A headless Chromium, the system's, for pages that people look at."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

# Nothing of Chromium's own goes out to the network, and no setting of a user comes in.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def opened(file: Path) -> Iterator:
    """Opens a page as a person would, and at the end sees to it that nothing was complained of.

    Gives Playwright's page. Skips the test where there is no browser, unless
    RECATTN_REQUIRE_BROWSER is set. A request for anything but the file itself is a complaint too.
    """
    executable = shutil.which("chromium")
    required = bool(os.environ.get("RECATTN_REQUIRE_BROWSER"))
    if executable is None and not required:
        pytest.skip("needs chromium")
    if not required:
        pytest.importorskip("playwright")
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []

    def asked(request) -> None:
        if request.url != file.resolve().as_uri():
            complaints.append(f"asks for {request.url:.200}")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        with contextlib.closing(browser):
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            page.on("console", lambda message: complaints.append(f"console: {message.text}"))
            page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
            page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
            page.on("request", asked)
            page.goto(file.resolve().as_uri())
            yield page
    assert not complaints, complaints
