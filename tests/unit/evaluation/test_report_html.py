from __future__ import annotations

import base64
import io
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from codedance_verl.evaluation.build import ReportInputs, build_report
from codedance_verl.evaluation.discovery import discovery_examples
from codedance_verl.evaluation.examples import Example, ExampleGroup, choose_examples
from codedance_verl.evaluation.report import Report, Seconds
from codedance_verl.evaluation.report_html import _SECONDS_LABELS, duration, percent, points, render
from codedance_verl.formats import FORMATS, render_think
from codedance_verl.trajectories.schema import TrajectoryRecord, convert
from tests.unit.evaluation.experiment import make_experiment
from tests.unit.evaluation.logs import Line, answer_turn, code_turn, image, line, png, write_log

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"


class Page(HTMLParser):
    """What a browser would build: tags with their attributes, and the text."""

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


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    return make_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def report(inputs: ReportInputs) -> Report:
    return build_report(inputs)


def exhibit(folder: Path, rollout: Line) -> ExampleGroup:
    return ExampleGroup("Shown", (Example("after RL", convert(rollout, TrajectoryRecord), folder),))


def test_the_page_shows_figures_curves_and_three_trajectories(report: Report, inputs: ReportInputs) -> None:
    exhibits = choose_examples(inputs.sft_evaluation / "trajectories", inputs.seeds[0].folder / "trajectories")
    page = Page(render(report, exhibits))
    for expected in (
        percent(report.sft.overall.accuracy.value),
        percent(1.0),
        "All criteria are met.",
        "Blank-image control",
        "Training accuracy",
        "weight sync",
        "before RL",
        "input_image.show()",
        "5 min 10 s",
        "Greedy accuracy after RL; dashed: chance",
        "hard questions, change since SFT",
        "count_digits: share of training rollouts",
        "look, look_large",
    ):
        assert expected in page.text
    assert [exhibit.title for exhibit in exhibits if exhibit.examples] == [exhibit.title for exhibit in exhibits]
    assert len(page.pictures) >= 5
    # headline, greedy, two of controls, six of the effect of tools, discovery, five curves, two of time
    assert sum(tag == "svg" for tag, _ in page.tags) == 18


def test_the_page_needs_nothing_from_outside(report: Report, inputs: ReportInputs) -> None:
    html = render(
        report, choose_examples(inputs.sft_evaluation / "trajectories", inputs.seeds[0].folder / "trajectories")
    )
    page = Page(html)
    assert all(source.startswith("data:image/png;base64,") for source in page.pictures)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|url\((?!#)", html)
    assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in page.tags)


def test_hostile_text_stays_text_wherever_it_stands(report: Report, tmp_path: Path) -> None:
    turns = [
        {**code_turn("error", code=f"print('''{HOSTILE}''')", stdout=HOSTILE), "text": f"{HOSTILE}<code>"},
        {**answer_turn(), "text": HOSTILE},
    ]
    turns[0]["execution"]["error"]["traceback"] = HOSTILE
    rollout = {
        **line(turns=turns, question=HOSTILE, answer=HOSTILE, kind=HOSTILE),
        "ground_truth": HOSTILE,
    }
    page = Page(render(report, [exhibit(tmp_path, rollout)]))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not page.pictures
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 7  # question, kind, two turns, stdout, traceback, answer, expected
    assert "49" not in re.findall(r"'&(\S+)", page.text)


def test_hostile_kinds_stay_text_in_tables_and_charts(tmp_path: Path) -> None:
    inputs = make_experiment(tmp_path)
    report = build_report(inputs)
    kinds = {HOSTILE: report.sft.kinds["sum"]}
    spoiled = Report(
        **{
            **vars(report),
            "title": HOSTILE,
            "notes": (HOSTILE,),
            "stages": {HOSTILE: 3.0},
            "versions": {HOSTILE: HOSTILE},
            "sft": type(report.sft)(**{**vars(report.sft), "kinds": kinds}),
            "rl": type(report.rl)(**{**vars(report.rl), "kinds": kinds}),
        }
    )
    page = Page(render(spoiled, []))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert page.text.count(HOSTILE) >= 5


def test_a_kind_called_as_a_difficulty_keeps_its_own_figures(report: Report) -> None:
    kinds = {"easy": report.rl.kinds["sum"]}
    titled = replace(report.rl, kinds=kinds).by_title()
    assert titled["all easy"] == report.rl.easy != titled["easy"]
    assert titled["easy"] == report.rl.kinds["sum"]


def test_characters_that_hide_or_reorder_text_are_made_visible(report: Report, tmp_path: Path) -> None:
    rollout = line(turns=[{**answer_turn(), "text": "a\u202eb\x00c\x1b[31m\td\r\ne \N{EM DASH} Ä 漢字 😀"}])
    text = Page(render(report, [exhibit(tmp_path, rollout)])).text
    assert "a⟨U+202E⟩b⟨U+0000⟩c⟨U+001B⟩[31m\td\ne \N{EM DASH} Ä 漢字 😀" in text


def test_long_text_is_clipped(report: Report, tmp_path: Path) -> None:
    rollout = line(turns=[{**answer_turn(), "text": "x" * 1_000_000}])
    text = Page(render(report, [exhibit(tmp_path, rollout)])).text
    assert text.count("x" * 100) < 70 and "994000 characters left out" in text


def test_pictures_are_inlined_from_the_log_and_bounded(report: Report, tmp_path: Path) -> None:
    big = png("blue", (2_000, 1_000))
    rollout = line(turns=[answer_turn()], input_images=[image(big)])
    target = tmp_path / image(big)["path"]
    target.parent.mkdir()
    target.write_bytes(big)
    (source,) = Page(render(report, [exhibit(tmp_path, rollout)])).pictures
    picture = Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1])))
    assert picture.size == (640, 320) and picture.getpixel((5, 5)) == (0, 0, 255)


