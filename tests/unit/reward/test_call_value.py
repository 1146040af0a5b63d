from __future__ import annotations

import random
import subprocess
import sys

import pytest

from codedance_verl.reward.call_value import CallCounts, call_value, count_calls, total


def test_counts_by_hand() -> None:
    counts = count_calls([True, True, True, False, False], [True, False, True, False, True])
    assert counts == CallCounts(3, 2, 2, 1)
    assert total([counts, counts]) == CallCounts(6, 4, 4, 2) and total([counts, counts]) - counts == counts
    with pytest.raises(ValueError):
        count_calls([True], [])


def test_an_estimate_by_hand() -> None:
    """4 of 4 right with a call, 0 of 4 without: half are right, so both sides are shrunk to 1/2."""
    worth = call_value(CallCounts(4, 4, 4, 0), prior_rollouts=2.0)
    assert worth.right_called == pytest.approx(5 / 6) and worth.right_not_called == pytest.approx(1 / 6)
    assert worth.value == pytest.approx(4 / 6) and worth.basis == "both"


@pytest.mark.parametrize(
    ("counts", "basis"),
    [
        (CallCounts(8, 3, 0, 0), "called"),
        (CallCounts(0, 0, 8, 8), "not_called"),
        (CallCounts(8, 8, 0, 0), "called"),
        (CallCounts(), "none"),
    ],
)
def test_a_side_that_was_never_sampled_gives_no_value_without_others(counts: CallCounts, basis: str) -> None:
    worth = call_value(counts)
    assert worth.value == pytest.approx(0.0) and worth.basis == basis and worth.error > 0.1


def test_a_side_that_was_never_sampled_is_that_of_the_others() -> None:
    others = CallCounts(40, 36, 40, 8)
    worth = call_value(CallCounts(8, 8, 0, 0), others)
    assert worth.right_not_called == pytest.approx((8 + 2 * 44 / 80) / 42)
    assert worth.value > 0.6


def test_more_rollouts_count_more_and_are_surer() -> None:
    few, many = call_value(CallCounts(2, 2, 2, 0)), call_value(CallCounts(20, 20, 20, 0))
    assert 0 < few.value < many.value < 1 and many.error < few.error


def test_a_call_that_misleads_is_worth_less_than_nothing() -> None:
    assert call_value(CallCounts(4, 0, 4, 4)).value < -0.5


def test_the_estimate_lies_between_the_observed_and_the_prior() -> None:
    draw = random.Random(0)
    for _ in range(500):
        called, not_called = draw.randint(0, 9), draw.randint(0, 9)
        own = CallCounts(called, draw.randint(0, called), not_called, draw.randint(0, not_called))
        worth = call_value(own, CallCounts(10, draw.randint(0, 10), 10, draw.randint(0, 10)))
        assert -1 <= worth.value <= 1 and 0 < worth.error < 1
        assert 0 <= worth.right_called <= 1 and 0 <= worth.right_not_called <= 1


def test_the_module_needs_nothing_heavy() -> None:
    code = "import codedance_verl.reward.call_value, sys; print({'numpy', 'torch', 'verl'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
