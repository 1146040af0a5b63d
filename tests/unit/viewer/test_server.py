"""The pages as a browser gets them."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import to_builtins
from PIL import Image

from benchmarks.sample_run import rendered, write_group, write_run
from codedance_verl.formats import FORMATS
from codedance_verl.trajectories import reading
from codedance_verl.trajectories.index import Index
from codedance_verl.trajectories.lines import Line
from codedance_verl.trajectories.query import Query
from codedance_verl.trajectories.writer import TrajectoryLog
from codedance_verl.viewer.pages import STATIC
from codedance_verl.viewer.server import listening
from codedance_verl.viewer.trajectory_view import QUESTION_IMAGES
from tests.unit.viewer.hostile import MARKUP, write_hostile_run

Get = Callable[..., Awaitable[tuple[int, str, Any]]]
INDEXING = "Reading files"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "sample", steps=3, groups=3)
    write_hostile_run(folder / "hostile")
    return folder


def visiting(
    root: Path, cache: Path, test: Callable[[Get, Index, str], Awaitable[None]], token: str | None = None
) -> None:
    """Run a test against a server over an index that is up to date."""

    async def run() -> None:
        index = Index(root, cache)
        await asyncio.to_thread(index.update_fully)
        jar = aiohttp.CookieJar(unsafe=True)
        async with listening(index, token, "127.0.0.1", 0) as address, aiohttp.ClientSession(cookie_jar=jar) as client:
            base = address.split("?")[0].rstrip("/")

            async def get(path: str, **options: Any) -> tuple[int, str, Any]:
                async with client.get(base + path, **options) as answer:
                    return answer.status, (await answer.read()).decode(), answer.headers

            async with asyncio.timeout(60):
                await test(get, index, base)

    asyncio.run(run())


def run_of(index: Index, name: str) -> int:
    return {known: number for number, known in index.runs_named()}[name]


def first(index: Index, run: str, **given: Any) -> int:
    return index.find(run_of(index, run), Query(**given), limit=1).rows[0].id


def test_every_page_answers_and_forbids_what_it_does_not_need(root: Path, tmp_path: Path) -> None:
    async def test(get: Get, index: Index, _: str) -> None:
        run, one = run_of(index, "sample"), first(index, "sample", tools="used")
        paths = ["/", f"/runs/{run}", f"/runs/{run}/list", f"/t/{one}", f"/t/{one}/group", f"/t/{one}/against/{one}"]
        for path in paths:
            status, html, headers = await get(path)
            assert status == 200 and "</html>" in html, path
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
            assert not re.search(r"<script(?! type=\"module\" src=\"/static/app.js\")|<style| style=| on\w+=", html), (
                path
            )

    visiting(root, tmp_path, test)


def test_a_trajectory_shows_its_turns_terms_and_advantages(root: Path, tmp_path: Path) -> None:
    async def test(get: Get, index: Index, _: str) -> None:
        one = first(index, "sample", tools="used", min_images=2)
        record = to_builtins(index.record(one))
        _, html, _ = await get(f"/t/{one}")
        for turn, value in enumerate(record["advantage"]["turns"], start=1):
            assert f'id="turn-{turn}"' in html
            assert f"{abs(value):.3f}" in html
        assert f"{record['reward']['score']:.3f}" in html
        image = record["turns"][0]["execution"] and record["turns"][0]["execution"]["images"]
        image = image or record["turns"][1]["execution"]["images"]
        status, _, _headers = await get(f"/runs/{index.row(one).run}/images/{'0' * 64}.png")  # type: ignore[union-attr]
        assert status == 404
        address = f"/runs/{index.row(one).run}/images/{image[0]['sha256']}.png"  # type: ignore[union-attr]
        assert address in html and '<span class="k">' in html

    visiting(root, tmp_path, test)


def test_a_picture_is_a_png(root: Path, tmp_path: Path) -> None:
    async def test(_: Get, index: Index, base: str) -> None:
        (name, *_rest) = sorted((root / "sample" / "trajectories" / "images").iterdir())
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{base}/runs/{run_of(index, 'sample')}/images/{name.name}") as answer,
        ):
            assert (answer.status, answer.content_type) == (200, "image/png")
            assert await answer.read() == name.read_bytes()

    visiting(root, tmp_path, test)


def logged_line(root: Path, images: int, format: str | None = None, text: str = "", code: str | None = None) -> None:
    """Appends a rollout with that many images of the question and one call whose output was cut."""
    folder = root / "several" / "trajectories"
    (folder / "train").mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    shown = []
    for number in range(images):
        picture = rendered(Image.new("RGB", (30 + number, 20), (0, number, 0)))
        (folder / "images" / f"{picture.sha256}.png").write_bytes(picture.png)
        shown.append({"sha256": picture.sha256, "width": picture.width, "height": picture.height})
    execution = {"status": "ok", "stdout": "1", "images": [], "truncated": ["stdout", "images"]}
    line = {
        "step": 1,
        "group": f"images-{images}-{format}",
        "sample": 0,
        "record_id": f"images-{images}-{format}",
        "question": "Which is larger?",
        "input_images": shown,
        "turns": [{"text": text, "code": code, "execution": execution}],
    } | ({} if format is None else {"format": format})
    with (folder / "train" / "step_000001.x.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_all_images_of_a_question_are_shown_under_the_names_that_code_has_for_them(tmp_path: Path) -> None:
    for images in (1, 20, QUESTION_IMAGES + 3):
        logged_line(tmp_path, images)

    async def test(get: Get, index: Index, _: str) -> None:
        named = {row.summary.record: row.id for row in index.find(run_of(index, "several"), Query(), limit=9).rows}
        for path in ("", "/group", "/export"):
            _, one, _ = await get(f"/t/{named['images-1-None']}{path}")
            _, twenty, _ = await get(f"/t/{named['images-20-None']}{path}")
            assert "input_images" not in one and "input_image, 30 by 20 pixels" in one
            for number in range(20):
                assert f"<code>input_images[{number}]</code>" in twenty
                assert f'alt="input_images[{number}], {30 + number} by 20 pixels"' in twenty
        _, many, _ = await get(f"/t/{named[f'images-{QUESTION_IMAGES + 3}-None']}")
        assert f"input_images[{QUESTION_IMAGES - 1}]" in many and "3 more images of the question" in many

    visiting(tmp_path, tmp_path / "cache", test)


def test_what_was_cut_of_an_output_is_said(tmp_path: Path) -> None:
    logged_line(tmp_path, 1)

    async def test(get: Get, index: Index, _: str) -> None:
        for path in ("", "/group", "/export"):
            _, html, _ = await get(f"/t/{first(index, 'several')}{path}")
            assert "cut to fit the sandbox&#39;s bounds: stdout, images" in html.replace("'", "&#39;")

    visiting(tmp_path, tmp_path / "cache", test)


@pytest.mark.parametrize("format", [None, *FORMATS, "unknown"])
def test_code_is_shown_once_in_every_format(format: str | None, tmp_path: Path) -> None:
    code = 'name = "one"\nprint(name)'
    written = FORMATS.get(format or "code", FORMATS["code"])
    logged_line(tmp_path, 1, format, f"<think>before</think>\n{written.render_call(code)}", code)

    async def test(get: Get, index: Index, _: str) -> None:
        _, html, _ = await get(f"/t/{first(index, 'several')}")
        shown = unescape(re.sub("<[^>]+>", "", html))
        assert shown.count("print(name)") == 1 and "before" in shown and "```" not in shown

    visiting(tmp_path, tmp_path / "cache", test)


def test_hostile_lines_are_inert_and_bounded(root: Path, tmp_path: Path) -> None:
    async def test(get: Get, index: Index, _: str) -> None:
        run = run_of(index, "hostile")
        rows = index.find(run, Query(), limit=50).rows
        assert len(rows) == 8 and {known.id: known.broken for known in index.runs()}[run] == 1
        for path in [
            f"/runs/{run}/list",
            *(f"/t/{row.id}{part}" for row in rows for part in ("", "/group", "/export")),
        ]:
            status, html, _ = await get(path)
            assert status == 200, path
            assert len(html) < 400_000, path
            assert "<script>" not in html and "<img src=x" not in html and "<svg onload" not in html, path
            assert "1337" not in html, path  # what a template would make of {{7*191}}
        named = {row.summary.record: row.id for row in rows}
        _, html, _ = await get(f"/t/{named['output']}")
        assert "characters left out" in html and "\u202e" not in html and "⟨U+202E⟩" in html
        _, whole, headers = await get(f"/t/{named['output']}/raw/1.stdout")
        assert len(whole) > 10 << 20 and headers["Content-Type"] == "text/plain; charset=utf-8"
        _, html, _ = await get(f"/t/{named['pictures']}")
        assert html.count("<img ") == 13 and "188 more images" in html  # that of the zoom dialog is one
        _, html, _ = await get(f"/t/{named['pictures']}?images=all")
        assert html.count("<img ") == 201
        _, html, _ = await get(f"/t/{named['turns']}")
        assert html.count('class="turn"') == 50 and "450 more turns" in html
        _, html, _ = await get(f"/t/{named['paths']}")
        assert "passwd" not in html
        _, html, _ = await get(f"/t/{named['bytes']}")
        assert "\ufffd" in html

    visiting(root, tmp_path, test)


def test_markup_is_shown_as_what_it_is(root: Path, tmp_path: Path) -> None:
    async def test(get: Get, index: Index, _: str) -> None:
        run = run_of(index, "hostile")
        (one,) = (row.id for row in index.find(run, Query(outcome="wrong"), limit=5).rows)
        _, html, _ = await get(f"/t/{one}")
        assert html.count("&lt;script&gt;window.owned = 1&lt;/script&gt;") >= 8
        _, plain, headers = await get(f"/t/{one}/raw/1.text")
        assert plain == MARKUP and headers.get("Content-Type", "").startswith("text/plain")

    visiting(root, tmp_path, test)


def test_ten_megabytes_of_output_cost_bounded_memory(root: Path, tmp_path: Path) -> None:
    async def test(get: Get, index: Index, _: str) -> None:
        one = first(index, "hostile", record="output")
        tracemalloc.start()
        await get(f"/t/{one}")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 120 << 20  # the line, its text, and a few copies of it on the way

    visiting(root, tmp_path, test)


@pytest.mark.parametrize(
    "path", ["/nothing", "/t/999999", "/runs/99", "/runs/99/list", "/t/1/raw/9.text", "/static/../cli.py", "/t/1/raw/x"]
)
def test_what_is_not_there(root: Path, tmp_path: Path, path: str) -> None:
    async def test(get: Get, _: Index, __: str) -> None:
        status, html, _headers = await get(path)
        assert status == 404 and "Traceback" not in html

    visiting(root, tmp_path, test)


def test_a_filter_that_cannot_be_read_is_told(root: Path, tmp_path: Path) -> None:
    async def test(get: Get, index: Index, _: str) -> None:
        status, html, _ = await get(f"/runs/{run_of(index, 'sample')}/list?step=<b>")
        assert status == 400 and "step=&lt;b&gt;: must be a whole number" in html

    visiting(root, tmp_path, test)


def test_without_a_token_other_hosts_names_are_refused(root: Path, tmp_path: Path) -> None:
    async def test(get: Get, _: Index, __: str) -> None:
        assert (await get("/", headers={"Host": "evil.example"}))[0] == 403
        assert (await get("/", headers={"Host": "localhost:1"}))[0] == 200

    visiting(root, tmp_path, test)


def test_a_token_opens_once_and_stays_as_a_cookie(root: Path, tmp_path: Path) -> None:
    async def test(get: Get, _: Index, base: str) -> None:
        assert (await get("/"))[0] == 401
        assert (await get("/?token=wrong"))[0] == 401
        assert (await get("/static/app.js"))[0] == 401
        assert (await get("/", headers={"Authorization": "Bearer a secret"}))[0] == 200
        status, _, headers = await get("/?token=a+secret", allow_redirects=False)
        assert (status, headers["Location"]) == (303, "/")
        assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Strict" in headers["Set-Cookie"]
        assert (await get("/"))[0] == 200
        async with aiohttp.ClientSession() as stranger, stranger.get(base) as answer:
            assert answer.status == 401

    visiting(root, tmp_path, test, token="a secret")


def test_a_page_is_told_of_new_lines_and_fetches_them(tmp_path: Path) -> None:
    write_run(tmp_path / "run", steps=1, groups=1)

    async def test(get: Get, index: Index, base: str) -> None:
        while INDEXING in (await get("/"))[1]:  # what is found meanwhile is no news
            await asyncio.sleep(0.02)
        newest = index.newest_id()
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession() as client, client.get(f"{base}/events", timeout=timeout) as events:
            assert await events.content.readline() == f'data: {{"newest": {newest}}}\n'.encode()
            log = TrajectoryLog(tmp_path / "run" / "trajectories", "late")
            write_group(log, 5, step=2, split="train", size=3, skill=1.0)
            while b"data" not in (line := await events.content.readline()):
                assert line
        _, found, _ = await get(f"/runs/1/rows?after={newest}")
        assert '"count": 3' in found and '"total": 7' in found and found.count("<tr class") == 3

    visiting(tmp_path / "run", tmp_path / "cache", test)


def test_the_end_of_the_first_reading_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that was fetched with the last rows, but before the end, says that files are being read."""
    write_run(tmp_path / "run", steps=1, groups=1)
    read, updated = threading.Event(), Index.update

    def update(index: Index) -> Iterator[int]:
        yield from updated(index)
        assert read.wait(30)

    async def test(get: Get, index: Index, base: str) -> None:
        async with aiohttp.ClientSession() as client, client.get(f"{base}/events") as events:
            told = await events.content.readline()
            assert INDEXING in (await get("/"))[1]
            await events.content.readline()
            read.set()
            assert await events.content.readline() == told
            assert INDEXING not in (await get("/"))[1]

    monkeypatch.setattr(Index, "update_fully", lambda index: [*updated(index)])
    monkeypatch.setattr(Index, "update", update)
    visiting(tmp_path / "run", tmp_path / "cache", test)


