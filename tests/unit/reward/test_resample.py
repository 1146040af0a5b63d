from __future__ import annotations

import random
from collections import Counter

import pytest

from codedance_verl.reward.presets import PAPER, ROBUST
from codedance_verl.reward.resample import penalty, resample_on_correct
from codedance_verl.types import FinishReason, Grade
from tests.unit.reward.rollouts import RIGHT, UNGRADED, WRONG, from_texts, trajectory

CLEAN = trajectory("ok", codes=("f()",))
MESSY = trajectory("error", "error", "ok", codes=("f()", "g()", "h()"))


@pytest.mark.parametrize(
    ("rollout", "expected"),
    [
        (CLEAN, 0.0),
        (MESSY, 2 / 3),
        (trajectory(), 0.5),
        (trajectory("ok", answer=None), 1.0),
        (trajectory("error", answer=None), 2.0),
        (from_texts(["<answer>3</answer><answer>3</answer>"]), 0.5 + 1.0),
        (trajectory("ok", answer="3</answer><answer>3"), 0.5),
    ],
)
def test_penalty_worked_by_hand(rollout: object, expected: float) -> None:
    """Failed calls over calls, 0.5 without one; answer tags above one over turns, 1 without any."""
    assert penalty(rollout) == pytest.approx(expected)  # type: ignore[arg-type]


def kept(grades: list[Grade], rollouts: list[object], keep: int, seed: int) -> list[int]:
    return resample_on_correct(rollouts, grades, keep, PAPER, random.Random(seed))  # type: ignore[arg-type]


def test_half_of_the_wrong_ones_and_right_ones_for_the_rest() -> None:
    """16 drawn, 8 kept: half of the 10 wrong ones, 5, and 3 of the 6 right ones."""
    grades = [RIGHT] * 6 + [WRONG] * 10
    for seed in range(50):
        chosen = kept(grades, [CLEAN] * 16, 8, seed)
        assert len(set(chosen)) == 8 and chosen == sorted(chosen)
        assert sum(index < 6 for index in chosen) == 3


def test_clean_right_rollouts_are_kept_more_often_and_wrong_ones_evenly() -> None:
    """Weights 1 / 0.1 and 1 / (2/3 + 0.1): the clean one of two is kept 88.5 % of the time."""
    rollouts, grades = [CLEAN, MESSY, CLEAN, MESSY], [RIGHT, RIGHT, WRONG, WRONG]
    seen: Counter[int] = Counter()
    for seed in range(4000):
        seen.update(kept(grades, rollouts, 2, seed))
    assert seen[0] + seen[1] == seen[2] + seen[3] == 4000
    assert seen[0] / 4000 == pytest.approx(10 / (10 + 1 / (2 / 3 + 0.1)), abs=0.02)
    assert seen[2] / 4000 == pytest.approx(0.5, abs=0.03)


def test_masked_rollouts_stand_in_only_where_too_few_others_were_drawn() -> None:
    lost = trajectory(answer=None, finish=FinishReason.INFRASTRUCTURE)
    assert kept([RIGHT, WRONG, WRONG, UNGRADED], [CLEAN, lost, CLEAN, CLEAN], 2, 0) == [0, 2]
    assert kept([RIGHT, WRONG, UNGRADED], [CLEAN, lost, CLEAN], 2, 0) == [0, 1]
    cut = trajectory(answer=None, finish=FinishReason.LENGTH)
    assert resample_on_correct([cut, CLEAN], [WRONG, RIGHT], 1, ROBUST, random.Random(0)) == [1]


@pytest.mark.parametrize("right", range(17))
def test_so_many_are_kept_whatever_the_split(right: int) -> None:
    grades = [RIGHT] * right + [WRONG] * (16 - right)
    for keep in (1, 7, 8, 15, 16):
        assert len(set(kept(grades, [CLEAN, MESSY] * 8, keep, right))) == keep


def test_the_same_seed_keeps_the_same() -> None:
    grades = [RIGHT] * 6 + [WRONG] * 10
    assert kept(grades, [CLEAN, MESSY] * 8, 8, 3) == kept(grades, [CLEAN, MESSY] * 8, 8, 3)
