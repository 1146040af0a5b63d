"""Calls that are drawn again: which call it is, and the credit of branches, of their source and of the others."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from codedance_verl.reward.advantage import group_advantages, token_advantages
from codedance_verl.reward.encoding import Cut, decode_rewards, encode_rewards, trained_mask
from codedance_verl.reward.presets import OUTCOME, PRESETS
from codedance_verl.reward.redraw import CallPlace, RedrawAt, choose_call, cuts_of, score_with_branches
from codedance_verl.reward.terms import CustomValue
from codedance_verl.types import Branch, FinishReason, Grade, RewardTerms, Trajectory
from tests.unit.reward.rollouts import RIGHT, UNGRADED, WRONG, trajectory

CALLED, DIRECT = trajectory("ok"), trajectory()
TWICE = trajectory("ok", "error", answer="4")
SURE = CallPlace(0, 5, failed=False, probability=0.9)
UNSURE = CallPlace(0, 5, failed=False, probability=0.4)
LATER = CallPlace(1, 20, failed=True, probability=0.1)

BRANCH = Branch(parent=1, turn=0, token=6)


def chosen(
    rollouts: Sequence[Trajectory],
    grades: Sequence[Grade],
    calls: Sequence[Sequence[CallPlace]],
    at: RedrawAt = RedrawAt.FIRST_CALL,
    masked: Sequence[bool] = (),
    seed: int = 0,
) -> Branch | None:
    return choose_call(rollouts, grades, masked or [False] * len(rollouts), calls, at, random.Random(seed))


def test_the_least_sure_call_of_wrong_rollouts_is_drawn_again() -> None:
    rollouts, calls = [DIRECT, CALLED, CALLED], [[], [SURE], [UNSURE]]
    assert chosen(rollouts, [RIGHT, WRONG, WRONG], calls) == Branch(2, 0, 5)


def test_nothing_is_drawn_again_beside_a_right_call_or_without_a_call() -> None:
    calls = [[SURE], [UNSURE]]
    assert chosen([CALLED, CALLED], [RIGHT, WRONG], calls) is None
    assert chosen([DIRECT, DIRECT], [WRONG, WRONG], [[], []]) is None
    assert chosen([CALLED], [WRONG], [[]]) is None  # its call has no place of its own


def test_a_masked_rollout_is_no_source_and_keeps_no_group_from_a_redraw() -> None:
    lost = replace(CALLED, finish=FinishReason.INFRASTRUCTURE)
    calls = [[UNSURE], [SURE]]
    assert chosen([lost, CALLED], [UNGRADED, WRONG], calls, masked=[True, False]) == Branch(1, 0, 5)
    assert chosen([lost], [UNGRADED], [[UNSURE]], masked=[True]) is None


def test_the_first_failed_call_is_taken_where_asked_else_the_first() -> None:
    rollouts, grades, calls = [TWICE, CALLED], [WRONG, WRONG], [[SURE, LATER], [UNSURE]]
    assert chosen(rollouts, grades, calls) == Branch(1, 0, 5)
    assert chosen(rollouts, grades, calls, RedrawAt.FAILED_CALL) == Branch(0, 1, 20)


def test_equally_probable_calls_are_drawn_by_lot_and_the_lot_is_repeatable() -> None:
    def parent(seed: int) -> int:
        found = chosen([CALLED] * 4, [WRONG] * 4, [[SURE]] * 4, seed=seed)
        assert found is not None
        return found.parent

    assert {parent(seed) for seed in range(40)} == {0, 1, 2, 3}
    assert [parent(7) for _ in range(3)] == [parent(7)] * 3


# ---- credit ----


def branch_of(one: Trajectory) -> Trajectory:
    return replace(one, branch=BRANCH)


def scored(rollouts: Sequence[Trajectory], grades: Sequence[Grade]) -> tuple[list[RewardTerms], list[Cut | None]]:
    terms = score_with_branches(rollouts, grades, OUTCOME, [CustomValue()] * len(rollouts))
    return terms, cuts_of(rollouts, terms)


def advantages(rollouts: Sequence[Trajectory], terms: Sequence[RewardTerms], cuts: Sequence[Cut | None]) -> np.ndarray:  # type: ignore[type-arg]
    """Advantage of every token, [rollouts, tokens], through the numbers that verl carries."""
    length = max(one.turns[-1].token_end for one in rollouts) + 2
    rewards, mask = np.zeros((len(rollouts), length), np.float32), np.zeros((len(rollouts), length), np.int64)
    for row, (one, own, cut) in enumerate(zip(rollouts, terms, cuts, strict=True)):
        size = one.turns[-1].token_end
        spans = [(turn.token_start, turn.token_end) for turn in one.turns]
        sampled = [int(any(start <= token < end for start, end in spans)) for token in range(size)]
        rewards[row, :size] = encode_rewards(spans, own, size, cut)
        mask[row, :size] = trained_mask(sampled, spans, own, cut)
        assert rewards[row].sum() == pytest.approx(own.score)  # as verl reports it
    return token_advantages(rewards, mask, ["q"] * len(rollouts), OUTCOME)


# A group of 4 drawn from the start: right without a call, and wrong with one, three times; 4 branches of rollout 1.
FIRST = [trajectory(), *[trajectory("error", answer="4")] * 3]
BRANCHES = [branch_of(trajectory("ok", answer=answer)) for answer in ("3", "4", "4", "3")]
GROUP, GRADES = [*FIRST, *BRANCHES], [RIGHT, WRONG, WRONG, WRONG, RIGHT, WRONG, WRONG, RIGHT]


def standardised(value: float, group: Sequence[float]) -> float:
    return (value - statistics.fmean(group)) / statistics.stdev(group)


def test_credit_worked_by_hand() -> None:
    """Equations 2 to 4 of AXPO, with rewards of 0 and 1."""
    terms, cuts = scored(GROUP, GRADES)
    assert [own.score for own in terms] == [1, 0, 0, 0, 1, 0, 0, 1]
    got = advantages(GROUP, terms, cuts)
    as_drawn, recovered = [1, 0, 0, 0], [1, 1, 0, 0]
    assert got[0, :10] == pytest.approx(standardised(1, as_drawn), abs=1e-5)
    assert got[2, :10] == pytest.approx(standardised(0, as_drawn), abs=1e-5)
    assert got[2, 15:25] == pytest.approx(got[2, 0], abs=1e-6)
    # the source: what branches keep of it is compared as recovered, its own call and answer are not trained
    assert got[1, :6] == pytest.approx(standardised(1, recovered), abs=1e-5)
    assert not got[1, 6:].any()
    # branches: compared with one another, and only behind what they have kept
    for row, score in zip(range(4, 8), [1, 0, 0, 1], strict=True):
        assert not got[row, :6].any()
        assert got[row, [6, 9, 15, 24]] == pytest.approx(standardised(score, [1, 0, 0, 1]), abs=1e-5)


def test_every_token_that_was_sampled_once_is_trained_at_most_once() -> None:
    terms, cuts = scored(GROUP, GRADES)
    masks = [trained_mask([1] * 25, [], own, cut) for own, cut in zip(terms, cuts, strict=True)]
    kept = [mask[:6] for mask in (masks[1], *masks[4:])]
    assert [sum(column) for column in zip(*kept, strict=True)] == [1] * 6


def test_a_source_that_nothing_recovers_keeps_its_score_for_its_thought() -> None:
    terms, cuts = scored(GROUP, [RIGHT, *[WRONG] * 7])
    assert cuts[1] == Cut(0, 6, recovery=0.0)
    got = advantages(GROUP, terms, cuts)
    assert got[1, :6] == pytest.approx(standardised(0, [1, 0, 0, 0]), abs=1e-5)
    assert not got[1, 6:].any() and not got[4:].any()


def test_a_group_that_was_all_wrong_learns_from_its_branches() -> None:
    terms, cuts = scored(GROUP, [*[WRONG] * 4, RIGHT, WRONG, WRONG, RIGHT])
    got = advantages(GROUP, terms, cuts)
    assert not got[[0, 2, 3]].any()  # their own group has no spread
    assert got[1, :6] == pytest.approx(standardised(1, [0, 1, 0, 0]), abs=1e-5)
    assert (got[4, 6:10] > 0).all() and (got[5, 6:10] < 0).all()


def test_masked_branches_leave_their_source_as_it_was() -> None:
    lost = [replace(one, finish=FinishReason.INFRASTRUCTURE) for one in BRANCHES]
    terms, cuts = scored([*FIRST, *lost], [*GRADES[:4], *[UNGRADED] * 4])
    assert cuts[:4] == [None] * 4
    got = advantages([*FIRST, *lost], terms, cuts)
    assert got[1, [0, 9, 24]] == pytest.approx(standardised(0, [1, 0, 0, 0]), abs=1e-5)
    assert not got[4:].any()


def test_branches_say_nothing_of_the_difficulty_of_the_question() -> None:
    preset = PRESETS["paper"]
    alone = score_with_branches(FIRST, GRADES[:4], preset, [CustomValue()] * 4)
    beside = score_with_branches(GROUP, GRADES, preset, [CustomValue()] * 8)
    assert beside[:4] == alone


def test_graded_rewards_recover_to_the_best_right_branch() -> None:
    terms = [RewardTerms(float(own > 0), 0, 0, 0, own, (0.0, 0.0)) for own in (0.2, -0.2, 0.9, 1.1)]
    group = [trajectory("ok"), trajectory("error"), *[branch_of(trajectory("ok"))] * 2]
    assert cuts_of(group, terms) == [None, Cut(0, 6, recovery=1.1), Cut(0, 6), Cut(0, 6)]
    assert cuts_of(group, terms, numbers=[1, 5, 6, 7])[:2] == [Cut(0, 6, recovery=1.1), None]


@pytest.mark.parametrize("preset", ["outcome", "robust", "paper", "gtpo"])
def test_the_log_has_the_advantages_that_are_trained(preset: str) -> None:
    config = PRESETS[preset]
    later = replace(trajectory("ok", "error", "ok"), branch=Branch(1, 1, 20))
    wrong = replace(trajectory("ok", "error", answer="4"), branch=Branch(1, 1, 20))
    rollouts = [trajectory("ok"), trajectory("ok", "error", "ok", answer="4"), later, wrong]
    terms = score_with_branches(rollouts, [RIGHT, WRONG, RIGHT, WRONG], config, [CustomValue()] * 4)
    cuts = cuts_of(rollouts, terms)
    assert cuts[1] is not None and cuts[1].recovery == terms[2].score
    length = 60
    rewards, mask = np.zeros((4, length), np.float32), np.zeros((4, length), np.int64)
    for row, (one, own, cut) in enumerate(zip(rollouts, terms, cuts, strict=True)):
        spans = [(turn.token_start, turn.token_end) for turn in one.turns]
        rewards[row] = encode_rewards(spans, own, length, cut)
        sampled = [int(any(start <= token < end for start, end in spans)) for token in range(length)]
        mask[row] = trained_mask(sampled, spans, own, cut)
    got = token_advantages(rewards, mask, ["q"] * 4, config)
    for row, known in enumerate(group_advantages(terms, config, divide_by_std=True, cuts=cuts)):
        if known.turns is None:
            continue
        for turn, value in zip(rollouts[row].turns, known.turns, strict=True):
            trained = [token for token in range(turn.token_start, turn.token_end) if mask[row, token]]
            assert got[row, trained] == pytest.approx(value, abs=1e-5)
            assert trained or value == 0


def test_rows_without_branches_are_decoded_as_ever() -> None:
    decoded = decode_rewards(np.array([[0, 1.5, 0], [0, 0, 0.0]]), np.array([[1, 1, 0], [0, 0, 0]]))
    assert decoded.drawn_score.tolist() == decoded.score.tolist() == [1.5, 0]
    assert not decoded.branch.any()
