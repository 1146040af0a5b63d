from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from codedance_verl.harness.figures import NamedHeadline, headlines, headlines_of
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.reply import Reply
from codedance_verl.harness.scores import scores_of
from codedance_verl.records.key import replies_key
from codedance_verl.records.record import Status
from codedance_verl.tasks.chartqa import CHARTQA
from codedance_verl.tasks.countbench import COUNTBENCH
from codedance_verl.tasks.figures import Figure, Mark
from codedance_verl.tasks.item import Item, Score
from codedance_verl.tasks.registry import task_of
from codedance_verl.tasks.task import Task
from codedance_verl.tasks.wemath import WEMATH

HRBENCH = task_of("hrbench_4k")


def item(name: str, cluster: str = "", **strata: str) -> Item:
    return Item(id=name, question="?", images=(), truth="1", cluster=cluster or name, strata=strata)


def scored(of: Item, value: float | None, sample: int = 0, reason: str = "") -> Measured:
    score = Score(value, "rule", reason=reason)
    return Measured(of, sample, Status.ANSWERED, reply=Reply(text="1"), official=score, ours=score)


def by_name(found: Sequence[NamedHeadline]) -> dict[str, NamedHeadline]:
    return {one.name: one for one in found}


def orders(questions: int) -> list[Item]:
    """Items of HR-Bench: each question in four orders, half of them single."""
    return [
        item(f"{n}.{cycle}", f"q{n:03}", category=("single", "cross")[n % 2], cycle=str(cycle))
        for n in range(questions)
        for cycle in range(4)
    ]


def composites(problems: int) -> list[Item]:
    """Items of WeMath, of two and three steps in turn."""
    return [
        item(f"{n}:{part}", f"p{n:03}", key=f"{2 + n % 2}steps_{part}")
        for n in range(problems)
        for part in ("1", "2", "3", "multi")
        if part != "3" or n % 2
    ]


def charts(number: int) -> list[Item]:
    return [item(str(n), f"chart{n // 2:03}", type="human" if n % 4 < 2 else "augmented") for n in range(number)]


