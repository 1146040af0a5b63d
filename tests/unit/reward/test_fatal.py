"""Fatal failures: the mask from there on, the score outside of it, and the clamp of what went before."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest

from codedance_verl.errors import UserError
from codedance_verl.reward.advantage import check_estimator, group_advantages, token_advantages
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.encoding import decode_rewards, encode_rewards, trained_mask
from codedance_verl.reward.presets import FATAL_AWARE, OUTCOME, PAPER
from codedance_verl.reward.terms import fatal_turn, score_group
from codedance_verl.reward.tool_calls import CallKind
from codedance_verl.types import Grade, Trajectory
from tests.unit.reward.rollouts import RIGHT, WRONG, trajectory

OK, FAILED, INVALID, IDLE = CallKind.HELPFUL, CallKind.FAILED, CallKind.INVALID, CallKind.IDLE
LENGTH = 15 * 7


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        ((OK, FAILED, INVALID, FAILED, None), 1),
        ((FAILED, FAILED, FAILED, FAILED, None), 0),
        ((FAILED, None, FAILED, FAILED), 0),
        ((FAILED, FAILED, OK, FAILED, FAILED), None),
        ((FAILED, FAILED, IDLE, FAILED, FAILED, FAILED), 3),
        ((OK, None), None),
        ((), None),
    ],
)
def test_a_failure_is_fatal_with_the_third_in_a_row_and_counts_from_the_first(
    kinds: tuple[CallKind | None, ...], found: int | None
) -> None:
    assert fatal_turn(kinds, 3) == found
    assert fatal_turn(kinds, 0) is None


Tokens = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def on_tokens(rollouts: list[Trajectory], grades: list[Grade], config: RewardConfig) -> Tokens:
    """Rewards and mask as the rollout worker queues them: turns of 10 tokens, 5 of feedback between them."""
    rewards, mask = np.zeros((len(rollouts), LENGTH), np.float32), np.zeros((len(rollouts), LENGTH), np.int64)
    for row, (rollout, terms) in enumerate(zip(rollouts, score_group(rollouts, grades, config), strict=True)):
        spans = [(turn.token_start, turn.token_end) for turn in rollout.turns]
        sampled = [any(start <= token < end for start, end in spans) for token in range(LENGTH)]
        rewards[row] = encode_rewards(spans, terms, LENGTH)
        mask[row] = trained_mask([int(value) for value in sampled], spans, terms)
    return rewards, mask


def test_fatal_aware_worked_by_hand() -> None:
    """Scores 1, 0, 0 and 1: mean 1/2, deviation .57735, so S is .866 and -.866.

    The second fails fatally after one turn and is wrong: nothing of it is trained on but that turn, with max(S, 0) = 0.
    The last one fails so too, and is right in the end: its first turn gains.
    """
    failing = trajectory("ok", "error", "timeout", "rejected")
    rollouts, grades = [trajectory("ok"), failing, trajectory(), failing], [RIGHT, WRONG, WRONG, RIGHT]
    rewards, mask = on_tokens(rollouts, grades, FATAL_AWARE)
    assert mask.sum(axis=1).tolist() == [20, 10, 10, 10] and not mask[1, 10:].any()
    got = token_advantages(rewards, mask, [0] * 4, FATAL_AWARE)
    assert got[0, [0, 9, 15, 24]] == pytest.approx([0.866] * 4, abs=1e-3)
    assert not got[1].any()
    assert got[2, :10] == pytest.approx([-0.866] * 10, abs=1e-3)
    assert got[3, :10] == pytest.approx([0.866] * 10, abs=1e-3) and not got[3, 10:].any()


def test_a_rollout_that_fails_from_its_first_turn_on_still_counts_in_its_group() -> None:
    rollouts, grades = [trajectory("error", "error", "error"), trajectory(), trajectory()], [WRONG, RIGHT, WRONG]
    rewards, mask = on_tokens(rollouts, grades, FATAL_AWARE)
    assert not mask[0].any()
    plain = token_advantages(*on_tokens(rollouts, grades, OUTCOME), [0] * 3, OUTCOME)
    got = token_advantages(rewards, mask, [0] * 3, FATAL_AWARE)
    np.testing.assert_allclose(got[1:], plain[1:])
    assert not got[0].any()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("preset", [OUTCOME, PAPER])
def test_others_are_as_without_it_and_nothing_before_a_fatal_failure_is_blamed(seed: int, preset: RewardConfig) -> None:
    chance = random.Random(seed)
    calls = [
        [chance.choice(["ok", "error", "error", "rejected"]) for _ in range(chance.randrange(6))] for _ in range(7)
    ]
    calls.append(["ok", "error", "error", "error", "ok"])
    rollouts = [trajectory(*statuses) for statuses in calls]
    grades = [chance.choice([RIGHT, WRONG]) for _ in rollouts]
    config = preset.replace(fatal_failures=3, turn_weight=0.0)
    plain = token_advantages(*on_tokens(rollouts, grades, preset), [0] * 8, preset.replace(turn_weight=0.0))
    rewards, mask = on_tokens(rollouts, grades, config)
    got = token_advantages(rewards, mask, [0] * 8, config)
    terms = score_group(rollouts, grades, config)
    assert any(term.valid_turns is not None for term in terms)
    for row, term in enumerate(terms):
        expected = plain[row] if term.valid_turns is None else np.maximum(plain[row], 0) * mask[row]
        np.testing.assert_allclose(got[row], expected, atol=1e-5)
    logged = group_advantages(terms, config.replace(turn_credit="fixed"), divide_by_std=True)
    for row, (term, known) in enumerate(zip(terms, logged, strict=True)):
        assert known.turns is not None and len(known.turns) == len(term.turns)
        assert list(known.turns) == pytest.approx([float(got[row, 15 * k]) for k in range(len(term.turns))], abs=1e-5)


def test_what_is_encoded_comes_back_with_the_rewards_of_the_turns_that_are_left() -> None:
    config = PAPER.replace(fatal_failures=2)
    rollouts = [trajectory("ok", "error", "ok", "error", "error"), trajectory("error", "ok")]
    decoded = decode_rewards(*on_tokens(rollouts, [WRONG, RIGHT], config), fatal_turns=True)
    scores = [term.score for term in score_group(rollouts, [WRONG, RIGHT], config)]
    assert decoded.fatal.tolist() == [True, False]
    assert decoded.score.tolist() == pytest.approx(scores)
    assert decoded.turn_count.tolist() == [3, 3] and decoded.call_count.tolist() == [3, 2]
    assert decoded.turn_reward.tolist() == [[0, -0.5, 0], [-0.5, 0, 0]]


@pytest.mark.parametrize("name", ["gae", "grpo", "rloo"])
def test_estimators_that_add_token_rewards_up_refuse_it(name: str) -> None:
    with pytest.raises(UserError, match=f"adv_estimator={name}: reward_preset.fatal_failures=3 needs codedance_grpo"):
        check_estimator({"adv_estimator": name}, FATAL_AWARE)
    check_estimator({"adv_estimator": name}, OUTCOME)


def test_rejection_of_sequences_is_refused_beside_it() -> None:
    algorithm = {
        "adv_estimator": "codedance_grpo",
        "rollout_correction": {"rollout_rs": "seq_mean_k1"},
        "codedance": {"preset": "fatal_aware"},
    }
    with pytest.raises(UserError, match="rollout_rs=seq_mean_k1: a rollout that it rejects would be read"):
        check_estimator(algorithm, FATAL_AWARE)
    check_estimator({**algorithm, "codedance": {"preset": "outcome"}}, OUTCOME)


def test_returns_refuse_it() -> None:
    with pytest.raises(UserError, match=r"reward_preset\.fatal_failures=3: must be 0 with turn_credit=returns"):
        RewardConfig.from_mapping({"preset": "gtpo", "fatal_failures": 3})
