"""Comparison of run folders, from replies and the official rule to the sentence."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codedance_verl.errors import UserError
from codedance_verl.harness.comparing import TaskComparison, compare_runs, lines
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.reply import Reply
from codedance_verl.harness.scores import scores_of, write_scores
from codedance_verl.records.key import replies_key
from codedance_verl.records.record import Status
from codedance_verl.records.store import open_store
from codedance_verl.statistics.pairs import PairedCounts, mcnemar
from codedance_verl.tasks.item import Item, Score
from codedance_verl.tasks.registry import task_of

LIMITS = {"max_turns": 7, "max_tokens": 8192}


def counting(number: int) -> list[Item]:
    """Items of CountBench."""
    return [
        Item(id=str(n), question=f"How many cups are in {n}?", images=(), truth=str(n % 9 + 2)) for n in range(number)
    ]


def run(
    folder: Path,
    model: str,
    right: Sequence[float | None],
    items: Sequence[Item] | None = None,
    task: str = "countbench",
    limits: dict[str, Any] | None = None,
    judge: Any = None,
    ours: bool = True,
) -> Path:
    """Run folder as an evaluation leaves it: replies that are right or wrong, or None for a failed endpoint."""
    benchmark = task_of(task)
    listed = counting(len(right)) if items is None else items
    key = replies_key(
        task=task,
        revision="r",
        model={"name": model, "sha256": "0" * 64},
        prompt={},
        sampling={},
        limits=limits or LIMITS,
    )
    open_store(folder / task, key)
    measured = []
    for item, value in zip(listed, right, strict=True):
        if value is None:
            measured.append(Measured(item, 0, Status.ENDPOINT_FAILURE, "refused"))
            continue
        text = str(item.truth) if value else "none"
        score = benchmark.official(item, text)
        assert isinstance(score, Score) and score.value == value
        grade = Score(value, "grader") if ours else None
        measured.append(Measured(item, 0, Status.ANSWERED, reply=Reply(text=text), official=score, ours=grade))
    write_scores(folder, scores_of(benchmark, key, measured, items=listed, judge=judge))
    return folder


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[float | None], list[float | None]]:
    kinds = [(1.0, 1.0)] * both + [(1.0, 0.0)] * only_a + [(0.0, 1.0)] * only_b + [(0.0, 0.0)] * neither
    return [a for a, _ in kinds], [b for _, b in kinds]


def test_a_planted_difference_is_found_and_said(tmp_path: Path) -> None:
    right_a, right_b = outcomes(120, 25, 8, 38)
    found = compare_runs(run(tmp_path / "a", "big", right_a), run(tmp_path / "b", "small", right_b))
    (task,) = found
    assert [(one.which, one.name, one.usual) for one in task.figures] == [
        ("official", "accuracy", True),
        ("ours", "accuracy", True),
    ]
    official = task.figures[0].comparison
    assert official is not None and official.table == PairedCounts(120, 25, 8, 38) and official.p == mcnemar(25, 8)
    said = lines(found)
    head = ["benchmark", "figure", "scored", "A", "B", "A - B", "95 %", "bootstrap", "exact p", "over"]
    assert re.split(r"\s{2,}", said[0]) == head
    assert said[1].split()[:6] == ["countbench", "accuracy", "official", "75.9", "67.0", "+8.9"]
    assert (
        "countbench, accuracy, official: big is 8.9 points better than small (+3.1 to +15.1) over 191 items" in said[4]
    )
    assert said[-1] == "Of 2 differences 2 are seen at 5 %, and 2 after Holm's adjustment for their number."


def test_items_are_paired_by_key_whatever_their_order_is(tmp_path: Path) -> None:
    right_a, right_b = outcomes(20, 9, 1, 5)
    items = counting(35)
    a = run(tmp_path / "a", "big", right_a, items)
    b = run(tmp_path / "b", "small", right_b[::-1], items[::-1])
    comparison = compare_runs(a, b)[0].figures[0].comparison
    assert comparison is not None and comparison.table == PairedCounts(20, 9, 1, 5)


def test_no_difference_is_found_in_pairs_without_one(tmp_path: Path) -> None:
    """Twenty pairs of models with a fifth of the items on either side alone; at 5 % one is expected."""
    generator = np.random.default_rng(0)
    values, adjusted = [], 0
    for number in range(20):
        kinds = generator.multinomial(191, [0.45, 0.1, 0.1, 0.35])
        right_a, right_b = outcomes(*kinds.tolist())
        a = run(tmp_path / f"a{number}", "one", right_a, ours=False)
        found = compare_runs(a, run(tmp_path / f"b{number}", "other", right_b, ours=False))
        (comparison,) = [one.comparison for one in found[0].figures]
        assert comparison is not None
        values.append(comparison.p.exact)
        adjusted += comparison.p.exact * 20 <= 0.05
    assert sum(value <= 0.05 for value in values) <= 3 and adjusted == 0


def test_unequal_settings_are_refused_by_their_dotted_names(tmp_path: Path) -> None:
    right_a, right_b = outcomes(20, 9, 1, 5)
    a = run(tmp_path / "a", "big", right_a, judge={"model": "j1"})
    b = run(tmp_path / "b", "small", right_b, limits={**LIMITS, "max_turns": 10}, judge={"model": "j2"})
    with pytest.raises(UserError) as caught:
        compare_runs(a, b)
    first, *rest = str(caught.value).splitlines()
    assert "differ in more than the model" in first and first.endswith("or force the comparison")
    assert rest == ["countbench: limits.max_turns: 7 -> 10", 'countbench: scoring.judge.model: "j1" -> "j2"']
    comparison = compare_runs(a, b, force=True)[0].figures[0].comparison
    assert comparison is not None and comparison.seen
    assert comparison.sentence.endswith(
        'Forced, although they differ in limits.max_turns: 7 -> 10; scoring.judge.model: "j1" -> "j2".'
    )


def test_what_differs_in_every_benchmark_is_said_once(tmp_path: Path) -> None:
    right_a, right_b = outcomes(20, 9, 1, 5)
    a = run(tmp_path / "a", "big", right_a)
    b = run(tmp_path / "b", "small", right_b, limits={**LIMITS, "max_turns": 10})
    for folder in (a, b):
        shutil.copytree(folder / "countbench", folder / "again")
        scores = folder / "scores"
        shutil.copy(scores / "countbench.json", scores / "again.json")
    with pytest.raises(UserError) as caught:
        compare_runs(a, b)
    assert str(caught.value).splitlines()[1:] == ["all: limits.max_turns: 7 -> 10"]


def test_other_items_are_refused_and_left_out_by_force(tmp_path: Path) -> None:
    right_a, right_b = outcomes(20, 9, 1, 5)
    a = run(tmp_path / "a", "big", right_a)
    b = run(tmp_path / "b", "small", right_b[2:], counting(35)[2:])
    with pytest.raises(UserError, match=r"countbench: items: 2 that big alone has, such as 0#"):
        compare_runs(a, b)
    comparison = compare_runs(a, b, force=True)[0].figures[0].comparison
    assert comparison is not None and comparison.cases == 33
    moved = [Item(one.id, one.question, (), one.truth, strata={"kind": "cup"}) for one in counting(35)]
    with pytest.raises(UserError, match=r"items\.strata: 35 items have another, such as 0#"):
        compare_runs(a, run(tmp_path / "c", "small", right_b, moved))
    other = [Item(f"x{n}", "?", (), "3") for n in range(35)]
    forced = compare_runs(a, run(tmp_path / "d", "small", right_b, other), force=True)
    assert lines(forced) == ["countbench: left out; there is no item that both have and both scored in one way."]


def test_what_was_not_measured_is_left_out_and_counted_in_the_headlines(tmp_path: Path) -> None:
    a = run(tmp_path / "a", "big", [1.0, 1.0, 1.0, 0.0, None])
    b = run(tmp_path / "b", "small", [1.0, 0.0, None, 0.0, 1.0])
    comparison = compare_runs(a, b)[0].figures[0].comparison
    assert comparison is not None and (comparison.cases, comparison.not_measured) == (3, (1, 1))
    assert (comparison.headline_a, comparison.headline_b) == (3 / 5, 2 / 5)
    assert comparison.bounds == pytest.approx((0.0, 2 / 5))


def test_all_figures_are_compared_on_demand_and_those_that_cannot_be_say_why(tmp_path: Path) -> None:
    items = [
        Item(f"{n}:{part}", "?", (), "A", cluster=f"p{n}", strata={"key": f"2steps_{part}"})
        for n in range(12)
        for part in ("1", "2", "multi")
    ]
    right_a = [float(n % 6 > 0) for n in range(36)]
    a = run(tmp_path / "a", "big", right_a, items, "wemath", ours=False)
    b = run(tmp_path / "b", "small", [float(n % 3 > 0) for n in range(36)], items, "wemath", ours=False)
    assert [one.name for one in compare_runs(a, b)[0].figures] == ["score (strict)"]
    found = compare_runs(a, b, every_figure=True)
    by_name = {one.name: one for one in found[0].figures}
    assert len(by_name) == 12 and [one.usual for one in by_name.values()].count(True) == 1
    strict = by_name["score (strict)"].comparison
    assert (
        strict is not None
        and strict.difference == pytest.approx(0.5)
        and (strict.cases, strict.counted) == (12, "cases")
    )
    memorised = by_name["rote memorisation (strict)"].comparison
    assert memorised is not None and memorised.difference == pytest.approx(-0.5) and memorised.bounds is None
    three = by_name["three-step"]
    assert three.comparison is None and "nothing to compare" in three.refused
    assert any(line.startswith("wemath, three-step, official: not compared: fewer than two") for line in lines(found))


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    right_a, right_b = outcomes(20, 9, 1, 5)
    comparison = (
        compare_runs(run(tmp_path / "a", "m", right_a), run(tmp_path / "b", "m", right_b))[0].figures[0].comparison
    )
    assert comparison is not None and comparison.sentence.startswith("m (A) is 22.9 points better than m (B)")


def test_benchmarks_that_one_side_alone_has_are_said(tmp_path: Path) -> None:
    right_a, right_b = outcomes(20, 9, 1, 5)
    a, b = run(tmp_path / "a", "big", right_a), run(tmp_path / "b", "small", right_b)
    run(a, "big", right_a, task="pixmocount")
    found = compare_runs(a, b)
    assert [task.task for task in found] == ["countbench", "pixmocount"]
    assert found[1] == TaskComparison("pixmocount", (), f"only {a} has it")
    with pytest.raises(UserError, match="no benchmark in common"):
        compare_runs(b, run(tmp_path / "c", "big", right_a, task="pixmocount"))


def test_scores_of_other_replies_are_refused(tmp_path: Path) -> None:
    right_a, right_b = outcomes(20, 9, 1, 5)
    a, b = run(tmp_path / "a", "big", right_a), run(tmp_path / "b", "small", right_b)
    (b / "scores" / "countbench.json").write_bytes((a / "scores" / "countbench.json").read_bytes())
    with pytest.raises(UserError, match="the scores of countbench are of other replies"):
        compare_runs(a, b)
    with pytest.raises(UserError, match="no scores; name the output folder"):
        compare_runs(a, tmp_path / "nowhere")
