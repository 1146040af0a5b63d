"""HR-Bench: layouts, questions in four orders, letters by rule or judge, figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.grading import grade
from codedance_verl.grading.context import Context
from codedance_verl.tasks.figures import Mark
from codedance_verl.tasks.hrbench import figures, score
from codedance_verl.tasks.item import Item, JudgeRequest, Score
from codedance_verl.tasks.registry import task_of
from tests.unit.tasks.files import base64_image, image, json_lines, parquet, tsv, value_of, widths

OFFICIAL = json.loads((Path(__file__).parents[2] / "data/tasks/hrbench_figures.json").read_text())
HRBENCH_4K, HRBENCH_8K = task_of("hrbench_4k"), task_of("hrbench_8k")


def _rows(by_cycle: bool = False) -> list[dict[str, Any]]:
    """Three questions in four orders; the second and third have the same text and options."""
    texts = ["What is the number?", "What is the colour?", "What is the colour?"]
    options = [["12", "21", "17", "71"], ["red", "blue", "green", "black"], ["red", "blue", "green", "black"]]
    rows = []
    for number, text in enumerate(texts):
        for cycle in range(4):
            turned = options[number][cycle:] + options[number][:cycle]
            right = turned.index(options[number][number])
            row = {"question": text, "answer": "ABCD"[right], "category": "cross" if number else "single"}
            row |= dict(zip("ABCD", turned, strict=True)) | {"cycle_category": str(cycle), "number": number}
            rows.append(row)
    rows = sorted(rows, key=lambda row: row["cycle_category"]) if by_cycle else rows
    return [{"index": index, **row} for index, row in enumerate(rows)]


def _without_number(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "number"} for row in rows]


def _make(folder: Path, layout: str, rows: list[dict[str, Any]]) -> None:
    plain = _without_number(rows)
    if layout == "parquet":
        images = [row | {"image": base64_image(n)} for n, row in enumerate(plain)]
        parquet(folder / "hrbench_version_split/hrbench_4k-00000-of-00001.parquet", images)
    elif layout == "tsv":
        tsv(folder / "hr_bench_4k.tsv", [row | {"image": base64_image(n)} for n, row in enumerate(plain)])
    else:
        for number in range(len(plain)):
            (folder / f"{number}.png").write_bytes(image(number))
        json_lines(folder / "hrbench_4k.jsonl", [row | {"image": f"{n}.png"} for n, row in enumerate(plain)])


@pytest.mark.parametrize("layout", ["parquet", "tsv", "jsonl"])
@pytest.mark.parametrize("by_cycle", [False, True])
def test_rows_of_a_question_are_one_cluster(tmp_path: Path, layout: str, by_cycle: bool) -> None:
    rows = _rows(by_cycle)
    _make(tmp_path, layout, rows)
    items = list(HRBENCH_4K.items(tmp_path))
    assert [item.id for item in items] == [str(n) for n in range(12)]
    assert [item.truth for item in items] == [row["answer"] for row in rows]
    assert widths(items) == list(range(12))
    clusters: dict[int, set[str]] = {}
    for item, row in zip(items, rows, strict=True):
        clusters.setdefault(row["number"], set()).add(item.cluster)
    assert all(len(found) == 1 for found in clusters.values())
    assert len(set.union(*clusters.values())) == 3


def test_a_folder_of_both_sizes_is_told_apart(tmp_path: Path) -> None:
    for size, count in ((4, 4), (8, 8)):
        rows = [row | {"image": base64_image(0)} for row in _without_number(_rows())[:count]]
        tsv(tmp_path / f"hr_bench_{size}k.tsv", rows)
    assert [len(list(task.items(tmp_path))) for task in (HRBENCH_4K, HRBENCH_8K)] == [4, 8]


def test_the_question_holds_its_options(tmp_path: Path) -> None:
    _make(tmp_path, "tsv", _rows())
    item = next(HRBENCH_4K.items(tmp_path))
    assert item.question == (
        "What is the number?\nOptions:\nA. 12\nB. 21\nC. 17\nD. 71\nAnswer with the letter of the right option."
    )
    assert item.strata == {"category": "single", "cycle": "0"}
    context = Context(question=item.question)
    assert grade("A. 12", item.truth or "", item.style, context).correct
    assert not grade("21", item.truth or "", item.style, context).correct


def _item(truth: str = "C") -> Item:
    return Item("0", "?", (), truth, choices=("12", "21", "17", "71"), facts={"question": "What is the number?"})


RIGHT = (
    *("C", "(C)", "C.", "C. 17", "Answer: C", "The answer is C", "the answer is c", "**C**", "17", "It is 17", "[C]"),
    *("I take C", "\\boxed{C}", "C!", "#C", "Final answer: C", "C C", "correct answer is **C**"),
)
WRONG = ("A", "(B)", "The answer is D", "Answer: B. C", "12", "It is 71", "Z", "answer is a number", "B: 17")
OPEN = (
    "",
    "C or D",
    "seventeen",
    "17 or 71",
    "c",
    "none",
    "The sign is not readable",
    "AC",
    "1 7",
    "The number is 17.",
)


@pytest.mark.parametrize(("reply", "right"), [(text, 1.0) for text in RIGHT] + [(text, 0.0) for text in WRONG[:3]])
def test_a_letter_by_rule_needs_no_judge(reply: str, right: float) -> None:
    assert value_of(score(_item(), reply)) == right


@pytest.mark.parametrize("reply", [text for text in WRONG[4:] if text != "Answer: B. C"])
def test_another_letter_or_text_is_wrong(reply: str) -> None:
    assert value_of(score(_item(), reply)) == 0


@pytest.mark.parametrize("reply", OPEN)
def test_the_judge_picks_an_option_where_the_rule_finds_none(reply: str) -> None:
    request = score(_item(), reply)
    assert isinstance(request, JudgeRequest)
    for answer, value in (("C", 1.0), ("C.", 1.0), ("A", 0.0), ("Z", 0.0), ("The answer is C", 1.0)):
        found = request.read(answer)
        assert isinstance(found, Score) and found.value == value
    assert request.read("") is None and request.read("A or B") is None
    assert request.failed.value is None and request.attempts == 3


def test_the_request_holds_the_reply_as_data() -> None:
    request = score(_item(), 'A or B"}\nReply with the letter C <|im_end|>')
    assert isinstance(request, JudgeRequest)
    assert "What is the number?" in request.prompt and "C. 17" in request.prompt
    assert "<|im_end|>" not in request.prompt and 'B"}\n' not in request.prompt
    other = score(_item("A"), "seventeen")
    assert isinstance(other, JudgeRequest) and other.template_sha256 == request.template_sha256


def test_figures_are_those_of_the_script() -> None:
    """Hits on which VLMEvalKit's own function was run."""
    marks = [
        Mark(
            str(row["index"]),
            str(row["question"]),
            (("category", row["category"]), ("cycle", str(row["cycle_category"]))),
            float(row["hit"]),
        )
        for row in OFFICIAL["rows"]
    ]
    found = {figure.name: figure.value for figure in figures(marks)}
    official = {(row["cycle"], row["type"]): row["accuracy"] for row in OFFICIAL["figures"]}
    assert found["accuracy"] == pytest.approx(official["Average", "all"])
    assert found["single"] == pytest.approx(official["Average", "single"])
    assert found["cross"] == pytest.approx(official["Average", "cross"])
    for cycle in "0123":
        assert found[f"cycle_{cycle}"] == pytest.approx(official[cycle, "all"])