def test_rows_that_were_there_at_the_start_do_not_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that is made while a list is followed: old steps are not news."""
    write_run(tmp_path / "run", steps=3, groups=1)
    go_on = threading.Event()
    monkeypatch.setattr(reading, "BATCH", 2)
    whole_lines = reading.whole_lines

    def slow_lines(path: Path, offset: int) -> Iterator[Line]:
        if "step_000001" in path.name:
            go_on.wait(30)
        return whole_lines(path, offset)

    monkeypatch.setattr(reading, "whole_lines", slow_lines)

    async def run() -> None:
        index = Index(tmp_path / "run", tmp_path / "cache")
        async with listening(index, None, "127.0.0.1", 0) as base, aiohttp.ClientSession() as client:

            async def get(path: str) -> str:
                async with client.get(base + path) as answer:
                    return await answer.text() if answer.status == 200 else '{"total": 0}'

            async def until(total: int) -> Any:
                while (found := json.loads(await get("runs/1/rows?after=0")))["total"] < total:
                    await asyncio.sleep(0.05)
                return found

            async with asyncio.timeout(20):
                assert (await until(8))["count"] == 0
                go_on.set()
                assert (await until(12))["count"] == 0
                while "Reading files" in await get("runs/1"):
                    await asyncio.sleep(0.05)
                log = TrajectoryLog(tmp_path / "run" / "trajectories", "late")
                write_group(log, 5, step=1, split="train", size=3, skill=1.0)
                while (found := await until(15))["count"] < 3:  # rows and total are asked for one after the other
                    await asyncio.sleep(0.05)
                assert found["count"] == 3

    asyncio.run(run())


def write_turns(folder: Path, record: str, said: list[str]) -> None:
    """One rollout with these turns, at a step of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    step = len(list(folder.iterdir())) + 1
    line = {"record_id": record, "turns": [{"text": text} for text in said]}
    (folder / f"step_{step:06d}.w.jsonl").write_text(json.dumps(line) + "\n")


