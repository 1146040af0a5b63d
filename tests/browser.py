"""A real Chromium on a real `codedance view`, for tests."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.browser import NoBrowser, chromium
from tests.required import lacks

SECONDS = 30.0
"""How long anything may take before a test fails; nothing here comes near it."""


@contextlib.contextmanager
def browser_or_skip() -> Iterator[Any]:
    """A browser of `playwright.sync_api`; without one, in CI the test fails, elsewhere it is skipped."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(chromium())
        except NoBrowser as error:
            lacks(f"a browser: {error}")
        yield found


@contextlib.contextmanager
def viewer(root: Path, *options: str) -> Iterator[str]:
    """The address that the command itself says it can be opened at, as a user runs it."""
    command = [sys.executable, "-m", "codedance_verl.cli", "view", str(root), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(SECONDS, process.kill)
        watchdog.start()
        try:
            line = process.stdout.readline()
            watchdog.cancel()
            yield re.findall(r"open (http://\S+)", line)[0]
        finally:
            watchdog.cancel()
            process.terminate()
            assert process.wait(SECONDS) == 0


@contextlib.contextmanager
def clean_page(browser: Any, address: str) -> Iterator[Any]:
    """A page whose errors, refused scripts and outside requests are faults."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: faults.append(asked.url) if not asked.url.startswith((address, "data:")) else None)
    yield page
    context.close()
    assert faults == []


def until(page: Any, expression: str, seconds: float = SECONDS) -> None:
    """Wait for an expression; Playwright's own way to do so needs `eval`, which the pages' policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def press(page: Any, key: str) -> None:
    """Press a key once the page's script has run: before, nothing answers it."""
    page.wait_for_load_state("load")
    page.keyboard.press(key)


def open_run(page: Any, address: str, name: str) -> None:
    """From the list of runs, waiting until the files are read."""
    page.goto(address)
    until(page, "!document.querySelector('.note')")
    page.get_by_role("link", name=name).click()
    page.wait_for_url(re.compile(r"/runs/\d+$"))