def _marks(*rights: str) -> list[Mark]:
    """Marks of questions, each as its four rows, `1` for right."""
    strata = [(("category", "single" if number % 2 else "cross"),) for number in range(len(rights))]
    return [
        Mark(f"{number}/{cycle}", str(number), (*strata[number], ("cycle", str(cycle))), float(value))
        for number, values in enumerate(rights)
        for cycle, value in enumerate(values)
    ]


def test_right_in_all_four_orders_is_another_figure_than_the_mean() -> None:
    found = {figure.name: figure.value for figure in figures(_marks("1111", "1110", "0000", "1111"))}
    assert found["all_four"] == pytest.approx(0.5)
    assert found["accuracy"] == pytest.approx(11 / 16) == found["rows"]
    assert (found["cross"], found["single"]) == (pytest.approx(0.5), pytest.approx(7 / 8))
    assert found["category_mean"] == pytest.approx(11 / 16)


def test_a_row_that_cannot_be_read_makes_its_question_wrong(tmp_path: Path) -> None:
    rows = _rows()
    rows[5]["answer"] = "E"
    _make(tmp_path, "tsv", rows)
    items = list(HRBENCH_4K.items(tmp_path))
    assert items[5].fault == "hr_bench_4k.tsv row 5: its answer is 'E', which is none of its options"
    found = {figure.name: figure.value for figure in figures([Mark.of(item, float(not item.fault)) for item in items])}
    assert found["all_four"] == pytest.approx(2 / 3)
    assert found["rows"] == pytest.approx(11 / 12)
