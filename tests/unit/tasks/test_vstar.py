"""V* bench: layouts, orders of the options, score by letters."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from codedance_verl.grading import grade
from codedance_verl.grading.context import Context
from codedance_verl.tasks.figures import Mark
from codedance_verl.tasks.item import Item
from codedance_verl.tasks.vstar import VSTAR, VSTAR_UNSHUFFLED, option_prompt
from tests.unit.tasks.files import base64_image, image, json_lines, parquet, struct, tsv, value_of, widths

INSTRUCTION = "Answer with the option's letter from the given choices directly."
# question, options with the right one first, its place among the shuffled ones
QUESTIONS = [
    ("What is the colour of the cup?", ["red", "blue", "green", "black"], 2),
    ("What is the material of the bag?", ["glass", "metal", "paper", "wood"], 0),
    (
        "Is the dog on the left or right side of the car?",
        ["The dog is on the left side.", "The dog is on the right."],
        1,
    ),
]
CATEGORIES = ["direct_attributes", "direct_attributes", "relative_position"]


def _shuffled(number: int) -> tuple[list[str], str]:
    _, options, place = QUESTIONS[number]
    rest = options[1:]
    return [*rest[:place], options[0], *rest[place:]], "ABCD"[place]


def _lines(folder: Path | None) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for number, (question, _, _) in enumerate(QUESTIONS):
        options, letter = _shuffled(number)
        listed = "\n".join(f"({'ABCD'[place]}) {text}" for place, text in enumerate(options))
        picture = f"{CATEGORIES[number]}/sa_{number}.jpg" if folder else struct(number)
        text = f"{question}\n{listed}\n{INSTRUCTION}"
        row = {
            "image": picture,
            "text": text,
            "category": CATEGORIES[number],
            "question_id": str(number),
            "label": letter,
        }
        found.append(row)
    return found


def _make(folder: Path, layout: str) -> None:
    if layout in ("folders", "jsonl"):
        for number, (question, options, _) in enumerate(QUESTIONS):
            place = folder / CATEGORIES[number] / f"sa_{number}.jpg"
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(image(number, "JPEG"))
            if layout == "folders":
                record = {"target_object": ["cup"], "bbox": [[1, 2, 3, 4]], "question": question, "options": options}
                place.with_suffix(".json").write_text(json.dumps(record))
    if layout == "jsonl":
        json_lines(folder / "test_questions.jsonl", _lines(folder))
    elif layout == "parquet":
        parquet(folder / "data/test-0.parquet", _lines(None))
    elif layout == "tsv":
        rows = []
        for number, (question, _, _) in enumerate(QUESTIONS):
            options, letter = _shuffled(number)
            lettered = dict(zip("ABCD", [*options, "", ""], strict=False))
            row = {"index": number, "image": base64_image(number), "question": question, **lettered}
            rows.append(row | {"answer": letter, "category": CATEGORIES[number]})
        tsv(folder / "VStarBench.tsv", rows)


@pytest.mark.parametrize("layout", ["jsonl", "parquet", "tsv"])
def test_published_orders_are_kept(tmp_path: Path, layout: str) -> None:
    _make(tmp_path, layout)
    items = list(VSTAR.items(tmp_path))
    assert [item.id for item in items] == ["0", "1", "2"]
    assert [(list(item.choices), item.truth) for item in items] == [_shuffled(number) for number in range(3)]
    assert [item.question for item in items] == [line["text"] for line in _lines(None)]
    assert [item.strata["category"] for item in items] == CATEGORIES
    assert widths(items) == [0, 1, 2]


def test_files_of_single_images_are_shuffled_by_a_rule(tmp_path: Path) -> None:
    _make(tmp_path, "folders")
    (tmp_path / "OCR").mkdir()
    (tmp_path / "OCR/x.json").write_text("{}")
    items = list(VSTAR.items(tmp_path))
    assert [item.id for item in items] == [f"{category}/sa_{n}" for n, category in enumerate(CATEGORIES)]
    assert items == list(VSTAR.items(tmp_path))
    for item, (question, options, _) in zip(items, QUESTIONS, strict=True):
        assert sorted(item.choices) == sorted(options)
        assert item.choices["ABCD".index(item.truth or "")] == options[0]
        assert item.question == option_prompt(question, item.choices)
        assert item.facts["boxes"] == ((1, 2, 4, 6),), "left, top, right, bottom"


def test_boxes_of_published_questions_lie_beside_the_images(tmp_path: Path) -> None:
    _make(tmp_path, "folders")
    _make(tmp_path, "jsonl")
    (tmp_path / CATEGORIES[1] / "sa_1.json").write_text("{")
    (tmp_path / CATEGORIES[2] / "sa_2.json").write_text('{"bbox": [[1, 2, 3], ["x", 2, 3, 4], [5.5, 6, 10, 20]]}')
    boxes = [item.facts["boxes"] for item in VSTAR.items(tmp_path)]
    assert boxes == [((1, 2, 4, 6),), (), ((5, 6, 16, 26),)]


def test_the_rule_of_shuffling_prefers_no_letter(tmp_path: Path) -> None:
    (tmp_path / "direct_attributes").mkdir()
    for number in range(400):
        record = {"question": f"Question {number}?", "options": ["a", "b", "c", "d"]}
        (tmp_path / f"direct_attributes/{number}.json").write_text(json.dumps(record))
    letters = Counter(item.truth for item in VSTAR.items(tmp_path))
    assert set(letters) == set("ABCD") and min(letters.values()) > 70


@pytest.mark.parametrize("layout", ["folders", "jsonl", "parquet", "tsv"])
def test_the_unshuffled_order_has_the_right_option_first_and_is_marked(tmp_path: Path, layout: str) -> None:
    _make(tmp_path, layout)
    items = list(VSTAR_UNSHUFFLED.items(tmp_path))
    assert [(item.task, item.truth) for item in items] == [("vstar_unshuffled", "A")] * 3
    assert [list(item.choices) for item in items] == [options for _, options, _ in QUESTIONS]
    assert items[0].question == f"{QUESTIONS[0][0]}\n(A) red\n(B) blue\n(C) green\n(D) black\n{INSTRUCTION}"
    assert widths(items) == [0, 1, 2]
    assert "unshuffled" in VSTAR_UNSHUFFLED.title and "not comparable" in VSTAR_UNSHUFFLED.rule


def test_faults_of_vstar_name_file_and_row(tmp_path: Path) -> None:
    lines = _lines(tmp_path)
    lines[0]["label"] = "E"
    lines[1]["text"] = "What?"
    json_lines(tmp_path / "test_questions.jsonl", lines)
    faults = [item.fault for item in VSTAR.items(tmp_path)]
    assert faults[0] == "test_questions.jsonl row 0: its label is 'E', and its text has the options A, B, C, D"
    assert faults[1] == "test_questions.jsonl row 1: its label is 'A', and its text has the options none"
    assert faults[2].startswith("test_questions.jsonl row 2: there is no image ")
    assert [item.fault for item in VSTAR_UNSHUFFLED.items(tmp_path)] == faults


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        *((reply, 1.0) for reply in ("B", "(B)", "b", "B.", "Answer: B", "blue", "Blue.", "It is blue.", "(B) blue")),
        *((reply, 1.0) for reply in ("I think B", "B: blue", "**B**", "The correct option is B", "The answer is (B).")),
        *((reply, 1.0) for reply in ("Because it is blue, (B)", "\\boxed{B}", "B blue", "the answer is blue")),
        *((reply, 0.0) for reply in ("", "A", "Black", "Because", "black", "(A) or (B)", "A or B", "blue or red", "E")),
        *((reply, 0.0) for reply in ("A blueish cup", "none", "(B) red", "B. green", "1", "The answer is A, not B")),
    ],
)
def test_score_of_letters_and_texts(reply: str, right: float) -> None:
    choices = ("red", "blue", "green", "black")
    item = Item("0", option_prompt("What is the colour?", choices), (), "B", choices=choices, style="choice")
    assert value_of(VSTAR.official(item, reply)) == right


def test_the_grader_reads_the_same_items(tmp_path: Path) -> None:
    _make(tmp_path, "jsonl")
    for item in VSTAR.items(tmp_path):
        right = item.choices["ABCD".index(item.truth or "")]
        for reply in (item.truth, f"({item.truth}) {right}", right):
            assert grade(reply, item.truth or "", item.style, Context(question=item.question)).correct


def test_figures_of_vstar(tmp_path: Path) -> None:
    _make(tmp_path, "jsonl")
    marks = [Mark.of(item, float(item.id != "0")) for item in VSTAR.items(tmp_path)]
    figures = {figure.name: figure.value for figure in VSTAR.figures(marks)}
    assert figures == {"accuracy": pytest.approx(2 / 3), "direct_attributes": 0.5, "relative_position": 1.0}
