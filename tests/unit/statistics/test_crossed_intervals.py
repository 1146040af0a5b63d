from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.interval_coverage import POPULATIONS, Population, calibrated, coverage, percentile, questions_only
from codedance_verl.statistics.crossed_intervals import Spread, crossed_difference, crossed_rate, holm
from codedance_verl.statistics.intervals import Array, Counts, wilson


def of(right: Array) -> Counts:
    return Counts(right, np.ones_like(right))


def answers(seeds_deviation: float, *, seeds: int = 5, seed: int = 0, questions_deviation: float = 1.0) -> Counts:
    population = Population((1.0, 0.0), seeds_deviation, questions_deviation)
    return of(population.draw(np.random.default_rng(seed), seeds)[0])


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("seeds differ by 5 points", 0.90, 0.99),
        ("seeds differ by 12 points", 0.88, 0.99),
        ("greedy, answers nearly fixed", 0.89, 0.99),
    ],
)
def test_five_seeds_hold_the_true_rate_about_as_often_as_promised(name: str, least: float, most: float) -> None:
    """150 draws: a standard error of 1.8 points."""
    found = coverage(POPULATIONS[name], {"ours": calibrated}, seeds=5, draws=150)
    assert least <= found["ours"] <= most


def test_intervals_without_the_seeds_or_without_their_number_hold_it_less_often() -> None:
    methods = {"ours": calibrated, "plain": percentile, "questions": questions_only}
    found = coverage(POPULATIONS["seeds differ by 12 points"], methods, seeds=5, draws=80)
    assert found["questions"] < 0.6 < found["plain"] < found["ours"]


def test_the_spread_is_that_of_a_two_way_analysis_of_variance() -> None:
    """Means of squares worked out here for 3 seeds and 4 questions."""
    values = np.array([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
    estimate = crossed_rate(of(values))
    assert estimate is not None
    of_seeds, of_questions = values.mean(axis=1).var(ddof=1) / 3, values.mean(axis=0).var(ddof=1) / 4
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    of_both = float((left**2).sum()) / (2 * 3) / 12
    spread = estimate.spread
    assert [spread.seeds, spread.questions, spread.both] == pytest.approx([of_seeds, of_questions, of_both])
    assert spread.total == max(spread.seeds + spread.questions - spread.both, spread.seeds, spread.questions)


def test_the_spread_is_on_average_the_variance_that_experiments_have() -> None:
    population = Population((1.0, 0.0), 0.4, 1.0)
    generator = np.random.default_rng(3)
    drawn = [population.draw(generator, 5)[0] for _ in range(300)]
    rates = np.array([right.mean() for right in drawn])
    totals = []
    for right in drawn[:60]:
        estimate = crossed_rate(of(right), population.strata, resamples=2)
        assert estimate is not None
        totals.append(estimate.spread.total)
    assert np.mean(totals) == pytest.approx(rates.var(), rel=0.25)


def test_more_different_seeds_make_wider_intervals_of_fewer_degrees() -> None:
    alike, different = crossed_rate(answers(0.0)), crossed_rate(answers(2.0))
    assert alike is not None and different is not None
    assert different.high - different.low > 2 * (alike.high - alike.low)
    assert different.spread.degrees < 6 < alike.spread.degrees


def test_kinds_of_fixed_size_do_not_add_their_differences_to_the_spread() -> None:
    """Every question of the first kind right, none of the second: another test set would have the same rate."""
    right = np.repeat([[1.0, 0.0]], 60, axis=1).repeat(3, axis=0)
    right[:, :60], right[:, 60:] = 1.0, 0.0
    right[0, :3], right[1, 61] = 0.0, 1.0
    strata = np.repeat([0, 1], 60)
    inside, ignored = crossed_rate(of(right), strata), crossed_rate(of(right))
    assert inside is not None and ignored is not None
    assert inside.spread.questions < 0.1 * ignored.spread.questions


def test_a_stratum_of_one_question_is_no_stratum() -> None:
    counts = answers(0.3)
    alone = np.zeros(counts.numerators.shape[1], dtype=np.int64)
    alone[0] = 1
    assert crossed_rate(counts, alone) == crossed_rate(counts)


def test_one_seed_gives_an_interval_over_questions() -> None:
    estimate = crossed_rate(answers(0.5, seeds=1))
    assert estimate is not None and estimate.spread.seeds == estimate.spread.both == 0
    assert estimate.spread.degrees == pytest.approx(127)
    assert estimate.low < estimate.value < estimate.high


def test_all_alike_does_not_claim_certainty() -> None:
    none = crossed_rate(of(np.zeros((5, 40))))
    assert none is not None and (none.low, none.high) == wilson(0, 40) and none.p_value == 1.0
    between = crossed_difference(of(np.ones((5, 40))), of(np.zeros((5, 40))))
    assert between is not None and between.value == 1.0
    assert 0.8 < between.low < 1.0 == between.high


def test_runs_and_questions_without_observation_are_left_out() -> None:
    counts = answers(0.3)
    above, below = counts.numerators.copy(), counts.denominators.copy()
    above[4], below[4] = 0.0, 0.0
    assert crossed_rate(Counts(above, below)) == crossed_rate(Counts(counts.numerators[:4], counts.denominators[:4]))
    assert crossed_rate(Counts(np.zeros((2, 3)), np.zeros((2, 3)))) is None
    assert crossed_rate(of(np.ones((2, 1)))) is None


def test_pairing_removes_what_questions_share() -> None:
    """Questions of very different difficulty, asked both ways: the difference is surer than both rates."""
    before = answers(0.0, questions_deviation=6.0, seed=1)
    shift = np.random.default_rng(2).random(before.numerators.shape) < 0.2
    after = of(np.where(shift, 1.0, before.numerators))
    difference, rate = crossed_difference(after, before), crossed_rate(before)
    assert difference is not None and rate is not None
    assert difference.spread.questions < 0.2 * rate.spread.questions
    assert 0 < difference.low < difference.value < difference.high and difference.p_value < 0.01


def test_a_difference_has_the_seeds_of_both_sides() -> None:
    one, other = answers(0.8, seed=4), answers(0.8, seed=5)
    difference, first, second = crossed_difference(one, other), crossed_rate(one), crossed_rate(other)
    assert difference is not None and first is not None and second is not None
    assert difference.spread.seeds == pytest.approx(first.spread.seeds + second.spread.seeds)
    back = crossed_difference(other, one)
    assert back is not None and back.value == pytest.approx(-difference.value)
    assert back.p_value == pytest.approx(difference.p_value)


def test_methods_that_are_alike_are_rarely_told_apart() -> None:
    """Of 200 pairs of the same method about 5 % have a p-value under 0.05."""
    population, generator = Population((1.0, 0.0), 0.4, 1.0), np.random.default_rng(6)
    wrong = 0
    for _ in range(200):
        right = population.draw(generator, 10)[0]  # ten seeds on the same questions, five for each side
        difference = crossed_difference(of(right[:5]), of(right[5:]), population.strata, resamples=2)
        assert difference is not None
        wrong += difference.p_value < 0.05
    assert wrong / 200 < 0.11


def test_the_same_data_give_the_same_interval() -> None:
    assert crossed_rate(answers(0.4)) == crossed_rate(answers(0.4))


def test_the_total_is_never_less_than_one_of_its_terms() -> None:
    spread = Spread(seeds=1.0, questions=0.5, both=2.0, degrees=3.0)
    assert (spread.total, replace(spread, both=0.1).total) == (1.0, 1.4)


def test_holm_against_worked_numbers() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, and never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
