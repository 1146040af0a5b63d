r"""MathVision: layouts, the rule against the authors' script, repaired golds, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codedance_verl.grading import grade
from codedance_verl.grading.context import Context
from codedance_verl.tasks.figures import Mark
from codedance_verl.tasks.item import Item
from codedance_verl.tasks.mathvision import MATHVISION, TESTMINI, prompt, repaired
from codedance_verl.tasks.mathvision_rule import extracted, is_equal, score
from codedance_verl.types import Verdict
from tests.unit.tasks.files import base64_image, image, json_lines, parquet, struct, tsv, value_of, widths
from tests.unit.tasks.official import results

OFFICIAL = results("mathvision")

ROWS: list[dict[str, Any]] = [
    {"id": "1", "question": "How many?\n<image1>", "options": [], "answer": "60", "level": 2, "subject": "counting"},
    {
        "id": "2",
        "question": "Which?\n<image1>",
        "options": list("ABCDE"),
        "answer": "D",
        "level": 1,
        "subject": "logic",
    },
    {
        "id": "3",
        "question": "How long?\n<image1>",
        "options": ["1", "2", "\\frac{1}{2}", "4", "5"],
        "answer": "C",
        "level": 5,
        "subject": "logic",
    },
]


def _make(folder: Path, layout: str, split: str = "test") -> None:
    if layout == "parquet":
        rows = [{**row, "image": f"images/{row['id']}.jpg", "decoded_image": struct(n)} for n, row in enumerate(ROWS)]
        parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows)
    elif layout == "tsv":
        columns = {"id": "index", "options": "choices", "subject": "category"}
        rows = [{columns.get(name, name): value for name, value in row.items()} for row in ROWS]
        rows = [{**row, "question": _prompts()[n], "image": base64_image(n)} for n, row in enumerate(rows)]
        tsv(folder / ("MathVision.tsv" if split == "test" else "MathVision_MINI.tsv"), rows)
    else:
        (folder / "images").mkdir()
        for n, row in enumerate(ROWS):
            (folder / "images" / f"{row['id']}.jpg").write_bytes(image(n))
        rows = [{**row, "image": f"images/{row['id']}.jpg", "solution": None} for row in ROWS]
        json_lines(folder / "data" / f"{split}.jsonl", rows)


def _prompts() -> list[str]:
    return [prompt(row["question"], row["options"]) for row in ROWS]


def _item(options: list[str], answer: str) -> Item:
    option = options["ABCDE".index(answer)] if options else ""
    return Item("0", "", (), answer, facts={"answer": answer, "option": option})


@pytest.mark.parametrize("layout", ["parquet", "jsonl", "tsv"])
def test_layouts(layout: str, tmp_path: Path) -> None:
    _make(tmp_path, layout)

    items = list(MATHVISION.items(tmp_path))

    assert [item.fault for item in items] == ["", "", ""]
    assert [item.id for item in items] == ["1", "2", "3"]
    assert [item.truth for item in items] == ["60", "D", "C"]
    assert [item.question for item in items] == _prompts()
    assert [item.strata for item in items] == [
        {"level": "2", "subject": "counting", "kind": "free"},
        {"level": "1", "subject": "logic", "kind": "choice"},
        {"level": "5", "subject": "logic", "kind": "choice"},
    ]
    assert widths(items) == [0, 1, 2]


def test_options_that_are_in_the_image_are_not_listed() -> None:
    _, letters, texts = _prompts()

    assert "(A)" not in letters
    assert "(C) \\frac{1}{2}\n(D) 4" in texts


@pytest.mark.parametrize("layout", ["parquet", "jsonl", "tsv"])
def test_splits_are_told_apart_by_their_files(layout: str, tmp_path: Path) -> None:
    for split in ("test", "testmini"):
        (tmp_path / split).mkdir()
        _make(tmp_path / split, layout, split)

    assert len(list(MATHVISION.items(tmp_path))) == len(list(TESTMINI.items(tmp_path))) == 3
    assert MATHVISION.count_note(3_040) == TESTMINI.count_note(304) == ""


def test_a_bad_row_stays_with_its_strata(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rows: list[dict[str, Any]] = [
        {**ROWS[0], "answer": None},
        {**ROWS[1], "answer": "F"},
        {**ROWS[2], "question": ""},
        {**ROWS[2], "options": 3, "id": "4"},
    ]
    json_lines(tmp_path / "test.jsonl", [{**row, "image": "images/9.jpg"} for row in rows])

    items = list(MATHVISION.items(tmp_path))

    assert [item.fault for item in items] == [
        "test.jsonl row 0: answer is missing or empty",
        "test.jsonl row 1: its answer is 'F', and it has 5 options",
        "test.jsonl row 2: question is missing or empty",
        "test.jsonl row 3: options is no list",
    ]
    assert [item.strata["level"] for item in items] == ["2", "1", "5", "5"]
    assert all(score(item, "60").value is None for item in items)


def test_a_missing_image_is_a_fault(tmp_path: Path) -> None:
    json_lines(tmp_path / "test.jsonl", [{**ROWS[0], "image": "images/9.jpg"}])

    (item,) = MATHVISION.items(tmp_path)

    assert item.fault == f"test.jsonl row 0: there is no image {tmp_path / 'images' / '9.jpg'}"
    assert item.truth == "60"


# ---- rule ----


@pytest.mark.parametrize("case", OFFICIAL["items"], ids=lambda case: repr(case["response"])[:40])
def test_rule_is_that_of_the_authors_script(case: dict[str, Any]) -> None:
    assert extracted(case["response"]) == case["model_answer"]
    assert value_of(score(_item(case["options"], case["answer"]), case["response"])) == float(case["correct"])


# options, gold, reply, right: by the steps of facts that are published on the rule
FIVE = ["12", "15", "18", "21", "24"]
HAND = [
    ([], "60", "60", True),
    ([], "60", "x is 60", True),
    ([], "60", "The answer is 60. As shown, 5 is odd", True),
    ([], "60", "The answer is 60\nor 61", True),
    ([], "60", "The answer is 60, or 61", False),
    ([], "60", "\\boxed{59} or \\boxed{60}", True),
    ([], "60", "\\boxed{60^\\circ}", True),
    ([], "60", "\\boxed{60 \\text{ cm}}", False),
    ([], "60", "60 km", True),
    ([], "60", "60 cm", False),
    ([], "60", "60.004", True),
    ([], "60", "60.006", False),
    ([], "60", "120/2", True),
    ([], "60", "x = 60", True),
    ([], "60", "sixty", False),
    ([], "60", "", False),
    ([], "60", "6e1", False),
    ([], "0.5", "\\frac{1}{2}", True),
    ([], "0.5", "\\frac12", False),
    ([], "0.5", ".504", True),
    ([], "1.5", "1\\frac{1}{2}", False),
    ([], "0.5", "1\\frac{1}{2}", True),
    ([], "1000", "1,000", True),
    ([], "C", "c", True),
    ([], "C", "(C)", True),
    ([], "C", "option C", False),
    ([], "(3,-4)", "(3, -4)", True),
    ([], "(3,-4)", "(3.001,-4)", False),
    ([], "(3,-4)", "(6/2,-4)", False),
    ([], "(3,-4)", "(-4,3)", False),
    (FIVE, "B", "B", True),
    (FIVE, "B", "(B) because", False),
    (FIVE, "B", "15", True),
    (FIVE, "B", "15.0", True),
    (FIVE, "B", "I say (B).", True),
    (FIVE, "B", "A\nor B.", False),
    (FIVE, "B", "B and A.", False),
    (FIVE, "B", "\\boxed{\\text{B}}", True),
    (FIVE, "B", "**B**", False),
    (FIVE, "B", "18", False),
]


@pytest.mark.parametrize(("options", "gold", "reply", "right"), HAND)
def test_rule_by_hand(options: list[str], gold: str, reply: str, right: bool) -> None:
    assert value_of(score(_item(options, gold), reply)) == float(right)


def test_nothing_that_a_model_writes_is_evaluated_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.eval", lambda *_: pytest.fail("eval was called"))

    assert not is_equal("2", "__import__('math').isqrt(4)")
    assert not is_equal("8", "pow(2,3)")


# ---- figures and ours ----


@pytest.mark.parametrize(
    ("gold", "truth", "answer"),
    [
        ("$\\boxed{\\frac{3}{4}}$", "\\frac{3}{4}", "0.75"),
        ("\frac{36}{13}", "\\frac{36}{13}", "\\frac{36}{13}"),
        ("69{degrees}", "69", "69"),
        ("8\\sqrt{3}{squareinches}", "8\\sqrt{3}", "8\\sqrt{3}"),
        ("11 ", "11", "11"),
        ("C", "C", "(C)"),
    ],
)
def test_golds_are_repaired_for_the_grader(gold: str, truth: str, answer: str) -> None:
    assert repaired(gold) == truth
    assert grade(answer, truth, "rule", Context(question="How many are there?")).verdict is Verdict.CORRECT


def test_figures_by_level_and_subject() -> None:
    marks = [
        Mark("1", "1", (("kind", "free"), ("level", "1"), ("subject", "logic")), 1.0),
        Mark("2", "2", (("kind", "choice"), ("level", "1"), ("subject", "counting")), 0.0),
        Mark("3", "3", (), 0.0),
        Mark("4", "4", (("kind", "choice"), ("level", "2"), ("subject", "logic")), 1.0),
    ]

    assert {figure.name: figure.value for figure in MATHVISION.figures(marks)} == {
        "accuracy": 0.5,
        "kind: choice": 0.5,
        "kind: free": 1.0,
        "level: 1": 0.5,
        "level: 2": 1.0,
        "subject: counting": 0.0,
        "subject: logic": 1.0,
    }
