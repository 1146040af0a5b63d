from __future__ import annotations

import pytest

from codedance_verl.harness.tool_use import (
    Answered,
    calibration,
    control_effect,
    limits_curve,
    tool_effect,
    turns_curve,
)


def rows(values: str, calls: str = "", turns: str = "") -> list[Answered]:
    """An item for each sign: 1 right, 0 wrong, - not measured; calls and turns alike."""
    return [
        Answered(
            key=f"k{index}",
            cluster=f"k{index}",
            value=None if sign == "-" else float(sign),
            calls=int(calls[index]) if calls else 0,
            turns=None if not turns or turns[index] == "-" else int(turns[index]),
        )
        for index, sign in enumerate(values)
    ]


def test_gain_and_harm_are_of_the_same_items_and_add_up() -> None:
    #                        gain, harm, both, neither, left out, left out
    found = tool_effect(rows("101-1", "20101"), rows("0110-"))
    assert (found.items, found.left_out) == (3, 2)
    assert found.gain.value == pytest.approx(1 / 3)
    assert found.harm.value == pytest.approx(1 / 3)
    assert found.gain_by_call.value == pytest.approx(1 / 3)
    assert found.harm_by_call.value == 0
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.accuracy_without.value == pytest.approx(2 / 3)
    assert found.difference.value == pytest.approx(0)  # gain less harm


def test_harm_by_call_counts_only_wrong_answers_with_a_call() -> None:
    found = tool_effect(rows("0011", "1010"), rows("1111"))
    assert found.harm.value == pytest.approx(0.5)
    assert found.harm_by_call.value == pytest.approx(0.25)
    assert found.gain.value == 0


def test_shares_of_samples_stand_for_right_and_wrong() -> None:
    with_tools = [Answered("a", "a", value, calls) for value, calls in ((1.0, 1), (0.0, 0), (1.0, 0), (1.0, 0))]
    without = [Answered("a", "a", value) for value in (1.0, 0.0)]
    found = tool_effect(with_tools, without)
    assert found.gain.value == pytest.approx(0.5 * 0.75)
    assert found.gain_by_call.value == pytest.approx(0.5 * 0.25)
    assert found.harm.value == pytest.approx(0.5 * 0.25)
    assert found.gain.low is None  # a single cluster has no interval


@pytest.mark.parametrize(("plain", "other"), [("", ""), ("---", "101"), ("1", "-")])
def test_nothing_in_both_runs_gives_empty_figures(plain: str, other: str) -> None:
    found = tool_effect(rows(plain), rows(other))
    assert (found.items, found.gain.value, found.difference.value) == (0, None, None)
    assert calibration(rows(plain), rows(other)) is None
    assert control_effect("blank", rows(plain), rows(other)).controlled.value is None


def test_a_difference_has_its_sign_and_an_interval_around_it() -> None:
    found = control_effect("blank", rows("1" * 40 + "0" * 10), rows("1" * 10 + "0" * 40))
    assert found.difference.value == pytest.approx(-0.6)
    assert found.difference.low is not None and found.difference.high is not None
    assert found.difference.low < -0.6 < found.difference.high < 0


def test_use_that_follows_need_is_calibrated() -> None:
    without = "0" * 20 + "1" * 20
    found = calibration(rows("1" * 40, "1" * 20 + "0" * 20), rows(without))
    assert found is not None
    assert (found.needed.value, found.not_needed.value, found.ranking) == (1.0, 0.0, 1.0)
    assert [bar.items for bar in found.bins] == [20, 0, 0, 20]
    assert found.bins[1].use.value is None
    blind = calibration(rows("1" * 40, "1" * 40), rows(without))
    assert blind is not None and blind.ranking == 0.5
    alike = calibration(rows("11"), rows("11"))
    assert alike is not None and alike.ranking is None and alike.needed.value is None


def test_turns_are_summed_up_over_all_that_were_asked() -> None:
    points = turns_curve(rows("110-", turns="1323"[:3] + "-"))
    assert [point.turns for point in points] == [1, 2, 3]
    assert [point.answered for point in points] == [0.25, 0.5, 0.75]
    assert [point.right.value for point in points] == [0.25, 0.25, 0.5]
    assert turns_curve([]) == ()
    assert turns_curve(rows("--")) == ()


def test_limits_are_compared_on_items_of_every_run() -> None:
    curve = limits_curve({5: rows("1111-"), 1: rows("1000"), 3: rows("1100")})
    assert [point.max_turns for point in curve] == [1, 3, 5]
    assert [point.accuracy.value for point in curve] == [0.25, 0.5, 1.0]
    assert curve[0].gain.value is None
    assert curve[2].gain.value == pytest.approx(0.5)
    assert limits_curve({}) == limits_curve({1: rows("1"), 2: rows("1")}) == ()
