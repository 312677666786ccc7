"""A real headless Chromium for the dashboard's tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["logged_in", "running_browser"]

#: Milliseconds for each step of a browser, which starts slowly on a busy machine.
_PATIENCE: Final = 120_000


@contextmanager
def running_browser(*more: str) -> Iterator[Browser]:
    """Run one for the block, with ``more`` switches.

    Skips the test where Playwright or Chromium is missing.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", *more], timeout=_PATIENCE
        )
        try:
            yield browser
        finally:
            browser.close()


def logged_in(browser: Browser, user: str, password: str, **options: Any) -> Page:
    """Give a fresh page of this user, with ``options`` of a browser's context."""
    login: Any = {"username": user, "password": password}
    page = browser.new_context(http_credentials=login, **options).new_page()
    page.set_default_timeout(_PATIENCE)
    return page