def compared(html: str) -> str:
    """What a comparison says has changed."""
    return html.split('id="changed"')[1].split("</section>")[0]


def test_a_comparison_sees_what_pages_leave_out(tmp_path: Path) -> None:
    folder, same = tmp_path / "run" / "trajectories" / "train", "the same " * 1_000
    for last in ("one", "other"):
        write_turns(folder, "late", [same + last] + ["a turn"] * 20 + [last])
    for sign in ("- one", "++ two"):
        write_turns(folder, "signs", [f"first\n--{sign}\nlast"])
    for last in ("one", "other"):
        write_turns(folder, "long", ["x" * 150_000 + last])

    async def test(get: Get, index: Index, _: str) -> None:
        ids = [row.id for row in reversed(index.find(1, Query(), limit=10).rows)]
        _, html, _ = await get(f"/t/{ids[0]}/against/{ids[1]}")
        assert "same one</span>" in compared(html) and "same other</span>" in compared(html)
        assert "- one</span>" in compared(html) and "+ other</span>" in compared(html) and "note" not in compared(html)
        _, html, _ = await get(f"/t/{ids[2]}/against/{ids[3]}")
        assert "- --- one</span>" in compared(html) and "+ --++ two</span>" in compared(html)
        _, html, _ = await get(f"/t/{ids[4]}/against/{ids[5]}")
        assert "first 100,000 characters" in compared(html) and "Both wrote the same that far." in compared(html)
        _, html, _ = await get(f"/t/{ids[0]}/against/{ids[0]}")
        assert "Both wrote the same." in compared(html)

    visiting(tmp_path / "run", tmp_path / "cache", test)


