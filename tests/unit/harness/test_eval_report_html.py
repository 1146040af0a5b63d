from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from codedance_verl.harness.call_use import Use
from codedance_verl.harness.report_build import ScoredBenchmark, evaluation_report
from codedance_verl.harness.report_html import render
from codedance_verl.harness.shown import PageImages, choose
from tests.unit.harness.made_up import (
    Picture,
    benchmark,
    every,
    failed,
    items,
    kept,
    key,
    measured,
    missing,
    png,
    ran_again,
    reply,
)

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}\u202e"


class Page(HTMLParser):
    """Tags with their attributes, and the text, as a browser would have them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def pictures(self) -> list[str]:
        return [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]


def page(folder: Path, *found: ScoredBenchmark, **bounds: int) -> Page:
    report = evaluation_report("tiny", found, notes=["beware"], out=folder)
    return Page(render(report, {one.task.name: one.measured for one in found}, PageImages(folder, **bounds)))


def test_the_page_shows_figures_beside_published_rows(tmp_path: Path) -> None:
    asked = items(50)
    shown = page(tmp_path, benchmark(every(asked, lambda n: float(n < 40), lambda n: n % 2), asked))
    for text in ("V* bench", "80.0\N{NO-BREAK SPACE}%", "84.8\N{NO-BREAK SPACE}%", "± 5.1", "beware", "not measured"):
        assert text in shown.text
    assert "50 items, but 191" in shown.text
    assert "Use of tools" in shown.text and "Operations in the code" in shown.text
    assert sum(tag == "svg" for tag, _ in shown.tags) == 2  # the overview, and answers within so many turns
    assert "Right, code ran" in shown.text and "Wrong, no code" in shown.text


def test_a_page_without_anything_measured_says_so(tmp_path: Path) -> None:
    assert "no benchmark was evaluated" in page(tmp_path).text
    shown = page(tmp_path, benchmark([failed(item) for item in items(3)], items(3)), benchmark([], items(0), "chartqa"))
    assert "n/a" in shown.text
    assert "endpoint_failure 3" in shown.text
    assert "Trajectories" not in shown.text


def test_shares_of_calls_stand_on_the_page_where_calls_ran_again(tmp_path: Path) -> None:
    asked = items(3)
    one = benchmark(every(asked, lambda _: 1.0, lambda _: 1), asked)
    assert "Faithfulness of calls" not in page(tmp_path, one).text
    ran_again(tmp_path, one.key, [[Use.USED, Use.HARD_CODED], [Use.USED, Use.FAULT], [Use.USED], []])
    text = page(tmp_path, one).text
    assert "Faithfulness of calls" in text and "hard coded" in text
    assert "75.0\N{NO-BREAK SPACE}%" in text and "25.0\N{NO-BREAK SPACE}%" in text
    assert "4 calls of 3 replies; 4 of 40 replies with code ran again" in text and "1 of them without findings" in text
    assert "fault 1" in text and "code 4" in text


def test_nothing_hostile_reaches_the_page_as_markup(tmp_path: Path) -> None:
    asked = [
        replace(item, id=HOSTILE + item.id, question=HOSTILE, truth=HOSTILE, cluster=HOSTILE + item.id)
        for item in items(4)
    ]
    written = reply(HOSTILE, calls=1, code=HOSTILE)
    answers = [measured(item, 1.0, written) for item in asked[:2]]
    answers += [failed(item, reason=HOSTILE) for item in asked[2:]]
    one = benchmark(answers, asked, of=key(model=HOSTILE, control=HOSTILE))
    shown = page(tmp_path, one)
    names = {tag for tag, _ in shown.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "form", "base"}
    assert not any(name.startswith("on") for _, attributes in shown.tags for name in attributes)
    assert all(source.startswith("data:image/") for source in shown.pictures)
    assert "{{ 7 * 7 }}" in shown.text
    assert "\u202e" not in shown.text and "⟨U+202E⟩" in shown.text
    policies = [attributes["content"] for tag, attributes in shown.tags if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_images_are_made_small_and_bounded_in_number_and_bytes(tmp_path: Path) -> None:
    asked = [replace(item, images=(Picture(png(3000, 1000)),)) for item in items(2)]
    returned = [kept(tmp_path, png(20, 20, "blue")), missing()]
    answers = [measured(item, 1.0, reply(calls=1, images=returned)) for item in asked]
    one = benchmark(answers, asked)
    whole, few = page(tmp_path, one), page(tmp_path, one, most=1)
    assert len(whole.pictures) == 2  # of the question and of the code; the missing one is said
    assert "picture missing" in whole.text and "left out, to keep the page small" not in whole.text
    assert len(few.pictures) == 1 and "left out, to keep the page small" in few.text


def test_images_beyond_the_bytes_of_a_page_are_left_out(tmp_path: Path) -> None:
    images = PageImages(tmp_path, most_bytes=5_000)
    found = [images.of(png(300, 300, colour)) for colour in ("red", "blue", "green")]
    assert found[0] is not None and found[-1] is None
    assert images.left_out == found.count(None)
    assert all(source is None or len(source) < 5_000 for source in found)


@pytest.mark.parametrize("broken", [b"", b"no image", png()[:40], b"<svg onload='alert(1)'/>"])
def test_a_broken_image_is_left_out(broken: bytes, tmp_path: Path) -> None:
    images = PageImages(tmp_path)
    assert images.of(broken) is None
    assert images.of(png(2000, 10)) is not None


def test_one_reply_of_each_kind_is_chosen_and_images_come_first(tmp_path: Path) -> None:
    asked = items(6)
    plain, drawn = reply(calls=1), reply(calls=1, images=[kept(tmp_path, png())])
    answers = [measured(asked[0], 1.0, plain), measured(asked[1], 1.0, drawn), measured(asked[2], 1.0, drawn)]
    answers += [measured(asked[3], 0.0), measured(asked[4], None), failed(asked[5])]
    assert [(title, one.item.id) for title, one in choose(answers)] == [
        ("Right, code ran", "1"),
        ("Wrong, no code", "3"),
    ]
    assert choose([]) == ()
