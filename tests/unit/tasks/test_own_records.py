"""Files of one's own as benchmarks: one row of a question, scored as training does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codedance_verl.data.fields import Message
from codedance_verl.data.schema import Record, write_records
from codedance_verl.errors import UserError
from codedance_verl.tasks import own_records
from codedance_verl.tasks.figures import bounded
from codedance_verl.tasks.item import Item
from codedance_verl.tasks.own_records import is_own, own_task
from codedance_verl.tasks.task import Task
from tests.unit.tasks.files import image, value_of, widths


def record(number: int, **extra: Any) -> Record:
    prompt = (Message("system", "Be brief."), Message("user", f"<image>\nHow many cats are in image {number}?"))
    info = {"record_id": f"q{number}", "kind": "count" if number % 2 else "look", **extra}
    return Record("cats", prompt, (image(number),), "vl", str(number), info)


def made(folder: Path, *records: Record) -> tuple[Task, list[Item]]:
    write_records(folder / "my test.parquet", records)
    task = own_task(folder / "my test.parquet", folder / "tables")
    return task, list(task.items(folder))


def test_items_are_the_rows_in_order(tmp_path: Path) -> None:
    task, items = made(tmp_path, *(record(number) for number in range(4)))
    assert (task.name, task.title, task.expected) == ("my_test", "my test.parquet", 4)
    assert [(item.id, item.question, item.truth, item.system) for item in items] == [
        (f"q{n}", f"How many cats are in image {n}?", str(n), "Be brief.") for n in range(4)
    ]
    assert widths(items) == [0, 1, 2, 3]
    assert value_of(task.official(items[3], "3")) == 1
    assert value_of(task.official(items[3], "4")) == 0
    assert value_of(task.official(items[3], "")) == 0


@pytest.mark.parametrize(
    ("variants", "asked"),
    [
        (("sampled", "greedy", "blank", "no_tools"), "greedy"),
        (("sampled", "blank", "grey"), "sampled"),
    ],
)
def test_a_question_under_several_conditions_is_asked_once(
    tmp_path: Path, variants: tuple[str, ...], asked: str
) -> None:
    controls = {"no_tools": "no_tools", "grey": "grey_observations"}
    conditions = [{"variant": name, "control": controls.get(name), "record_id": "q"} for name in variants]
    task, items = made(tmp_path, *(record(number, **condition) for number, condition in enumerate(conditions)))
    assert (task.expected, [item.id for item in items], widths(items)) == (1, ["q"], [variants.index(asked)])


def test_figures_are_those_of_kinds_too(tmp_path: Path) -> None:
    task, items = made(tmp_path, *(record(number) for number in range(4)))
    found = {
        one.figure.name: one.figure.value
        for one in bounded(task.figures, [(item, float(item.id == "q1")) for item in items])
    }
    assert found == {"accuracy": 0.25, "count": 0.5, "look": 0.0}


def test_another_content_is_another_revision(tmp_path: Path) -> None:
    first, _ = made(tmp_path, record(1))
    second, _ = made(tmp_path, record(2))
    assert first.revision != second.revision


def test_what_is_no_such_file_ends_with_one_line(tmp_path: Path) -> None:
    assert is_own("data/test.parquet")
    assert not is_own("vstar")
    with pytest.raises(UserError, match=r"nothing\.parquet"):
        own_task(tmp_path / "nothing.parquet", tmp_path / "tables")


def test_regions_of_a_record_are_boxes_in_whole_pixels() -> None:
    good = {"label": "a", "x1": 1.2, "y1": -3.0, "x2": 9.1, "y2": 8.0}
    faulty = [{**good, "x2": 1.0}, {**good, "y1": None}, {**good, "x1": float("nan")}, "no region"]
    assert own_records._boxes([good, *faulty]) == ((1, 0, 10, 8),)
    assert own_records._boxes(None) == ()
