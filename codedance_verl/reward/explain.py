"""Grades and scores rollouts from a file, term by term."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from codedance_verl.errors import UserError
from codedance_verl.grading import Grader, GradingConfig
from codedance_verl.reward.advantage import of_turns, turn_advantages
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.custom_term import CustomTerm
from codedance_verl.reward.encoding import Cut, decode_rewards, encode_terms
from codedance_verl.reward.redraw import cuts_of, score_with_branches
from codedance_verl.reward.rollout_lines import RolloutLine
from codedance_verl.reward.terms import CustomValue
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
        UserError: a grader or a reward term of the user's own cannot be imported or called, or branches come with
            fatal failures.
    """
    _check_branches(lines, config)
    grades, custom = asyncio.run(_judged(lines, config, grading or GradingConfig(), regrade))
    scored: dict[int, RewardTerms] = {}
    cuts: dict[int, Cut | None] = {}
    members = defaultdict[str, list[int]](list)
    for index, line in enumerate(lines):
        members[line.group].append(index)
    # Terms rest on the whole group: accuracy over its rollouts sets the difficulty.
    for group in members.values():
        trajectories = [lines[k].trajectory for k in group]
        found = score_with_branches(trajectories, [grades[k] for k in group], config, [custom[k] for k in group])
        scored |= zip(group, found, strict=True)
        cuts |= zip(group, cuts_of(trajectories, found, [lines[k].sample for k in group]), strict=True)
    terms = [scored[k] for k in range(len(lines))]
    # The path of training: rewards go onto tokens and come back from them. [rollouts, turns]
    cut = [cuts[k] for k in range(len(lines))]
    decoded = decode_rewards(*encode_terms(terms, cut), fatal_turns=config.fatal_failures > 0)
    per_turn = turn_advantages(decoded, [line.group for line in lines], config, divide_by_std=True)
    advantages = [of_turns(own, per_turn[k], cut[k]) for k, own in enumerate(terms)]
    return [Explained(*item) for item in zip(lines, grades, terms, advantages, strict=True)]


def _check_branches(lines: Sequence[RolloutLine], config: RewardConfig) -> None:
    """Refuses what is refused at the start of a run (`preflight/layout.py`), with rollouts of another one."""
    if config.fatal_failures and (branch := next((line for line in lines if line.trajectory.branch), None)):
        raise UserError(
            f"line {branch.number}: a branch of a redrawn call cannot be scored with reward_preset.fatal_failures="
            f"{config.fatal_failures}; choose another preset or set it to 0"
        )


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
