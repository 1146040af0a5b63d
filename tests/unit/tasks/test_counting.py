"""CountBench and PixmoCount: the integer of a reply, the layouts, images by their digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from codedance_verl.grading import grade
from codedance_verl.grading.context import Context
from codedance_verl.tasks.countbench import COUNTBENCH
from codedance_verl.tasks.counting import score_count, stated_integer
from codedance_verl.tasks.figures import Mark
from codedance_verl.tasks.item import Item
from codedance_verl.tasks.pixmocount import PIXMOCOUNT, match_by_sha256
from tests.unit.tasks.files import base64_image, image, json_lines, parquet, struct, tsv, widths

# replies to a question whose answer is 4
RIGHT = (
    *("4", "4.", "four", "Four.", "There are 4 cats.", "**4**", "\\boxed{4}", "4.0", "4 (four)", "The answer is 4"),
    *(
        "04",
        "4 apples, 4 in all",
        "the one on the left makes 4",
        "four, as one sees: 4",
        "4\n",
        "x 4",
        "+4",
        "\N{FULLWIDTH DIGIT FOUR}",
    ),
)
WRONG = (
    *("", "14", "40", "14 or 4", "4 or 5", "-4", "4.5", "3-4", "3 to 5", "1/4", "4,000", "five", "none", "many"),
    *("forty", "forty-four", "between three and four", "4th of 5", "2 dogs and 2 cats", "IV", "1.4", "4" * 30, "4e1"),
)


@pytest.mark.parametrize(("reply", "right"), [(reply, 1.0) for reply in RIGHT] + [(reply, 0.0) for reply in WRONG])
def test_the_one_integer_of_a_reply_counts(reply: str, right: float) -> None:
    assert score_count(Item("a", "?", (), "4"), reply).value == right


@pytest.mark.parametrize(
    ("reply", "stated"),
    [
        ("1,000", 1000),
        ("1,234,567 people", 1234567),
        ("1,00", None),
        ("1,111,111,111,111,111", 1_111_111_111_111_111),
        ("111" + ",111" * 6, None),
        ("111" + ",111" * 60, None),
        ("ten", 10),
        ("twenty", 20),
        ("zero", 0),
        ("0", 0),
    ],
)
def test_integers_in_their_spellings(reply: str, stated: int | None) -> None:
    assert stated_integer(reply) == stated


def test_a_score_says_what_it_compared() -> None:
    item = Item("a", "?", (), "4")
    assert (score_count(item, "4 cats").extracted, score_count(item, "3 or 4").extracted) == ("4", None)


# ---- CountBench ----


def _countbench(folder: Path, layout: str) -> None:
    published = [
        {"text": "Four cats", "question": f"How many cats are in image {n}?", "number": n + 2} for n in range(4)
    ]
    if layout == "parquet":
        parquet(
            folder / "data/test-00000-of-00001.parquet", [row | {"image": struct(n)} for n, row in enumerate(published)]
        )
    elif layout == "jsonl":
        for number in range(4):
            (folder / f"{number}.jpg").write_bytes(image(number, "JPEG"))
        json_lines(folder / "countbench.jsonl", [row | {"image": f"{n}.jpg"} for n, row in enumerate(published)])
    else:
        rows = [
            {"index": n, "image": base64_image(n), "question": row["question"], "answer": row["number"]}
            for n, row in enumerate(published)
        ]
        tsv(folder / "CountBenchQA.tsv", rows)


@pytest.mark.parametrize("layout", ["parquet", "jsonl", "tsv"])
def test_layouts_of_countbench_give_the_same_items(tmp_path: Path, layout: str) -> None:
    _countbench(tmp_path, layout)
    items = list(COUNTBENCH.items(tmp_path))
    assert [item.question for item in items] == [f"How many cats are in image {n}?" for n in range(4)]
    assert [(item.id, item.truth, item.fault) for item in items] == [(str(n), str(n + 2), "") for n in range(4)]
    assert widths(items) == [0, 1, 2, 3]
    for item in items:
        assert grade(f"{item.truth} cats", item.truth or "", item.style, Context(question=item.question)).correct


def test_a_number_that_is_no_count_is_a_fault_of_its_row(tmp_path: Path) -> None:
    rows = [
        {"image": struct(n), "question": "How many?", "number": number} for n, number in enumerate([2.0, 2.5, None])
    ]
    items = list(COUNTBENCH.items(parquet(tmp_path / "a.parquet", rows).parent))
    assert [item.truth for item in items] == ["2", None, None]
    assert items[1].fault == "a.parquet row 1: number is '2.5', which is no count"
    assert items[2].fault == "a.parquet row 2: number is missing or empty"


# ---- PixmoCount ----


def _digest(number: int) -> str:
    return hashlib.sha256(image(number)).hexdigest()


def _pixmo(folder: Path, images: dict[str, int]) -> None:
    for name, number in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image(number))
    rows = [
        {
            "image_url": f"https://a/{n}.jpg",
            "image_sha256": _digest(n),
            "count": n + 2,
            "points": None,
            "label": "people",
        }
        for n in range(4)
    ]
    parquet(folder / "data/test-00000-of-00001.parquet", rows)
    parquet(folder / "data/train-00000-of-00001.parquet", rows * 3)


def test_images_of_pixmocount_are_found_by_their_digest(tmp_path: Path) -> None:
    _pixmo(tmp_path, {"images/x": 2, f"images/{_digest(0)}.jpg": 0, f"images/{_digest(3)}.jpg": 9, "deep/er/3.jpg": 3})
    items = list(PIXMOCOUNT.items(tmp_path))
    assert [item.truth for item in items] == ["2", "3", "4", "5"]
    assert items[0].question == "How many people are there in the image?"
    assert [item.strata["image"] for item in items] == ["found", "missing", "found", "found"]
    assert widths([items[0], items[2], items[3]]) == [0, 2, 3]
    missing = f"test-00000-of-00001.parquet row 1: no file has the SHA-256 {_digest(1)} of https://a/1.jpg"
    assert [item.fault for item in items] == ["", missing, "", ""]


def test_no_file_is_read_once_all_are_found(tmp_path: Path) -> None:
    _pixmo(tmp_path, {f"z/{_digest(0)}.jpg": 0, "a.jpg": 5})
    found = match_by_sha256(tmp_path, {_digest(0)})
    assert found == {_digest(0): tmp_path / f"z/{_digest(0)}.jpg"}
    assert match_by_sha256(tmp_path, ()) == {}


def test_repeated_images_of_pixmocount_are_one_cluster(tmp_path: Path) -> None:
    rows = [
        {"image_url": "u", "image_sha256": _digest(0), "count": count, "label": label}
        for count, label in ((2, "dogs"), (3, "cats"))
    ]
    parquet(tmp_path / "test.parquet", rows)
    assert len({item.cluster for item in PIXMOCOUNT.items(tmp_path)}) == 1


@pytest.mark.parametrize("layout", ["parquet", "jsonl"])
def test_forms_of_pixmocount_with_images(tmp_path: Path, layout: str) -> None:
    rows = [{"question": f"<image>\nHow many {n}?", "answer": str(n)} for n in range(2, 5)]
    if layout == "parquet":
        parquet(tmp_path / "test.parquet", [row | {"image": struct(n)} for n, row in enumerate(rows)])
    else:
        for number in range(3):
            (tmp_path / f"{number}.png").write_bytes(image(number))
        json_lines(tmp_path / "a.jsonl", [row | {"image": f"{n}.png"} for n, row in enumerate(rows)])
    items = list(PIXMOCOUNT.items(tmp_path))
    assert [(item.question, item.truth) for item in items] == [(f"How many {n}?", str(n)) for n in range(2, 5)]
    assert widths(items) == [0, 1, 2]


def test_pixmocount_has_figures_of_all_and_of_what_was_downloaded(tmp_path: Path) -> None:
    _pixmo(tmp_path, {"0": 0, "2": 2})
    items = list(PIXMOCOUNT.items(tmp_path))
    marks = [Mark.of(item, float(item.id == "0")) for item in items]
    assert {figure.name: figure.value for figure in PIXMOCOUNT.figures(marks)} == {"accuracy": 0.25, "downloaded": 0.5}
