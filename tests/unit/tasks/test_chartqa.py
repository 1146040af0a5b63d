"""ChartQA: relaxed accuracy with its quirks, layouts, figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codedance_verl.tasks.chartqa import CHARTQA, figures, relaxed_equal
from codedance_verl.tasks.figures import Mark
from codedance_verl.tasks.item import Item
from tests.unit.tasks.files import image, json_lines, parquet, struct, value_of, widths

OFFICIAL = json.loads((Path(__file__).parents[2] / "data/tasks/relaxed_accuracy.json").read_text())


def test_relaxed_accuracy_is_that_of_the_scripts() -> None:
    """Predictions on which the functions of lmms-eval and VLMEvalKit were run."""
    rows = OFFICIAL["rows"]
    assert len(rows) > 100 and 30 < sum(row["right"] for row in rows) < len(rows) - 30
    assert not [row for row in rows if relaxed_equal(row["prediction"].strip(), row["truth"]) != row["right"]]


@pytest.mark.parametrize(
    ("reply", "truth", "right"),
    [
        ("3.15", "3", 1),  # the limit is within
        ("3.16", "3", 0),
        ("2.85", "3", 1),
        ("2.84", "3", 0),
        ("2019", "2000", 1),  # a year is a number
        ("2101", "2000", 0),
        ("50%", "50", 0),
        ("0.5", "50%", 1),
        ("50%", "50%", 1),
        ("52.4%", "50%", 1),
        ("52.5%", "50%", 0),  # beyond the limit by the last bit
        ("1e1", "10", 1),
        ("1,000", "1000", 0),  # text
        ("1,000", "1,000", 1),
        ("$12", "12", 0),
        ("$12", "$12", 1),
        ("0.0", "0", 0),  # a true 0 is text
        ("0", "0", 1),
        ("12 ", "12", 1),
        ("nan", "3", 0),
        ("inf", "3", 0),
        ("-5", "-5.2", 1),
        ("5", "-5", 0),
        ("Yes", "yes", 1),
        ("Yes.", "Yes", 0),
        (" no ", "No", 1),
        ("No", "Yes", 0),
        ("", "0", 0),
        ("about 3", "3", 0),
        ("3 million", "3", 0),
        ("12.", "12", 1),
        ("red, blue", "Red, Blue", 1),
        ("blue, red", "Red, Blue", 0),
        ("1/2", "0.5", 0),
    ],
)
def test_relaxed_accuracy(reply: str, truth: str, right: int) -> None:
    assert value_of(CHARTQA.official(Item("0", "?", (), truth), reply)) == right


def _make(folder: Path, layout: str) -> None:
    questions = [f"What is value {number}?" for number in range(4)]
    files = [f"{number // 2}.png" for number in range(4)]  # two questions on a chart
    if layout == "lmms-lab":
        kinds = ["human_test"] * 2 + ["augmented_test"] * 2
        rows = [
            {"type": kind, "question": question, "answer": str(n), "image": struct(n)}
            for n, (kind, question) in enumerate(zip(kinds, questions, strict=True))
        ]
        parquet(folder / "data/test-00000-of-00001-e2cd0b7a0f9eb20d.parquet", rows)
    elif layout == "ahmed-masry":
        rows = [
            {"imgname": file, "query": question, "label": str(n), "type": kind, "image": image(n)}
            for n, (kind, question, file) in enumerate(
                zip(["human"] * 2 + ["augmented"] * 2, questions, files, strict=True)
            )
        ]
        parquet(folder / "data/test-00000-of-00001.parquet", rows)
        parquet(folder / "data/train-00000-of-00003.parquet", rows * 5)
    elif layout == "HuggingFaceM4":
        rows = [
            {"image": struct(n), "query": question, "label": [str(n)], "human_or_machine": int(n > 1)}
            for n, question in enumerate(questions)
        ]
        parquet(folder / "data/test-00000-of-00001.parquet", rows)
    elif layout == "release":
        (folder / "png").mkdir(parents=True)
        for name, numbers in (("human", (0, 1)), ("augmented", (2, 3))):
            rows = [{"imgname": f"{n}.png", "query": questions[n], "label": str(n)} for n in numbers]
            (folder / f"test_{name}.json").write_text(json.dumps(rows))
            for number in numbers:
                (folder / f"png/{number}.png").write_bytes(image(number))
    else:
        for number in range(4):
            (folder / f"{number}.png").write_bytes(image(number))
        kinds = ["human"] * 2 + ["augmented"] * 2
        rows = [
            {"type": kind, "question": question, "answer": str(n), "image": f"{n}.png"}
            for n, (kind, question) in enumerate(zip(kinds, questions, strict=True))
        ]
        json_lines(folder / "test.jsonl", rows)


@pytest.mark.parametrize("layout", ["lmms-lab", "ahmed-masry", "HuggingFaceM4", "release", "jsonl"])
def test_layouts_of_chartqa_give_the_same_items(tmp_path: Path, layout: str) -> None:
    _make(tmp_path, layout)
    items = sorted(CHARTQA.items(tmp_path), key=lambda item: item.question)
    assert [(item.question, item.truth) for item in items] == [(f"What is value {n}?", str(n)) for n in range(4)]
    assert [item.strata["type"] for item in items] == ["human", "human", "augmented", "augmented"]
    assert widths(items) == [0, 1, 2, 3]
    assert [item.fault for item in items] == [""] * 4


def test_questions_on_one_chart_are_a_cluster_where_the_file_names_it(tmp_path: Path) -> None:
    _make(tmp_path, "ahmed-masry")
    assert [item.cluster for item in CHARTQA.items(tmp_path)] == ["0.png", "0.png", "1.png", "1.png"]


def test_any_of_several_labels_is_right(tmp_path: Path) -> None:
    row = {"image": struct(0), "query": "Which?", "label": ["Spain", "12"], "human_or_machine": 0}
    parquet(tmp_path / "test.parquet", [row])
    (item,) = CHARTQA.items(tmp_path)
    assert [value_of(CHARTQA.official(item, reply)) for reply in ("spain", "12.3", "13", "Spain, 12")] == [1, 1, 0, 0]


def test_faults_of_chartqa_name_file_and_row(tmp_path: Path) -> None:
    rows = [
        {"type": "other", "question": "?", "answer": "1", "image": struct(0)},
        {"type": "human", "question": "?", "answer": None, "image": struct(0)},
    ]
    parquet(tmp_path / "test.parquet", rows)
    faults = [item.fault for item in CHARTQA.items(tmp_path)]
    assert faults[0].startswith("test.parquet row 0: its type is 'other'; known are 0, 1, augmented")
    assert faults[1] == "test.parquet row 1: answer is missing or empty"


def test_figures_of_chartqa() -> None:
    kinds = ["human"] * 3 + ["augmented"]
    marks = [Mark(str(n), str(n), (("type", kind),), float(n < 1 or n == 3)) for n, kind in enumerate(kinds)]
    found = {figure.name: figure.value for figure in figures(marks)}
    assert found == {
        "accuracy": pytest.approx(2 / 3),
        "augmented": 1.0,
        "human": pytest.approx(1 / 3),
        "overall": 0.5,
    }
