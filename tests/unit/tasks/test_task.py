"""Benchmarks as records: ids, counts, faults that stay, folders that hold nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.data.fields import BadRow
from codedance_verl.errors import UserError
from codedance_verl.tasks.countbench import COUNTBENCH
from codedance_verl.tasks.item import Item, Score
from codedance_verl.tasks.registry import TASKS, task_of
from codedance_verl.tasks.rows import Row, table
from codedance_verl.tasks.task import MAX_REPLY_CHARS, Task, unique
from tests.unit.tasks.files import parquet, struct


def _item(name: str) -> Item:
    return Item(name, "?", (), "1")


def test_ids_are_unique() -> None:
    found = unique(_item(name) for name in ("a", "", "b", "a", "", "1", "a"))
    assert [item.id for item in found] == ["a", "1", "b", "a@3", "4", "1@5", "a@6"]


def test_items_carry_task_revision_and_cluster(tmp_path: Path) -> None:
    parquet(tmp_path / "test.parquet", [{"image": struct(1), "question": "How many cups?", "number": 4}])
    (item,) = COUNTBENCH.items(tmp_path)
    assert (item.task, item.revision, item.cluster, item.fault) == ("countbench", "76d6003", "0", "")


def test_every_row_is_an_item_whatever_is_wrong_with_it(tmp_path: Path) -> None:
    def convert(row: Row) -> Item:
        if row.number == 1:
            raise BadRow("it says nothing")
        return Item(row.text("id"), "?", (row.image(),), "1")

    parquet(tmp_path / "a.parquet", [{"id": str(number), "image": struct(number)} for number in range(3)])
    task = replace(COUNTBENCH, layouts=(table("rows", "*.parquet", ("id",), convert),))
    items = list(task.items(tmp_path))
    assert [item.fault for item in items] == ["", "a.parquet row 1: it says nothing", ""]
    assert [item.id for item in items] == ["0", "a:1", "2"]


def test_another_count_is_said() -> None:
    assert COUNTBENCH.count_note(491) == ""
    assert COUNTBENCH.count_note(490) == "countbench: 490 items, but 491 in vikhyatk/CountBenchQA at 76d6003"


def test_a_folder_without_files_says_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*none; name the one that holds the files of CountBench"):
        COUNTBENCH.items(tmp_path / "none")
    parquet(tmp_path / "other.parquet", [{"a": 1}])
    with pytest.raises(UserError, match="holds no files of CountBench; accepted are: parquet of vikhyatk"):
        COUNTBENCH.items(tmp_path)


def test_the_digest_is_that_of_what_is_asked_and_right() -> None:
    item = replace(_item("a"), task="t")
    assert item.sha256 == replace(item, task="other", fault="x", strata={"a": "b"}, cluster="c", revision="r").sha256
    changed = ({"id": "b"}, {"question": "!"}, {"truth": "2"}, {"choices": ("1", "2")}, {"graded_question": "?"})
    assert len({item.sha256, *(replace(item, **change).sha256 for change in changed)}) == 6
    assert item.key == f"a#{item.sha256[:16]}"


def test_a_rule_gets_the_two_ends_of_a_long_reply() -> None:
    task = replace(COUNTBENCH, score=lambda _, reply: Score(None, "r", reply))

    def read(reply: str) -> str:
        found = task.official(_item("a"), reply)
        assert isinstance(found, Score) and found.extracted is not None
        return found.extracted

    assert read("x" * MAX_REPLY_CHARS) == "x" * MAX_REPLY_CHARS
    long = read("B" + "x" * MAX_REPLY_CHARS + "C")
    assert MAX_REPLY_CHARS - 2 < len(long) <= MAX_REPLY_CHARS
    assert (long[0], long[-1], set(long[1:-1])) == ("B", "C", {"x", "\n"})


def test_the_registry_names_its_benchmarks() -> None:
    assert task_of("vstar") is TASKS["vstar"]
    assert all(name == task.name for name, task in TASKS.items())
    assert {task.replies_of for task in TASKS.values()} <= {"", *TASKS}
    with pytest.raises(UserError, match="there is no benchmark vstars; there are countbench, "):
        task_of("vstars")


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_an_item_without_a_truth_has_no_score(task: Task) -> None:
    score = task.official(Item("a", "?", (), None), "4")
    assert isinstance(score, Score) and score.value is None and score.reason


DOCS = (Path(__file__).parents[3] / "docs/benchmarks.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"image": struct(n), "question": "How many?", "number": n} for n in range(3, 6)]
    parquet(tmp_path / "data/countbench/a.parquet", rows)
    first, _ = EXAMPLES
    exec(first, {})
    told, figure = capsys.readouterr().out.splitlines()
    assert told.startswith("countbench: 3 items, but 491")
    assert figure == "accuracy 0.3333333333333333 at most 0.3333333333333333"


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_the_docs_name_every_benchmark_and_its_figures(task: Task) -> None:
    assert f"`{task.name}`" in DOCS
    for figure in task.figures([]):
        assert f"`{figure.name}`" in DOCS, figure.name


def test_the_example_of_scoring_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, second = EXAMPLES
    exec(second, {})
    assert capsys.readouterr().out.count("Score(value=1.0") == 2
