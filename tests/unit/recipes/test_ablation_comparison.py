from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from codedance_verl.evaluation.outcomes import EvaluationRun, Outcome
from codedance_verl.statistics.crossed_intervals import Estimate, Spread
from recipes.ablation.columns import COMPARED, has_found
from recipes.ablation.comparison import Cell, Comparison, Pair, Row, compare, groups, seeds_needed, separated
from recipes.ablation.results import Origin, Result
from recipes.ablation.words import markdown, separation, verdict
from tests.unit.evaluation.logs import outcome

KINDS = {"count_photo": "hard", "count_digits": "hard", "look": "hard", "look_large": "easy", "easy": "easy"}
QUESTIONS = 30
"""Questions of each kind."""


def answers(right: float, *, needless: float = 0.0, found: bool = False, seed: int = 0) -> tuple[Outcome, ...]:
    """Rollouts of a run: hard ones right, and easy ones with a call, by these probabilities; hard ones all have one."""
    generator, out = np.random.default_rng(seed), []
    for kind, level in KINDS.items():
        for index in range(QUESTIONS):
            for variant in ("greedy", "sampled"):
                chance = (0.95 if found else 0.1) if kind == "count_digits" else right
                correct = level == "easy" or bool(generator.random() < chance)
                call = level == "hard" or bool(generator.random() < needless)
                name = f"{kind}-{index}"
                out.append(outcome(name, correct, variant=variant, kind=kind, difficulty=level, executed=int(call)))
    return tuple(out)


def result(outcomes: tuple[Outcome, ...], steps: int = 16) -> Result:
    return Result(Origin(steps, "model", "questions"), EvaluationRun(outcomes, (), 0))


METHODS = {"outcome": (0.5, 0.9), "paper": (0.52, 0.05), "robust": (0.9, 0.4)}
"""Probability of a right answer to a hard question, and of a call on an easy one."""


def found(seeds: int = 5) -> dict[str, dict[int, Result]]:
    return {
        name: {
            seed: result(
                answers(right, needless=needless, found=name == "robust" and seed < 4, seed=100 * number + seed)
            )
            for seed in range(seeds)
        }
        for number, (name, (right, needless)) in enumerate(METHODS.items())
    }


def compared(results: dict[str, dict[int, Result]], start: Result | None, seeds: Iterable[int]) -> Comparison:
    """A comparison with few resamples, for speed."""
    return compare(results, start, tuple(seeds), resamples=1_000)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compared(found(), result(answers(0.4, needless=0.6, seed=9), steps=0), range(5))


def value(row: Row, column: str) -> float:
    estimate = row.cells[column].estimate
    assert estimate is not None
    return estimate.value


def test_columns_are_of_the_rollouts_that_they_name() -> None:
    """Greedy and sampled answers differ here, hard and easy ones, and the kinds."""
    one = [
        outcome("p", True, variant="greedy", kind="count_photo", difficulty="hard", executed=1),
        outcome("p", False, variant="sampled", kind="count_photo", difficulty="hard", executed=0),
        outcome("d", False, variant="greedy", kind="count_digits", difficulty="hard", executed=0),
        outcome("d", False, variant="sampled", kind="count_digits", difficulty="hard", executed=1),
        outcome("e", True, variant="greedy", kind="easy", difficulty="easy", executed=0),
        outcome("e", True, variant="sampled", kind="easy", difficulty="easy", executed=1),
        outcome("k", False, variant="sampled", kind="look", difficulty="hard", executed=1),
        outcome("l", True, variant="sampled", kind="look_large", difficulty="easy", executed=1),
    ]
    # every question twice: an interval needs two
    twice = tuple(item for copy in ("", "2") for item in (replace(x, record_id=x.record_id + copy) for x in one))
    (row,) = compared({"paper": {0: result(twice)}}, None, (0,)).rows
    assert {column.name: value(row, column.name) for column in COMPARED} == {
        "greedy_hard": 0.5,
        "sampled_hard": 0.0,
        "needless": 1.0,
        "needless_greedy": 0.0,
        "calls_hard": pytest.approx(2 / 3),
        "look_alikes": 0.5,
        "discovery": 0.0,
    }
    assert (value(row, "greedy_count_photo"), value(row, "calls_look"), value(row, "sampled_easy")) == (1.0, 1.0, 1.0)


def test_a_seed_has_found_what_it_answers_right_with_code_more_often_than_not() -> None:
    def run(right: int, executed: int = 1) -> list[Outcome]:
        return [
            outcome(f"d{number}", number < right, variant="greedy", kind="count_digits", executed=executed)
            for number in range(10)
        ]

    assert (has_found(run(5)), has_found(run(4)), has_found(run(10, executed=0))) == (True, False, False)
    assert has_found([outcome("p", True, variant="greedy")]) is None


def test_methods_that_lie_apart_are_separated_and_others_are_not(comparison: Comparison) -> None:
    assert (
        separated(comparison.rows, "greedy_hard")[0] == "robust" and len(separated(comparison.rows, "greedy_hard")) == 2
    )
    assert separated(comparison.rows, "needless") == ["outcome", "robust", "paper"]
    letters = groups(comparison.rows, "greedy_hard")
    assert letters["outcome"] == letters["paper"] != letters["robust"]
    apart = {(pair.first, pair.second) for pair in comparison.pairs["greedy_hard"] if pair.apart}
    assert apart == {("robust", "outcome"), ("robust", "paper")}
    certain = {(pair.first, pair.second) for pair in comparison.pairs["needless"] if pair.p_value < 0.05}
    assert certain == {("outcome", "robust"), ("outcome", "paper"), ("robust", "paper")}