@pytest.mark.parametrize("content", [None, b"not a picture", b"<svg onload=alert(1)>"])
def test_a_missing_or_broken_picture_is_said_so(report: Report, tmp_path: Path, content: bytes | None) -> None:
    rollout = line(turns=[answer_turn()], input_images=[image(png())])
    if content is not None:
        (tmp_path / "images").mkdir()
        (tmp_path / image(png())["path"]).write_bytes(content)
    page = Page(render(report, [exhibit(tmp_path, rollout)]))
    assert not page.pictures and "picture missing" in page.text


def test_a_run_without_such_a_trajectory_says_so(report: Report) -> None:
    assert "This run has no such trajectory." in render(report, [ExampleGroup("Hard: solved by code", ())])


def test_the_three_trajectories_are_the_right_ones(inputs: ReportInputs) -> None:
    by_code, direct, learned = choose_examples(
        inputs.sft_evaluation / "trajectories", inputs.seeds[0].folder / "trajectories"
    )
    solved = by_code.examples[0].trajectory
    assert solved.difficulty == "hard" and solved.grade.verdict == "correct" and solved.executions[0].images
    assert solved.kind == "count_photo"
    easy = direct.examples[0].trajectory
    assert easy.difficulty == "easy" and not easy.executions
    before, after = (example.trajectory for example in learned.examples)
    assert before.record_id == after.record_id != solved.record_id
    assert (before.grade.verdict, after.grade.verdict) == ("wrong", "correct")
    assert before.variant == after.variant == "sampled"


def test_nothing_to_show_gives_empty_exhibits(tmp_path: Path) -> None:
    write_log(tmp_path, [line("a", verdict="wrong")])
    assert [exhibit.examples for exhibit in choose_examples(tmp_path, tmp_path)] == [(), (), ()]


def test_examples_are_of_the_last_step_and_the_last_try(tmp_path: Path) -> None:
    write_log(tmp_path, [line("a", step=2)], written_at=1_000)
    write_log(tmp_path, [line("b", step=4), line("c", step=4)], written_at=2_000)
    write_log(tmp_path, [line("b", step=4, verdict="wrong")], worker="w1", written_at=3_000)
    by_code, _, learned = choose_examples(tmp_path, tmp_path)
    assert [item.trajectory.record_id for item in by_code.examples] == ["c"] and learned.examples == ()


def test_every_activity_of_a_step_has_a_label() -> None:
    assert set(_SECONDS_LABELS) == {field.name for field in fields(Seconds)} - {"total"}


def test_units() -> None:
    assert duration(7.25) == "7.2 s" and duration(125.4) == "2 min 05 s" and duration(None) == "n/a"
    assert percent(0.1234).split() == ["12.3", "%"] and percent(None) == "n/a"
    assert points(0.314) == "+31.4" and points(-0.05) == "-5.0"


@pytest.mark.parametrize("name", FORMATS)
def test_code_is_shown_once_in_every_format(report: Report, tmp_path: Path, name: str) -> None:
    code = 'name = "one"\nprint(name)'
    turn = code_turn(code=code) | {"text": f"{render_think('<code> it is')}\n{FORMATS[name].render_call(code)}"}
    turn["execution"]["truncated"] = ["stdout", "images"]
    rollout = line(turns=[turn, answer_turn()]) | {"format": name}
    text = Page(render(report, [exhibit(tmp_path, rollout)])).text
    assert text.count("print(name)") == 1 and "<think><code> it is</think>" in text
    assert "cut to fit the sandbox's bounds: stdout, images" in text


def test_a_line_that_names_no_format_is_of_the_default() -> None:
    assert convert(line(), TrajectoryRecord).format == "code"


def test_first_trajectories_of_a_discovery_are_one_click_away(report: Report, inputs: ReportInputs) -> None:
    discoveries = discovery_examples(report.discovery, inputs.logs)
    assert [group.title for group in discoveries] == ["count_digits, seed 0", "count_digits, seed 1"]
    assert [(item.trajectory.step, item.trajectory.grade.correct) for item in discoveries[0].examples] == [
        (1, False),
        (3, True),
    ]
    page = Page(render(report, [], discoveries))
    assert "First trajectories: count_digits, seed 1" in page.text
    assert page.text.count("print(1)") == 4, "the two trajectories of either seed"
    assert "--where split=train --where step=3 --where record=train-3-2 --where tools=used" in page.text
    assert sum(tag == "details" for tag, _ in page.tags) == 5  # figures of controls and of tools, two seeds, commands


def test_hostile_names_stay_text_in_the_effects(report: Report) -> None:
    discovery = {HOSTILE: report.discovery["count_digits"]}
    pairs = (replace(report.look_alikes[0], needs_code=HOSTILE),)
    page = Page(render(replace(report, discovery=discovery, look_alikes=pairs), []))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert page.text.count(HOSTILE) >= 4


def test_a_report_of_the_first_version_has_a_page(report: Report) -> None:
    old = replace(report, greedy_gain=None, controls=None, tool_effect=(), discovery={}, look_alikes=())
    page = Page(render(old, []))
    assert "Discovery" not in page.text and "not measured" in page.text