def test_a_group_that_is_cut_says_so(tmp_path: Path) -> None:
    log = TrajectoryLog(tmp_path / "run" / "trajectories", "w")
    write_group(log, 1, step=1, split="train", size=32, skill=1.0, pictures=False)

    async def test(get: Get, index: Index, _: str) -> None:
        one = index.find(1, Query(), limit=32).rows[20].id
        _, html, _ = await get(f"/t/{one}")
        assert "group of 32" in html and "16 of 32" in html and "sample 20</a>" in html
        _, html, _ = await get(f"/t/{one}/group")
        assert "16 of 32 of a group" in html and 'aria-label="Sample 20"' in html and html.count('class="column"') == 16
        _, html, _ = await get(f"/t/{one}/export?group=1")
        assert "16 of 32 trajectories" in html

    visiting(tmp_path / "run", tmp_path / "cache", test)


def test_an_export_needs_nothing_else(root: Path, tmp_path: Path) -> None:
    async def test(get: Get, index: Index, _: str) -> None:
        one = first(index, "sample", tools="used", min_images=2)
        _, html, headers = await get(f"/t/{one}/export?group=1")
        assert headers["Content-Disposition"].startswith("attachment")
        assert html.count('class="exported"') == 4 and "data:image/png;base64," in html
        assert not re.search(r'(?:src|href)="(?!data:|#)', html) and "<script" not in html and "@import" not in html

    visiting(root, tmp_path, test)


def test_colours_have_the_contrast_of_wcag_aa() -> None:
    """Every ink on every ground that it stands on, light and dark."""
    style = (STATIC / "view.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    )
    for colours in (light, dark):
        for ink in ("ink", "quiet", "accent", "good", "bad", "warn", "k", "s", "c", "d", "n"):
            for ground in ("paper", "raised", "soft"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        for name in ("good", "bad", "warn"):
            assert contrast(colours[name], colours[f"{name}-bg"]) >= 4.5, name


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