def test_the_text_says_what_is_separated_and_whether_robust_is_ahead(comparison: Comparison) -> None:
    text = markdown(comparison)
    assert text.startswith("5 seeds (0, 1, 2, 3, 4); 16 steps each, from the same SFT model. 95 % intervals over seeds")
    assert "**greedy accuracy, hard**: 2 methods are separated (`robust`" in text
    assert "**needless calls**: 3 methods are separated (`outcome`" in text
    assert "**calls, hard**: no two methods are separated." in text
    assert "| before RL |" in text and "| `robust` |" in text and "4 of 5 |" in text
    assert "So far" not in text
    assert verdict(comparison).startswith("`robust` is ") and verdict(comparison).endswith("do not overlap.")


def test_seeds_that_not_all_methods_have_are_listed_and_not_compared() -> None:
    some = found(4)
    del some["paper"][3]
    partial = compared({**some, "gtpo": {}}, None, range(5))
    assert partial.seeds == (0, 1, 2)
    assert all(len(row.found) == 3 for row in partial.rows)
    assert partial.missing == (
        *((("gtpo", seed)) for seed in range(3)),
        *(("paper", 3), ("gtpo", 3)),
        *((name, 4) for name in (*METHODS, "gtpo")),
    )
    text = markdown(partial)
    assert "So far 11 of 20 runs have ended:" in text and "| `robust` | 3 |" in text and "`gtpo`" not in text
    assert "From fewer than 5 seeds they are too narrow." in text


def test_nothing_is_called_separated_by_two_seeds() -> None:
    two = compared(found(2), None, range(2))
    assert not two.pairs
    assert separation(two) == "Separation: not judged, as it takes 3 seeds that all methods have."
    assert "share a letter" not in markdown(two)


def test_methods_without_a_common_seed_have_their_runs_listed_alone() -> None:
    results = found(2)
    text = markdown(
        compared({"outcome": {0: results["outcome"][0]}, "robust": {1: results["robust"][1]}}, None, (0, 1))
    )
    assert text.startswith("No seed has been run with every method so far.") and "So far 2 of 4 runs" in text


def row(name: str, low: float, high: float, spread: Spread | None = None) -> Row:
    estimate = Estimate((low + high) / 2, low, high, spread or Spread(0.0004, 0.0001, 0.0001, 4.0))
    return Row(name, {column.name: Cell(estimate, ()) for column in COMPARED}, ())


def test_two_methods_share_a_letter_exactly_where_their_intervals_overlap() -> None:
    generator = np.random.default_rng(1)
    for _ in range(50):
        lows = generator.random(6)
        rows = [row(f"m{number}", low, low + generator.random() / 2) for number, low in enumerate(lows)]
        letters = groups(rows, "needless")
        ends = {item.name: item.cells["needless"].estimate for item in rows}
        for one, first in ends.items():
            for other, second in ends.items():
                assert first is not None and second is not None
                overlap = first.low <= second.high and second.low <= first.high
                assert bool(set(letters[one]) & set(letters[other])) == overlap


def test_as_many_methods_as_possible_are_separated() -> None:
    """The widest interval overlaps all others; the other three are apart."""
    rows = [row("wide", 0.1, 0.9), row("a", 0.1, 0.2), row("b", 0.4, 0.5), row("c", 0.7, 0.8)]
    assert separated(rows, "greedy_hard") == ["c", "b", "a"]


def test_the_seeds_that_would_separate_two_methods() -> None:
    """Standard errors of 2 points from 5 seeds: gaps of 8 points need more seeds, none need fewer than there are."""
    rows = [row("a", 0.5, 0.6), row("b", 0.42, 0.52)]

    def pair(gap: float) -> Pair:
        return Pair("a", "b", False, Estimate(gap, 0.0, 1.0, Spread(0.0, 0.0, 0.0, 0.0)), 1.0)

    needed = [seeds_needed(rows, pair(gap), "needless", 5) for gap in (0.2, 0.08, 0.02)]
    assert needed[0] == 5 and needed[1] is not None and 6 < needed[1] < 15
    assert needed[2] is not None and needed[2] > 50
    fixed = [row("a", 0.5, 0.6, Spread(0.0, 0.01, 0.0, 4.0)), row("b", 0.42, 0.52)]
    assert seeds_needed(fixed, pair(0.08), "needless", 5) is None


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ((0.40, 0.60), "`robust` does not win: `outcome` is 10.0% ahead in greedy accuracy, hard."),
        (
            (0.56, 0.66),
            "`robust` is 1.0% ahead of the next, `outcome`, in greedy accuracy, hard; their intervals overlap",
        ),
    ],
)
def test_it_is_said_plainly_whether_robust_wins(comparison: Comparison, ours: tuple[float, float], said: str) -> None:
    rows = (row("outcome", 0.55, 0.65), row("robust", *ours))
    assert verdict(replace(comparison, rows=rows, pairs={})).startswith(said)
    assert verdict(replace(comparison, rows=rows[:1])) == "`robust` is not compared."
