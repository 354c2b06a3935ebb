"""A real browser for the tests of pages: headless Chromium by Playwright; skipped with a reason without them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator:
    """A browser; skips the test where Playwright or Chromium is missing."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="pages are tested with Playwright: pip install playwright"
    )
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"pages are tested in Chromium, and there is no {' or '.join(PROGRAMS)}")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Seen:
    """A page in the browser, with all that it asked for or complained about."""

    def __init__(self, browser, path: Path, width: int = 1200, height: int = 900, **options):
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.goto(path.resolve().as_uri())

    def settled(self, more_than: int = 0):
        """The live section, once all that follows from its sliders has been worked out more than so many times.

        Asked for again and again, since the page lets no text be run as code, which waiting in it would be.
        """
        live = self.page.locator("section.live")
        for _ in range(600):
            if int(live.get_attribute("data-done") or 0) > more_than:
                return live
            self.page.wait_for_timeout(50)
        raise AssertionError(f"the live section did not settle: {self.said}")

    def fine(self) -> bool:
        """Whether it asked for nothing but itself, and nothing went wrong."""
        return not self.said and all(url.startswith(("file:", "blob:", "data:")) for url in self.asked)

    def close(self) -> None:
        self.context.close()
