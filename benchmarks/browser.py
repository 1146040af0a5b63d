"""Chromium by Playwright: that of the machine where there is one, else the one Playwright has fetched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

VARIABLE = "CODEDANCE_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class NoBrowser(Exception):
    """Playwright or Chromium is missing; the message says how to get it."""


def find_chromium() -> str | None:
    """Path of Chromium: `$CODEDANCE_CHROMIUM`, else the first on the PATH; None where there is none."""
    return os.environ.get(VARIABLE) or next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser of `playwright.sync_api`.

    Raises:
        NoBrowser: there is none.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise NoBrowser("the package playwright is not installed; `make setup` installs it") from None
    with sync_playwright() as playwright:
        try:
            # Chromium's own sandbox cannot be had by root in a container; the pages are ours, on loopback
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"], timeout=60_000)
        except Error as error:
            reason = str(error).splitlines()[0]
            raise NoBrowser(
                f"Chromium cannot be started ({reason}); `apt-get install chromium` or `playwright install chromium`, "
                f"or name one by {VARIABLE}"
            ) from None
        try:
            yield browser
        finally:
            browser.close()
