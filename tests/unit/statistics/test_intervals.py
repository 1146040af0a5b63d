from __future__ import annotations

import numpy as np
import pytest

from codedance_verl.statistics.intervals import Counts, mean_rate_interval, paired_gain, product_interval, wilson


def counts(numerators: list[list[float]], denominators: list[list[float]] | None = None) -> Counts:
    above = np.array(numerators, dtype=float)
    return Counts(above, np.ones_like(above) if denominators is None else np.array(denominators, dtype=float))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_published_values(successes: int, trials: int, low: float, high: float) -> None:
    """R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    interval = wilson(successes, trials)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_one_run_of_single_rollouts_gets_wilsons_interval() -> None:
    assert mean_rate_interval(counts([[1, 0, 1, 1]]), proportion=True) == wilson(3, 4)


def test_the_bootstrap_finds_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(2.0, 1.0, size=(1, 400))
    interval = mean_rate_interval(Counts(values, np.ones_like(values)), proportion=False)
    assert interval is not None
    assert (interval.high - interval.low) / (2 * 1.96) == pytest.approx(values.std() / 20, rel=0.08)


def test_seeds_of_a_question_are_kept_together() -> None:
    """Two seeds that agree on every question hold no more information than one of them."""
    first, second = np.random.default_rng(2).integers(0, 2, size=(2, 400)).astype(float)
    agreeing = mean_rate_interval(Counts(np.stack([first, first]), np.ones((2, 400))), proportion=True)
    independent = mean_rate_interval(Counts(np.stack([first, second]), np.ones((2, 400))), proportion=True)
    assert agreeing is not None and independent is not None
    assert agreeing.high - agreeing.low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.1)
    assert independent.high - independent.low == pytest.approx(2 * 1.96 * 0.5 / 20 / np.sqrt(2), rel=0.1)


def test_all_alike_does_not_claim_certainty() -> None:
    assert mean_rate_interval(counts([[0] * 50, [0] * 50]), proportion=True) == wilson(0, 50)


def test_the_same_data_give_the_same_interval() -> None:
    data = counts([[1, 0, 1, 0, 1], [1, 1, 0, 0, 1]])
    assert mean_rate_interval(data, proportion=True, seed=3) == mean_rate_interval(data, proportion=True, seed=3)


def test_nothing_observed_has_no_interval() -> None:
    assert mean_rate_interval(counts([[0, 0]], [[0, 0]]), proportion=True) is None
    assert mean_rate_interval(counts([[3.0]]), proportion=False) is None


def test_paired_gain_uses_questions_that_all_runs_have() -> None:
    after = counts([[1, 1, 1, 0], [1, 0, 1, 0]], [[1, 1, 1, 1], [1, 1, 0, 1]])
    before = counts([[0, 0, 0, 0]], [[1, 1, 1, 1]])
    result = paired_gain(after, before)
    assert result is not None
    value, interval, paired = result
    assert paired == 3  # the second seed has no third question
    assert value == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert interval is not None and interval.low <= value <= interval.high


def test_pairing_removes_what_both_sides_share() -> None:
    """Every question gains nearly the same, however different the questions are: the gain is nearly certain."""
    before = np.random.default_rng(0).uniform(0, 0.5, size=(1, 60))
    after = before + 0.3 + np.tile([0.01, -0.01], 30)
    result = paired_gain(Counts(after, np.ones_like(before)), Counts(before, np.ones_like(before)))
    assert result is not None
    _, interval, _ = result
    assert interval is not None
    assert (interval.low, interval.high) == (pytest.approx(0.3, abs=0.005), pytest.approx(0.3, abs=0.005))


def test_a_gain_alike_on_all_questions_does_not_claim_certainty() -> None:
    result = paired_gain(counts([[1] * 17, [1] * 17]), counts([[0] * 17]))
    assert result is not None
    value, interval, _ = result
    end = wilson(0, 17).high  # that of either side
    assert value == 1.0 and interval == (pytest.approx(1 - end * 2**0.5), 1.0)


def test_a_product_of_rates_is_taken_run_by_run() -> None:
    first, second = np.random.default_rng(4).random((2, 2, 200)) < np.array([[[0.8], [0.4]], [[0.5], [0.9]]])
    interval = product_interval(counts(first.astype(float).tolist()), counts(second.astype(float).tolist()))
    rates = np.array([first.mean(axis=1), second.mean(axis=1)])  # [sides, runs]
    assert interval is not None and interval.low < rates.prod(axis=0).mean() < interval.high
    # Delta method: the variance of either rate by the square of the other.
    deviations = (rates[1, :, None] * (first - first.mean(axis=1, keepdims=True))).mean(axis=0).var()
    deviations += (rates[0, :, None] * (second - second.mean(axis=1, keepdims=True))).mean(axis=0).var()
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * (deviations / 200) ** 0.5, rel=0.08)
    assert product_interval(counts([[1, 1, 1]]), counts([[0, 1, 0]])) is None


def test_a_gain_of_nothing_holds_zero() -> None:
    generator = np.random.default_rng(5)
    draws = generator.integers(0, 2, size=(2, 200)).astype(float)
    result = paired_gain(counts([list(draws[0])]), counts([list(draws[1])]))
    assert result is not None
    _, interval, _ = result
    assert interval is not None and interval.low < 0 < interval.high


def test_no_common_question_has_no_gain() -> None:
    assert paired_gain(counts([[1, 0]], [[1, 0]]), counts([[0, 1]], [[0, 1]])) is None


def test_large_benchmarks_are_resampled_in_bounded_memory() -> None:
    values = np.tile([0.0, 1.0], (2, 3_000))
    interval = mean_rate_interval(Counts(values, np.ones_like(values)), proportion=True)
    assert interval is not None
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.5 / np.sqrt(6_000), abs=1e-3)
