"""A reward term of the user's own: what it is given, what it adds, and what becomes of a rollout that it fails for."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.errors import UserError
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.custom_term import CustomTerm, read_value, rollout_view
from codedance_verl.reward.presets import ROBUST
from codedance_verl.reward.resample import resample_on_correct
from codedance_verl.reward.terms import CustomValue, score_group
from codedance_verl.types import Execution, ExecutionError, ExecutionStatus, FinishReason, Grade, Trajectory
from tests.unit.isolated.functions import on_path
from tests.unit.reward.rollouts import RIGHT, UNGRADED, WRONG, trajectory


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(tmp_path, monkeypatch)


def values(config: RewardConfig, rollouts: list[Trajectory], grades: list[Grade]) -> list[CustomValue]:
    async def run() -> list[CustomValue]:
        term = CustomTerm(config)
        try:
            term.check()
            return await term.values(rollouts, grades)
        finally:
            term.close()

    return asyncio.run(run())


def test_the_term_is_added_to_the_score_with_its_weight() -> None:
    config = RewardConfig.from_mapping({"custom_term": "user_terms:short", "custom_weight": 2})
    rollouts = [trajectory("ok", "ok"), trajectory(answer="4"), trajectory(answer="4")]
    grades = [RIGHT, WRONG, UNGRADED]
    own = values(config, rollouts, grades)
    assert [(item.value, item.fault) for item in own] == [(pytest.approx(-0.3), ""), (-0.1, ""), (0.0, "")]
    found, without = score_group(rollouts, grades, config, own), score_group(rollouts, grades, config)
    assert [terms.custom for terms in found] == [pytest.approx(-0.3), -0.1, 0]
    assert found[0].score == pytest.approx(without[0].score - 0.6)
    assert found[1].score == pytest.approx(without[1].score - 0.2)
    assert found[2] == without[2]
    assert [replace(terms, custom=0.0, score=0.0) for terms in found] == [
        replace(terms, score=0.0) for terms in without
    ]


def test_it_sees_the_rollout_its_record_and_its_grade() -> None:
    config = RewardConfig.from_mapping({"custom_term": "user_terms:of_extra"})
    rollouts = [replace(trajectory(), extra_info={"bonus": 0.25, "image": b"\x89PNG"})] * 2
    assert values(config, rollouts, [RIGHT, WRONG]) == [CustomValue(0.25), CustomValue(0.0)]
    error = Execution(ExecutionStatus.ERROR, "so far", ExecutionError("ValueError", "no", "line 1"), duration_s=0.5)
    failed = trajectory("error")
    turn = replace(failed.turns[0], execution=error)
    assert rollout_view(replace(failed, turns=(turn, failed.turns[1])))["turns"][0] == {
        "text": turn.text,
        "tokens": 10,
        "code": "print(1)",
        "execution": {
            "status": "error",
            "stdout": "so far",
            "error": {"kind": "ValueError", "message": "no"},
            "images": 0,
            "duration_s": 0.5,
            "truncated": [],
        },
    }


def test_a_rollout_that_it_fails_for_is_masked_and_the_others_of_the_group_are_scored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = RewardConfig.from_mapping({"custom_term": "user_terms:by_answer", "custom_timeout_s": 0.5})
    rollouts = [trajectory(answer=str(answer)) for answer in range(3, 10)]
    grades = [RIGHT, *[WRONG] * 6]
    own = values(config, rollouts, grades)
    name = "reward_preset.custom_term=user_terms:by_answer"
    must = "; it must return a number from -10 to 10"
    assert [item.fault for item in own] == [
        "",
        f"{name}: it returned 11{must}",
        f"{name}: the process ended with exit code 1",
        f"{name}: no result within 0.5 s",
        f"{name}: it returned nan{must}",
        f"{name}: it returned True{must}",
        f"{name}: it returned '1'{must}",
    ]
    assert caplog.messages == [f"record r is masked: {item.fault}" for item in own[1:]]
    right, *masked = score_group(rollouts, grades, config, own)
    assert right.custom == 0.5 and right.score == pytest.approx(
        score_group(rollouts[:1], [RIGHT], config)[0].score + 0.5
    )
    assert right.difficulty == pytest.approx(-0.182, abs=1e-3)  # no masked rollout is in mu
    assert all(terms.masked and terms.score == terms.custom == 0 for terms in masked)
    assert [terms.custom_fault for terms in masked] == [item.fault for item in own[1:]]


def test_masked_rollouts_are_not_looked_at() -> None:
    config = RewardConfig.from_mapping({"custom_term": "user_terms:by_answer"})
    lost = trajectory(answer="5", finish=FinishReason.INFRASTRUCTURE)
    cut = trajectory(answer="5", finish=FinishReason.LENGTH)
    rollouts, grades = [trajectory(), lost, cut, trajectory(answer="5")], [RIGHT, WRONG, WRONG, UNGRADED]
    assert values(config, rollouts, grades) == [CustomValue(0.5), *[CustomValue()] * 3]


def test_resampling_leaves_out_what_has_no_term() -> None:
    rollouts, grades = [trajectory(), trajectory(), trajectory(answer="4")], [RIGHT, RIGHT, WRONG]
    own = [CustomValue(fault="no"), CustomValue(), CustomValue()]
    assert resample_on_correct(rollouts, grades, 2, ROBUST, random.Random(0), own) == [1, 2]


def test_without_a_term_nothing_is_asked() -> None:
    assert values(ROBUST, [trajectory()], [RIGHT]) == [CustomValue()]
    with pytest.raises(ValueError, match="2 trajectories came with 2 grades and 1 custom terms"):
        score_group([trajectory()] * 2, [RIGHT] * 2, ROBUST, [CustomValue()])


@pytest.mark.parametrize("value", [-10, 10.0, 0, 0.5])
def test_numbers_within_the_range_are_taken(value: float) -> None:
    assert read_value(value) == value


@pytest.mark.parametrize("value", [10.01, -11, float("inf"), float("nan"), None, True, "1", [1.0]])
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="must return a number from -10 to 10"):
        read_value(value)


def test_one_that_cannot_be_called_is_named_at_the_start() -> None:
    term = CustomTerm(RewardConfig.from_mapping({"custom_term": "user_terms:none"}))
    with pytest.raises(UserError) as caught:
        term.check()
    assert str(caught.value).startswith("reward_preset.custom_term=user_terms:none: module user_terms has no none; it ")
    assert str(caught.value).endswith("and take (rollout, grade)")
