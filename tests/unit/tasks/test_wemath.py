"""We-Math: layouts, options in broken text, letters, classes and scores against the authors' scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.tasks.figures import Mark
from codedance_verl.tasks.item import Item
from codedance_verl.tasks.wemath import WEMATH, composites_of, letter_of, options_in, score
from tests.unit.tasks.files import base64_image, image, parquet, struct, tsv, value_of, widths
from tests.unit.tasks.official import results

OFFICIAL = results("wemath")

PARTS = ("1", "2", "multi")
ROWS: list[dict[str, Any]] = [
    {
        "ID": "2steps_4",
        "split": "testmini",
        "knowledge concept": "Circles",
        "question": f"Question {part}?",
        "option": "A. 3;B. 6; C. 9; D. No correct answer",
        "answer": "ABC"[n],
        "key": f"2steps_{part}",
        "question number": n + 1,
    }
    for n, part in enumerate(PARTS)
]


def _make(folder: Path, layout: str) -> None:
    if layout == "parquet":
        parquet(folder / "testmini.parquet", [{**row, "image_path": struct(n)} for n, row in enumerate(ROWS)])
    elif layout == "json":
        names = [f"2steps/image/4-{part}.png" for part in PARTS]
        (folder / "data" / "2steps" / "image").mkdir(parents=True)
        for n, name in enumerate(names):
            (folder / "data" / name).write_bytes(image(n))
        rows = [{**row, "image_path": name} for row, name in zip(ROWS, names, strict=True)]
        (folder / "data" / "testmini.json").write_text(json.dumps(rows))
    else:
        options = {"A": "3", "B": "6", "C": "9", "D": "No correct answer", "E": None}
        kept = [{name: value for name, value in row.items() if name != "option"} for row in ROWS]
        tsv(folder / "WeMath.tsv", [{**row, **options, "image": base64_image(n)} for n, row in enumerate(kept)])


@pytest.mark.parametrize("layout", ["parquet", "json", "tsv"])
def test_layouts(layout: str, tmp_path: Path) -> None:
    _make(tmp_path, layout)

    items = list(WEMATH.items(tmp_path))

    assert [item.fault for item in items] == ["", "", ""]
    assert [item.id for item in items] == ["2steps_4:1", "2steps_4:2", "2steps_4:multi"]
    assert {item.cluster for item in items} == {"2steps_4"}
    assert [item.strata["key"] for item in items] == ["2steps_1", "2steps_2", "2steps_multi"]
    assert [item.truth for item in items] == ["A", "B", "C"]
    assert items[0].choices == ("3", "6", "9", "No correct answer")
    assert items[0].question == (
        "Question 1?\nA. 3\nB. 6\nC. 9\nD. No correct answer\nAnswer with the letter of the option alone."
    )
    assert widths(items) == [0, 1, 2]


def test_bad_rows_stay_in_their_problem(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {**ROWS[0], "answer": "E"},
        {**ROWS[1], "question": None},
        {**ROWS[2], "key": "4steps_multi"},
        {**ROWS[2], "option": None},
    ]
    (tmp_path / "testmini.json").write_text(json.dumps([{**row, "image_path": "x.png"} for row in rows]))

    items = list(WEMATH.items(tmp_path))

    assert [item.fault for item in items] == [
        "testmini.json row 0: its answer is 'E', and it has the options A, B, C, D",
        "testmini.json row 1: question is missing or empty",
        "testmini.json row 2: its ID and key name no step of a problem",
        "testmini.json row 3: its answer is 'C', and it has the options none",
    ]
    assert [item.cluster for item in items] == ["2steps_4", "2steps_4", "2", "2steps_4"]
    assert all(score(item, "A").value is None for item in items)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("A. 3;B. 6; C. 9", ["3", "6", "9"]),
        ("A. 1, 2;B. 3, 4;C. E. 5", ["1, 2", "3, 4", "E. 5"]),
        ("A. 45° B. 60° ;C. 120°; D. None", ["45°", "60°", "120°", "None"]),
        ("A. ①;B\N{FULLWIDTH FULL STOP}②;C. ③", ["①", "②", "③"]),
        ("A. ①; ③;B. ②; ③;C. ④", ["①; ③", "②; ③", "④"]),
        ("A. to get Shape ;C.; B. from Shape ;C.; C. No shape ;C.; D. None", None),
        ("A. angle ∠AB;E.; B. angle ∠AB;C.; C. There is none.; D. Unknown; E. No", None),
        ("", []),
        ("no options", []),
    ],
)
def test_options_in_published_text(text: str, options: list[str] | None) -> None:
    found = options_in(text)

    if options is None:
        assert len(found) == text.count("; ") + 1
        assert found["C"] in ("No shape ;C.", "There is none.")
    else:
        assert list(found.values()) == options


# ---- rule ----


def test_letters_and_scores_are_those_of_the_authors_script() -> None:
    for row in OFFICIAL["items"]:
        assert (letter_of(row["response"]) or None) == row["processed_answer"], row
        item = Item("0", "", (), row["answer"])
        assert value_of(score(item, row["response"])) == float(row["joker"]), row


HAND = [
    ("B", "B"),
    ("B. 6", "B"),
    ("Answer: B", "B"),
    ("<Answer>: <<B>>", "B"),
    ("<Thought process>: <<the Answer is A>> <Answer>: <<B>>", "B"),
    ("Answer: A Answer: B", "B"),
    ("Answer:\n\nB", "B"),
    ("Answer:  . : <B>", "B"),
    (" B ", "B"),
    ("..B", "B"),
    ("Big", "B"),
    ("A cat", "A"),
    ("H", "H"),
    ("Answer B, not C", "B"),
    ("The answer is B", ""),
    ("answer: B", ""),
    ("answer: B", ""),
    ("(B)", ""),
    ("**B**", ""),
    ("b", ""),
    ("Answer: b", ""),
    ("I", ""),
    ("Answer: I", ""),
    ("Answer", ""),
    ("B Answer", ""),
    ("", ""),
    (" \n", ""),
    ("Answer: option B", ""),
    ("Answer: 6", ""),
    ("'B'", ""),
    ("\N{FULLWIDTH LATIN CAPITAL LETTER B}", ""),
    ("\\boxed{B}", ""),
]


@pytest.mark.parametrize(("reply", "letter"), HAND)
def test_letter_by_hand(reply: str, letter: str) -> None:
    assert letter_of(reply) == letter
    assert value_of(score(Item("0", "", (), "B"), reply)) == float(letter == "B")


# ---- figures ----


def _marks(*problems: str) -> list[Mark]:
    """Marks of problems such as `110`: the steps, then the whole, 1 for right."""
    marks = []
    for number, right in enumerate(problems):
        steps = len(right) - 1
        for part, value in zip([*map(str, range(1, steps + 1)), "multi"], right, strict=True):
            key = (("key", f"{steps}steps_{part}"),)
            marks.append(Mark(f"{number}:{part}", f"{steps}steps_{number}", key, float(value)))
    return marks


def _values(marks: list[Mark]) -> dict[str, float | None]:
    return {figure.name: figure.value for figure in WEMATH.figures(marks)}


def test_figures_are_those_of_the_authors_scripts() -> None:
    marks = [
        Mark(str(n), row["ID"], (("key", row["key"]),), float(row["joker"])) for n, row in enumerate(OFFICIAL["items"])
    ]
    found = {name: f"{value:.2%}" for name, value in _values(marks).items()}
    row = {name: str(text).partition(" (")[0] for name, text in OFFICIAL["row"].items()}

    for name in ("Strict", "Loose"):
        own = name.lower()
        assert found[f"score ({own})"] == row[f"Score ({name})"]
        assert found["insufficient knowledge"] == row[f"InsufficientKnowledge ({name})"]
        assert found["inadequate generalisation"] == row[f"InadequateGeneralization ({name})"]
        assert found[f"complete mastery ({own})"] == row[f"CompleteMastery ({name})"]
        assert found[f"rote memorisation ({own})"] == row[f"RoteMemorization ({name})"]
    steps = (found["one-step"], found["two-step"], found["three-step"])
    assert steps == tuple(OFFICIAL["steps"].values())


@pytest.mark.parametrize(
    ("problem", "strict", "loose"),
    [
        ("111", "CM", "CM"),
        ("101", "RM", "CM"),
        ("011", "RM", "CM"),
        ("001", "RM", "RM"),
        ("110", "IG", "IG"),
        ("100", "IK", "IK"),
        ("010", "IK", "IK"),
        ("000", "IK", "IK"),
        ("1111", "CM", "CM"),
        ("1101", "RM", "CM"),
        ("0011", "RM", "CM"),
        ("0001", "RM", "RM"),
        ("1110", "IG", "IG"),
        ("1100", "IK", "IK"),
        ("0000", "IK", "IK"),
    ],
)
def test_classes(problem: str, strict: str, loose: str) -> None:
    (found,) = composites_of(_marks(problem))

    for is_loose, expected in ((False, strict), (True, loose)):
        classes = {
            "CM": found.mastered(is_loose),
            "RM": found.memorised(is_loose),
            "IG": found.not_generalised,
            "IK": found.not_known,
        }
        assert [name for name, is_in in classes.items() if is_in] == [expected]


def test_the_worked_example_of_525_problems() -> None:
    marks = _marks(*["000"] * 200, *["110"] * 75, *["111"] * 180, *["101"] * 70)

    found = _values(marks)

    assert found["score (strict)"] == pytest.approx(217.5 / 525)
    assert found["rote memorisation (strict)"] == pytest.approx(70 / 250)
    assert found["insufficient knowledge"] == pytest.approx(200 / 525)
    assert found["score (loose)"] == pytest.approx(287.5 / 525)
    assert found["accuracy"] == pytest.approx((75 * 2 + 180 * 3 + 70 * 2) / 1575)


def test_missing_questions_are_wrong() -> None:
    marks = _marks("111", "111", "0001")

    assert _values(marks[1:])["score (strict)"] == pytest.approx(1 / 3)  # a step is missing: memorised
    assert _values(marks[:2])["score (strict)"] == pytest.approx(1 / 2)  # the whole is missing: not generalised
    assert _values([marks[0]])["score (strict)"] == 0.0
    assert _values([])["score (strict)"] is None


def test_a_row_that_cannot_be_placed_is_a_problem_of_its_own() -> None:
    marks = [*_marks("111"), Mark("9", "9", (), 0.0)]

    assert _values(marks)["score (strict)"] == pytest.approx(1 / 2)
    assert _values(marks)["accuracy"] == pytest.approx(3 / 4)


def test_a_question_that_is_right_in_some_samples_only_is_not_known() -> None:
    marks = _marks("111")
    marks[0] = Mark(marks[0].id, marks[0].cluster, marks[0].strata, 0.75)

    assert _values(marks)["score (strict)"] == 0.0


def test_figures_carry_the_problem_as_cluster() -> None:
    for figure in WEMATH.figures(_marks("111", "1101")):
        assert {unit.cluster for unit in figure.units} <= {"2steps_0", "3steps_1"}
