"""Grades and scores rollouts from a file, term by term."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codedance_verl.grading import Grader, GradingConfig
from codedance_verl.reward.advantage import turn_advantages
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.custom_term import CustomTerm
from codedance_verl.reward.encoding import decode_rewards, encode_rewards
from codedance_verl.reward.rollout_lines import RolloutLine
from codedance_verl.reward.terms import CustomValue, score_group
from codedance_verl.types import Grade, RewardTerms


@dataclass(frozen=True)
class Explained:
    """One rollout with its verdict, its terms and the advantage of each of its turns."""

    line: RolloutLine
    grade: Grade
    terms: RewardTerms
    turn_advantage: tuple[float, ...]

    def as_record(self) -> dict[str, Any]:
        """The line as it was, with what was found added to it."""
        terms = self.terms
        return {
            **self.line.record,
            "accuracy": terms.accuracy,
            "format": terms.format,
            "difficulty": terms.difficulty,
            "sequence_reward": terms.sequence,
            "custom_reward": terms.custom,
            "turn_rewards": list(terms.turns),
            "score": terms.score,
            "turn_advantage": list(self.turn_advantage),
            "masked": terms.masked,
            "verdict": self.grade.verdict.value,
            "rung": self.grade.rule,
            "evidence": self.grade.evidence,
            "custom_fault": terms.custom_fault,
        }


def explain(
    lines: Sequence[RolloutLine], config: RewardConfig, grading: GradingConfig | None = None, *, regrade: bool = False
) -> list[Explained]:
    """Score the rollouts as one training batch; the result is in the order of the lines.

    A verdict that a line brings holds, but for `regrade`. Else answers are graded as in training with the settings
    `grading` (default: those of `GradingConfig`), without a judge: answers that only a judge could grade are ungraded.

    Raises:
        UserError: a grader or a reward term of the user's own cannot be imported or called.
    """
    grades, custom = asyncio.run(_judged(lines, config, grading or GradingConfig(), regrade))
    terms: list[RewardTerms | None] = [None] * len(lines)
    members: dict[str, list[int]] = {}
    for index, line in enumerate(lines):
        members.setdefault(line.group, []).append(index)
    # Terms rest on the whole group: accuracy over its rollouts sets the difficulty.
    for group in members.values():
        trajectories = [lines[k].trajectory for k in group]
        scored = score_group(trajectories, [grades[k] for k in group], config, [custom[k] for k in group])
        for index, found in zip(group, scored, strict=True):
            terms[index] = found
    known = [found for found in terms if found is not None]
    advantages = _turn_advantages(lines, known, config)
    return [Explained(*item) for item in zip(lines, grades, known, advantages, strict=True)]


async def _judged(
    lines: Sequence[RolloutLine], config: RewardConfig, grading: GradingConfig, regrade: bool
) -> tuple[list[Grade], list[CustomValue]]:
    """The grade of every line, and the user's own term of every line."""
    grader, term = Grader(grading.replace(judge={})), CustomTerm(config)
    try:
        grader.check_custom()
        term.check()
        grades = [
            line.grade if line.grade is not None and not regrade else await grader.grade_rollout(line.trajectory)
            for line in lines
        ]
        return grades, await term.values([line.trajectory for line in lines], grades)
    finally:
        term.close()
        await grader.close()


def _turn_advantages(
    lines: Sequence[RolloutLine], terms: Sequence[RewardTerms], config: RewardConfig
) -> list[tuple[float, ...]]:
    """Advantage of each turn by the estimator, for turns of one token each; zeros for a masked rollout."""
    # The path of training: rewards go onto tokens and come back from them.
    spans = [[(turn.token_start, turn.token_end) for turn in line.trajectory.turns] for line in lines]
    length = max(span[-1][1] for span in spans)
    rewards = np.zeros((len(lines), length), np.float32)  # [rollouts, tokens]
    mask = np.zeros((len(lines), length), np.int64)  # [rollouts, tokens]; 1 on sampled tokens of what counts
    for row, (own, found) in enumerate(zip(spans, terms, strict=True)):
        rewards[row] = encode_rewards(own, found, length)
        mask[row, [start for start, _ in own]] = not found.masked
    per_turn = turn_advantages(
        decode_rewards(rewards, mask), [line.group for line in lines], config, divide_by_std=True
    )
    return [
        tuple(0.0 if found.masked else float(value) for value in per_turn[row, : len(found.turns)])
        for row, found in enumerate(terms)
    ]