CASES: dict[str, tuple[Task, Callable[[], list[Item]]]] = {
    "hrbench": (HRBENCH, lambda: orders(24)),
    "wemath": (WEMATH, lambda: composites(30)),
    "chartqa": (CHARTQA, lambda: charts(40)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_figure_is_that_of_the_benchmark_with_its_interval(name: str) -> None:
    task, make = CASES[name]
    generator = random.Random(0)
    values = [(one, float(generator.random() < 0.6)) for one in make()]
    found = by_name(headlines(task, [scored(*pair) for pair in values], "official"))
    expected = task.figures([Mark.of(one, value) for one, value in values])
    assert list(found) == [figure.name for figure in expected if figure.value is not None]
    assert [one.usual for one in found.values()] == [True] + [False] * (len(found) - 1)
    for figure in expected:
        if figure.value is not None:
            value = found[figure.name].headline.value
            assert value.value == pytest.approx(figure.value), figure.name
            assert value.interval is not None and value.interval.low <= figure.value <= value.interval.high


def test_orders_of_a_question_are_one_cluster() -> None:
    """All orders alike: 50 questions, and not 200 items, make the interval and the power."""
    alike = [scored(one, float(int(one.cluster[1:]) % 2)) for one in orders(50)]
    found = by_name(headlines(HRBENCH, alike, "official"))["accuracy"]
    assert (found.headline.items, found.headline.cases, found.headline.value.clusters) == (200, 200, 50)
    assert found.headline.design_effect == pytest.approx(4, rel=0.05)
    low, high = found.headline.value.interval or (0.0, 0.0)
    assert high - low == pytest.approx(2 * 1.96 * (0.25 / 50) ** 0.5, rel=0.07)
    assert "design effect 4.08" in found.power.sentence


def test_faults_are_counted_apart_and_bounded() -> None:
    items = [item(str(n)) for n in range(10)]
    measured = [
        *(scored(one, 1.0) for one in items[:4]),
        Measured(items[4], 0, Status.ENDPOINT_FAILURE, "refused: 500"),
        Measured(items[5], 0, Status.JUDGE_FAILURE, "timeout", reply=Reply(text="1"), ours=Score(1.0, "grader")),
        scored(items[6], None, reason="the item has no truth"),
        scored(items[7], None, reason="the judge's score is 'seven'"),
        Measured(items[8], 0, Status.ANSWERED, reply=Reply(text="1")),
        scored(items[9], 0.0),
    ]
    (found,) = headlines(COUNTBENCH, measured, "official")
    assert found.headline.value.value == 0.4 and found.headline.best == pytest.approx(0.9)
    kinds = ("endpoint failure", "judge failure", "no verdict", "not scored", "the item has no truth")
    assert found.headline.faults == dict.fromkeys(kinds, 1)
    assert found.headline.could_add == pytest.approx(dict.fromkeys(kinds, 0.1))
    assert found.headline.measured is not None and found.headline.measured.value == 0.8
    (ours,) = headlines(COUNTBENCH, measured, "ours")  # a score counts, whatever else has failed
    assert ours.headline.value.value == 0.5 and "judge failure" not in ours.headline.faults


def test_rates_that_can_fall_have_no_bounds() -> None:
    items = composites(30)
    measured = [scored(one, float(n % 3 > 0)) for n, one in enumerate(items)]
    measured[7] = Measured(items[7], 0, Status.SANDBOX_FAULT, "lost")
    found = by_name(headlines(WEMATH, measured, "official"))
    for name, one in found.items():
        falls = name.startswith(("rote", "insufficient", "inadequate"))
        assert (one.headline.best is None) == falls and (one.headline.bounds is None) == falls, name
        assert one.headline.value.interval is not None and one.headline.faults == {"sandbox fault": 1}
    assert "either way" in found["rote memorisation (strict)"].headline.sentence


@pytest.mark.parametrize("name", CASES)
def test_figures_rise_with_right_items_where_they_say_so(name: str) -> None:
    task, make = CASES[name]
    generator, items, fell = random.Random(1), make(), set()
    for _ in range(60):
        values = [float(generator.random() < generator.choice((0.3, 0.8))) for _ in items]
        place = generator.randrange(len(items))
        low, high = (_figures(task, items, [*values[:place], value, *values[place + 1 :]]) for value in (0.0, 1.0))
        for before, after in zip(low, high, strict=True):
            assert before.name == after.name
            if before.value is not None and after.value is not None and after.value < before.value - 1e-12:
                fell.add(before.name)
    assert fell == {figure.name for figure in _figures(task, items, [0.0] * len(items)) if not figure.rises}


def _figures(task: Task, items: Sequence[Item], values: Sequence[float]) -> tuple[Figure, ...]:
    return task.figures([Mark.of(one, value) for one, value in zip(items, values, strict=True)])


def test_samples_of_an_item_are_averaged() -> None:
    items = [item(str(n)) for n in range(4)]
    rows = ((1.0, 1.0), (1.0, 0.0), (0.0, 0.0), (None, 1.0))
    measured = [scored(one, value, n) for one, row in zip(items, rows, strict=True) for n, value in enumerate(row)]
    (found,) = headlines(COUNTBENCH, measured, "official")
    assert found.headline.value.value == pytest.approx((1 + 0.5 + 0 + 0.5) / 4)
    assert found.headline.best == pytest.approx(2.5 / 4)
    assert (found.headline.cases, found.headline.samples, found.headline.value.clusters) == (4, 2, 4)
    assert "1 of 8 samples were not measured" in found.headline.sentence


def test_composites_are_right_within_one_run() -> None:
    """Steps right in one sample and the whole in another are no mastery; half of the samples is half a point."""
    one, two, whole = (item(f"p:{part}", "p", key=f"2steps_{part}") for part in ("1", "2", "multi"))
    other = [item(f"q:{part}", "q", key=f"2steps_{part}") for part in ("1", "2", "multi")]
    runs = ((1.0, 1.0, 1.0), (1.0, 0.0, 1.0))
    measured = [
        scored(part, value, n) for n, run in enumerate(runs) for part, value in zip((one, two, whole), run, strict=True)
    ] + [scored(part, 0.0, n) for n in range(2) for part in other]
    found = by_name(headlines(WEMATH, measured, "official"))
    assert found["score (strict)"].headline.value.value == pytest.approx((0.5 + 0) / 2)
    assert found["score (strict)"].headline.cases == 2 and found["accuracy"].headline.cases == 6
    assert found["rote memorisation (strict)"].headline.value.value == pytest.approx(1 / 2)


def test_items_that_nobody_asked_count_as_wrong() -> None:
    items = [item(str(n)) for n in range(5)]
    key = replies_key(task="countbench", revision="r", model="m", prompt="", sampling={}, limits={}, samples=2)
    measured = [scored(one, 1.0, n) for one in items[:2] for n in range(2)] + [scored(items[2], 1.0)]
    scores = scores_of(COUNTBENCH, key, measured, items=items)
    (found,) = headlines_of(COUNTBENCH.figures, scores, "official")
    assert found.headline.value.value == pytest.approx(2.5 / 5) and found.headline.faults == {"not asked": 5}


def test_power_says_what_the_benchmark_shows() -> None:
    (found,) = headlines(COUNTBENCH, [scored(item(str(n)), float(n % 4 > 0)) for n in range(191)], "ours")
    assert found.power.sentence.startswith("191 items: a difference under 9.1 points cannot be seen (paired;")
    assert found.sentence.startswith("accuracy: 74.9 % (68.") and found.sentence.endswith(found.power.sentence)


def test_what_was_not_scored_in_a_way_has_no_figures() -> None:
    unscored = [Measured(item(str(n)), 0, Status.ANSWERED, reply=Reply(text="1")) for n in range(3)]
    assert headlines(COUNTBENCH, unscored, "official") == () == headlines(COUNTBENCH, [], "official")
    failed = [Measured(item(str(n)), 0, Status.ENDPOINT_FAILURE, "refused") for n in range(3)]
    (found,) = headlines(COUNTBENCH, failed, "official")
    assert (found.headline.value.value, found.headline.best) == (0, 1)
    with pytest.raises(ValueError, match="no way of scoring 'both'"):
        headlines(COUNTBENCH, failed, "both")


def test_a_single_item_has_a_figure_without_an_interval() -> None:
    (found,) = headlines(COUNTBENCH, [scored(item("1"), 1.0)], "official")
    assert found.headline.value.interval is None and found.power.smallest is None
