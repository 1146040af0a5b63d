"""`codedance view` in a real Chromium: what a person does with it, by mouse and by keys, and what axe finds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sample_run import write_group, write_run
from codedance_verl.trajectories.writer import TrajectoryLog
from tests.browser import SECONDS, browser_or_skip, clean_page, open_run, press, until, viewer
from tests.unit.viewer.hostile import write_hostile_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browser_or_skip() as found:
        yield found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "a_first", steps=4, groups=6)
    write_run(folder / "b_second", steps=3, groups=6)
    write_hostile_run(folder / "hostile")
    return folder


@pytest.fixture(scope="module")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with viewer(root, "--cache", str(tmp_path_factory.mktemp("cache"))) as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with clean_page(browser, address) as made:
        yield made


def test_open_filter_look_compare_export(page: Any, address: str, tmp_path: Path) -> None:
    open_run(page, address, "a_first")
    page.get_by_role("link", name="all trajectories").click()
    assert page.locator("#total").inner_text() == str(4 * 6 * 4 + 3)
    page.get_by_label("outcome").select_option("correct")
    page.get_by_label("code", exact=True).select_option("used")
    page.get_by_label("pictures shown, at least").fill("2")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url(re.compile("min_images=2"))
    assert set(page.locator("tbody .tag.good").all_inner_texts()) == {"correct"}
    assert page.locator("tbody .tag", has_text="wrong").count() == 0
    page.locator("tbody [data-row]").first.click()

    pictures = page.locator(".turn img")
    assert pictures.count() == 2
    until(page, "[...document.querySelectorAll('.turn img')].every(one => one.complete && one.naturalWidth)")
    page.wait_for_load_state("load")  # the page's script opens them
    pictures.first.click()
    assert page.locator("#zoom").is_visible()
    assert page.locator("#zoomed").evaluate("one => one.naturalWidth") == 448
    press(page, "Escape")
    assert not page.locator("#zoom").is_visible()

    page.get_by_role("link", name="group of 4").click()
    assert page.locator(".column").count() == 4
    with page.expect_download() as download:
        page.get_by_role("link", name="export").click()
    target = tmp_path / "export.html"
    download.value.save_as(target)
    offline = page.context.browser.new_context(offline=True).new_page()
    offline.goto(target.as_uri())
    assert offline.locator(".exported").count() == 4
    assert offline.evaluate("[...document.images].every(one => one.complete && one.naturalWidth)")
    offline.context.close()


def test_one_prompt_at_two_checkpoints(page: Any, address: str) -> None:
    open_run(page, address, "a_first")
    page.goto(page.url + "/list?step=4&split=train")
    page.locator("tbody [data-row]").first.click()
    page.get_by_role("link", name=re.compile("compare with b_second, step 1 train")).click()
    headings = page.locator(".column h2").all_inner_texts()
    assert headings[0].startswith("a_first, step 4 train") and headings[1].startswith("b_second, step 1 train")


def test_by_keys_alone(page: Any, address: str) -> None:
    page.goto(address)
    until(page, "!document.querySelector('.note')")
    press(page, "j")
    assert page.evaluate("document.activeElement.textContent") == "a_first"
    press(page, "Enter")
    page.wait_for_url(re.compile(r"/runs/\d+$"))
    press(page, "j")
    press(page, "Enter")
    page.wait_for_selector("#search")
    press(page, "/")
    page.keyboard.type("discs-00003")
    press(page, "Enter")
    page.wait_for_url(re.compile("text=discs-00003"))
    for _ in range(2):
        press(page, "j")
    second = page.evaluate("document.activeElement.getAttribute('href')")
    press(page, "k")
    press(page, "Enter")
    page.wait_for_selector("[data-turn]")
    press(page, "m")
    press(page, "n")
    page.wait_for_url(re.compile(re.escape(second)))
    press(page, "j")
    assert page.evaluate("document.activeElement.id") == "turn-1"
    press(page, "d")
    page.wait_for_url(re.compile("/against/"))
    press(page, "Escape")
    page.wait_for_selector("[data-turn]")
    press(page, "g")
    page.wait_for_selector(".column")
    press(page, "?")
    assert page.locator("#help").is_visible()
    press(page, "Escape")
    until(page, "!document.querySelector('dialog[open]')")
    press(page, "Escape")
    page.wait_for_selector("[data-turn]")
    press(page, "Escape")
    page.wait_for_selector("#rows")
    press(page, "r")
    page.wait_for_selector(".cards")


def test_rows_arrive_while_a_run_is_written(page: Any, address: str, root: Path) -> None:
    """A writer beside the viewer, as a rollout worker is one."""
    open_run(page, address, "b_second")
    page.get_by_role("link", name="all trajectories").click()
    before = int(page.locator("#total").inner_text())
    press(page, "l")
    assert page.locator("#live").get_attribute("aria-pressed") == "true"
    log = TrajectoryLog(root / "b_second" / "trajectories", "late")
    for step in (4, 5):
        write_group(log, 40 + step, step=step, split="train", size=4, skill=1.0)
        until(page, f"document.querySelectorAll('tr.fresh').length >= {4 * (step - 3)}")
    assert int(page.locator("#total").inner_text()) == before + 8
    assert page.locator("tbody tr td").first.inner_text() == "5"
    page.locator("tr.fresh [data-row]").first.click()
    page.wait_for_selector("[data-turn]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_no_serious_findings(browser: Any, address: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # Playwright's own injection is not held back by the pages' policy
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    open_run(page, address, "a_first")
    run = page.url
    page.goto(run + "/list?tools=used&min_images=2")
    one = page.locator("tbody [data-row]").first.get_attribute("href").split("?")[0]
    pages = [
        address,
        run,
        f"{run}/list",
        address + one[1:],
        f"{address}{one[1:]}/group",
        f"{address}{one[1:]}/against/1",
    ]
    for url in [*pages, f"{address}nothing"] if scheme == "light" else pages[2:4]:  # both have the same markup
        page.goto(url)
        assert _serious(Axe().run(page).response) == [], url
    page.goto(pages[2])
    press(page, "?")
    assert _serious(Axe().run(page).response) == []
    context.close()


def _serious(response: dict[str, Any]) -> list[str]:
    return [
        f"{found['id']}: {found['nodes'][0]['html'][:200]}"
        for found in response["violations"]
        if found["impact"] in ("serious", "critical")
    ]


def test_hostile_trajectories_are_inert(page: Any, address: str) -> None:
    open_run(page, address, "hostile")
    page.goto(page.url + "/list")
    links = [link.get_attribute("href") for link in page.locator("tbody [data-row]").all()]
    assert len(links) == 8
    for link in links:
        for url in (link, f"{link}/group"):
            page.goto(address + url[1:])
            assert page.evaluate("window.owned") is None
            assert page.locator("script:not([src])").count() == 0
            assert page.evaluate("document.documentElement.outerHTML.length") < 400_000


def test_a_token_is_asked_for_where_there_is_one(browser: Any, root: Path, tmp_path: Path) -> None:
    with viewer(root, "--host", "0.0.0.0", "--cache", str(tmp_path)) as opened:
        page = browser.new_context().new_page()
        assert page.goto(opened.split("?")[0]).status == 401
        page.goto(opened)
        assert "token" not in page.url and page.locator("h1").inner_text() == "Runs"
        page.context.close()
