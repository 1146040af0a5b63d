"""Takes docs/pictures/viewer_*.png of `codedance view` over a run that `benchmarks/sample_run.py` makes up.

python docs/draw_viewer.py
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.browser import chromium  # noqa: E402
from benchmarks.sample_run import write_run  # noqa: E402
from codedance_verl.trajectories.index import Index  # noqa: E402
from codedance_verl.viewer.server import listening  # noqa: E402

PICTURES = REPOSITORY / "docs" / "pictures"
VIEWPORT = {"width": 1280, "height": 800}


@contextmanager
def serving(root: Path, cache: Path) -> Iterator[str]:
    """Serve from a thread; yields the address."""
    ready, address = threading.Event(), list[str]()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def serve() -> None:
        index = Index(root, cache)
        index.update_fully()
        async with listening(index, None, "127.0.0.1", 0) as found:
            address.append(found)
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    if not ready.wait(60):
        raise TimeoutError("the viewer did not start")
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(20)


SHOWN = """() => [...document.images].filter(image => image.hasAttribute("src")).every(image => {
    image.loading = "eager";
    return image.complete && image.naturalWidth;
})"""
"""Whether all pictures of a page are there, also those that it loads only when they are scrolled to."""


def main() -> None:
    """Make up two runs, open the pages, take the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in (0, 1):
            write_run(Path(folder) / "runs" / f"discs_{seed}", steps=12, groups=12, seed=seed)
        with serving(Path(folder) / "runs", Path(folder) / "cache") as address, chromium() as browser:
            for scheme in ("light", "dark"):
                page = browser.new_context(viewport=VIEWPORT, color_scheme=scheme, bypass_csp=True).new_page()
                _take(page, address, scheme)


def _take(page: Any, address: str, scheme: str) -> None:
    def picture(name: str) -> None:
        page.wait_for_load_state("load")
        page.wait_for_function(SHOWN)
        page.screenshot(path=PICTURES / f"viewer_{name}_{scheme}.png")

    if scheme == "light":
        page.goto(f"{address}runs/1/list?tools=used")
        picture("list")
    page.goto(f"{address}runs/1/list?tools=used&min_images=2&outcome=correct")
    page.locator("[data-row]").first.click()
    page.wait_for_selector(".turn img")
    if scheme == "dark":
        picture("trajectory")
        return
    page.wait_for_load_state("load")  # the keys are answered by the page's script
    page.keyboard.press("g")
    page.wait_for_selector(".column")
    picture("group")
    page.go_back()
    page.locator("[data-against]").last.click()
    page.wait_for_selector(".diff")
    picture("diff")


if __name__ == "__main__":
    main()
